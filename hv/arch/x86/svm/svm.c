/* The SVM back end: what a CPU needs, the VMCB of a vCPU, entry and injection (APM 2 chapter 15). */
#include "hv/arch/x86/svm/svm.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/check.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"
#include "shared/abi/hypercall.h"

#define MSR_VM_CR 0xc0010114u
#define VM_CR_SVMDIS (1ull << 4)
#define MSR_VM_HSAVE_PA 0xc0010117u
#define CPUID_SVM 0x8000000au
#define SVM_FEATURE_NPT (1u << 0)

#define IS_NMI(event) (((event) & (EVENT_VALID | EVENT_TYPE)) == (EVENT_VALID | EVENT_TYPE_NMI))
#define IRET_INTERCEPT (1u << SVM_EXIT_IRET % 32) /* of word 3, while an NMI is in progress */

#define MSRPM_FRAMES 2u /* 15.11: 8 KiB */
#define IOPM_FRAMES 3u  /* 15.10.1: 12 KiB, one bit a port and a few more */

static u32 asid_count;
static u32 next_asid = 1;               /* 0 is the host's */
static hpa_t closed_msrpm, closed_iopm; /* all ones: everything exits */

static const char *svm_missing(void)
{
    u32 leaf[4];

    cpuid(0x80000000, 0, leaf);
    u32 last = leaf[0];
    cpuid(0x80000001, 0, leaf);
    if (last < CPUID_SVM || !(leaf[2] & 1u << 2))
        return "no AMD SVM (CPUID 80000001h ECX bit 2)";
    if (msr_read(MSR_VM_CR) & VM_CR_SVMDIS)
        return "AMD SVM is switched off by firmware (VM_CR.SVMDIS)";
    cpuid(CPUID_SVM, 0, leaf);
    asid_count = leaf[1];
    return leaf[3] & SVM_FEATURE_NPT ? NULL : "AMD SVM without nested paging (CPUID 8000000Ah EDX bit 0)";
}

static void svm_cpu_init(struct cpu *cpu)
{
    if (!closed_msrpm.v) {
        closed_msrpm = ptr_to_hpa(permission_map_create(MSRPM_FRAMES));
        closed_iopm = ptr_to_hpa(permission_map_create(IOPM_FRAMES));
    }
    cpu->host_state = ptr_to_hpa(boot_frames(1, "SVM host state")).v;
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_SVME | EFER_NXE);
    msr_write(MSR_VM_HSAVE_PA, ptr_to_hpa(boot_frames(1, "SVM host state")).v);
}

/* CR4 of the guest is checked (no XSAVE, no bits that VMRUN refuses), its CR8 is the platform's; a driver VM has no
 * business with any but CR2, nor with DRs. */
static void set_intercepts(struct svm_vmcb *vmcb, bool driver)
{
    vmcb->intercept[0] = 1u << 8 | (driver ? 0xffff0000u & ~(1u << (16 + 2)) : 1u << (16 + 4) | 1u << (16 + 8));
    vmcb->intercept[1] = driver ? 0xffffffffu : 0;
    vmcb->intercept[2] = 1u << 1 | 1u << 17; /* #DB, #AC: their delivery can loop without end (15.12) */
    vmcb->intercept[3] = (svm_intercepts(3) & ~IRET_INTERCEPT) | 1u << SVM_EXIT_FERR_FREEZE % 32;
    vmcb->intercept[4] = svm_intercepts(4);
}

static status_t svm_create(struct vcpu *vcpu)
{
    static struct svm_vcpu pool[VM_MAX];
    struct svm_vcpu *svm = &pool[vcpu->vm->id];

    if (next_asid >= asid_count)
        return ERR_NO_SPACE;
    vcpu->arch = svm;
    svm->vmcb = boot_frames(1, "a VMCB");
    svm->vmcb_hpa = ptr_to_hpa(svm->vmcb);
    set_intercepts(svm->vmcb, vcpu->vm->driver);
    svm->vmcb->iopm = closed_iopm.v;
    svm->vmcb->msrpm = closed_msrpm.v;
    svm->vmcb->asid = next_asid++;
    svm->vmcb->nested_control = SVM_NESTED_PAGING;
    svm->vmcb->nested_cr3 = vcpu->vm->npt.root.v;
    if (vcpu->vm->driver) {
        vcpu->port_map = permission_map_create(IOPM_FRAMES); /* 15.10.1 */
        svm->vmcb->iopm = ptr_to_hpa(vcpu->port_map).v;
    }
    return OK;
}

/* The intercept comes before IRET is done, so NMIs stay blocked until the guest is seen elsewhere. */
static void follow_nmi(struct svm_vcpu *svm, u64 rip)
{
    if (IS_NMI(svm->vmcb->exit_event)) /* its delivery was cut short */
        svm->nmi = NMI_NONE;
    else if ((u32)svm->vmcb->exit_code == SVM_EXIT_IRET && svm->nmi == NMI_BLOCKED) {
        svm->nmi = NMI_IRET;
        svm->iret_rip = rip;
    } else if (svm->nmi == NMI_IRET && rip != svm->iret_rip) {
        svm->nmi = NMI_NONE;
    }
}

static void svm_enter(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    struct svm_vcpu *svm = svm_of(vcpu);
    struct svm_vmcb *vmcb = svm->vmcb;

    vmcb->rip = vcpu->rip;
    vmcb->rflags = vcpu->rflags;
    vmcb->rax = vcpu->regs.rax;
    vmcb->rsp = vcpu->regs.rsp;
    vmcb->event = vcpu->event;
    vmcb->event_error = vcpu->event_error;
    vmcb->tlb_control = vcpu->flush_tlb ? SVM_TLB_FLUSH_ALL : 0;
    vmcb->clean_bits = 0;
    if (IS_NMI(vcpu->event))
        svm->nmi = NMI_BLOCKED;
    vmcb->intercept[3] |= svm->nmi == NMI_BLOCKED ? IRET_INTERCEPT : 0;
    vcpu->flush_tlb = false;
    if (CHECK_ENTRIES && svm_check(vmcb)) {
        *exit = (struct vcpu_exit){.kind = EXIT_INVALID};
        return;
    }

    svm_run(svm->vmcb_hpa.v, this_cpu()->host_state, &vcpu->regs);

    vcpu->rip = vmcb->rip;
    vcpu->rflags = vmcb->rflags;
    vcpu->regs.rax = vmcb->rax;
    vcpu->regs.rsp = vmcb->rsp;
    vcpu_keep_event(vcpu, vmcb->exit_event, vmcb->exit_event_error);
    vmcb->int_control = SVM_V_INTR_MASKING; /* a window is asked for anew before each entry that needs it */
    vmcb->intercept[3] &= ~IRET_INTERCEPT;
    follow_nmi(svm, vcpu->rip);
    svm_decode_exit(vcpu, exit);
}

static bool svm_can_take(const struct vcpu *vcpu, u32 type)
{
    const struct svm_vcpu *svm = svm_of(vcpu);

    return !(svm->vmcb->interrupt_shadow & 1) &&
           (type == EVENT_TYPE_NMI ? svm->nmi == NMI_NONE : (vcpu->rflags & RFLAGS_IF) != 0);
}

static void svm_request_window(struct vcpu *vcpu, u32 type)
{
    /* A virtual interrupt that is never taken: the intercept comes first. For NMIs IRET is intercepted anyway. */
    if (type == EVENT_TYPE_INTERRUPT)
        svm_of(vcpu)->vmcb->int_control = SVM_V_INTR_MASKING | SVM_V_IRQ | SVM_V_PRIORITY_MAX | SVM_V_IGNORE_TPR;
}

static void svm_explain(struct vcpu *vcpu, u64 code)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    hv_log("%s: VMRUN refused: %lx, %s", vcpu->vm->name, code, svm_check(vmcb) ?: "by a rule that only this CPU knows");
    hv_log("cr0 %lx cr3 %lx cr4 %lx efer %lx rip %lx rflags %lx cs %x event %x", vmcb->cr0, vmcb->cr3, vmcb->cr4,
           vmcb->efer, vmcb->rip, vmcb->rflags, vmcb->cs.attributes, vmcb->event);
}

static void svm_end_instruction(struct vcpu *vcpu, bool trap)
{
    svm_of(vcpu)->vmcb->interrupt_shadow = 0;
    svm_of(vcpu)->vmcb->dr6 |= trap ? DR6_SINGLE_STEP : 0;
}

const struct vcpu_vendor vcpu_vendor_svm = {
    .name = "svm",
    .description = "AMD SVM with nested paging",
    .nested_format = &page_format_npt,
    .hypercall_kind = DRIVER_VMMCALL,
    .missing = svm_missing,
    .cpu_init = svm_cpu_init,
    .create = svm_create,
    .reset = svm_reset,
    .enter = svm_enter,
    .explain = svm_explain,
    .can_take = svm_can_take,
    .request_window = svm_request_window,
    .end_instruction = svm_end_instruction,
    .read = svm_read,
    .write = svm_write,
};
