/* The SVM back end: what a CPU needs, the VMCB of a vCPU, entry and injection (APM 2 chapter 15). */
#include "hv/arch/x86/svm/svm.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/check.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"
#include "shared/abi/hypercall.h"
#include "shared/lib/string.h"

#define MSR_VM_CR 0xc0010114u
#define VM_CR_SVMDIS (1ull << 4)
#define MSR_VM_HSAVE_PA 0xc0010117u
#define CPUID_SVM 0x8000000au
#define SVM_FEATURE_NPT (1u << 0)

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

static u8 *closed_map(u64 frames)
{
    return memset(boot_frames(frames, "SVM permission maps"), 0xff, frames * PAGE_SIZE);
}

static void svm_cpu_init(struct cpu *cpu)
{
    if (!closed_msrpm.v) {
        closed_msrpm = ptr_to_hpa(closed_map(MSRPM_FRAMES));
        closed_iopm = ptr_to_hpa(closed_map(IOPM_FRAMES));
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
        svm->iopm = closed_map(IOPM_FRAMES);
        svm->vmcb->iopm = ptr_to_hpa(svm->iopm).v;
    }
    return OK;
}

static void svm_allow_ports(struct vcpu *vcpu, u16 first, u32 count)
{
    u8 *map = svm_of(vcpu)->iopm;

    for (u32 port = first; port < first + count && port < 0x10000; port++)
        map[port / 8] = (u8)(map[port / 8] & ~(1u << port % 8));
}

/* After an exit. The intercept comes before IRET is done, so NMIs stay blocked until the guest is seen elsewhere. */
static void follow_nmi(struct svm_vcpu *svm, u64 rip)
{
    if ((u32)svm->vmcb->exit_code == SVM_EXIT_IRET && svm->nmi == NMI_BLOCKED) {
        svm->nmi = NMI_IRET;
        svm->iret_rip = rip;
    } else if (svm->nmi == NMI_IRET && rip != svm->iret_rip) {
        svm->nmi = NMI_NONE;
    }
}

static bool svm_set_deadline(struct vcpu *vcpu, u64 tsc)
{
    (void)vcpu, (void)tsc;
    return false;
}

static void svm_enter(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    struct svm_vcpu *svm = svm_of(vcpu);
    struct svm_vmcb *vmcb = svm->vmcb;

    vmcb->rip = vcpu->rip;
    vmcb->rflags = vcpu->rflags;
    vmcb->rax = vcpu->regs.rax;
    vmcb->rsp = vcpu->regs.rsp;
    vmcb->event_injection = svm->injection;
    vmcb->tlb_control = vcpu->flush_tlb ? SVM_TLB_FLUSH_ALL : 0;
    vmcb->clean_bits = 0;
    vmcb->intercept[3] |= svm->nmi == NMI_BLOCKED ? IRET_INTERCEPT : 0;
    svm->injection = 0;
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
    if (vmcb->exit_int_info & SVM_EVENT_VALID) /* 15.7.2: the exit cut a delivery short; do it again */
        svm->injection = vmcb->exit_int_info;
    vmcb->int_control = SVM_V_INTR_MASKING; /* a window is asked for anew before each entry that needs it */
    vmcb->intercept[3] &= ~IRET_INTERCEPT;
    follow_nmi(svm, vcpu->rip);
    svm_decode_exit(vcpu, exit);
}

static bool svm_injection_pending(const struct vcpu *vcpu)
{
    return svm_of(vcpu)->injection;
}

static bool svm_can_take(const struct vcpu *vcpu, enum injection kind)
{
    const struct svm_vcpu *svm = svm_of(vcpu);

    return !(svm->vmcb->interrupt_shadow & 1) &&
           (kind == INJECT_NMI ? svm->nmi == NMI_NONE : (vcpu->rflags & RFLAGS_IF) != 0);
}

static void svm_inject(struct vcpu *vcpu, enum injection kind, u8 vector, bool has_error, u32 error_code)
{
    static const u64 types[] = {[INJECT_NMI] = SVM_EVENT_NMI, [INJECT_EXCEPTION] = SVM_EVENT_EXCEPTION};
    struct svm_vcpu *svm = svm_of(vcpu);

    svm->injection = SVM_EVENT_VALID | types[kind] | vector | (has_error ? SVM_EVENT_ERROR | (u64)error_code << 32 : 0);
    if (kind == INJECT_NMI)
        svm->nmi = NMI_BLOCKED;
}

static void svm_request_window(struct vcpu *vcpu, enum injection kind)
{
    /* A virtual interrupt that is never taken: the intercept comes first. For NMIs IRET is intercepted anyway. */
    if (kind == INJECT_INTERRUPT)
        svm_of(vcpu)->vmcb->int_control = SVM_V_INTR_MASKING | SVM_V_IRQ | SVM_V_PRIORITY_MAX | SVM_V_IGNORE_TPR;
}

static void svm_explain(struct vcpu *vcpu, u64 code)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    hv_log("%s: VMRUN refused: %lx, %s", vcpu->vm->name, code, svm_check(vmcb) ?: "by a rule that only this CPU knows");
    hv_log("cr0 %lx cr3 %lx cr4 %lx efer %lx rip %lx rflags %lx cs %x event %lx", vmcb->cr0, vmcb->cr3, vmcb->cr4,
           vmcb->efer, vmcb->rip, vmcb->rflags, vmcb->cs.attributes, vmcb->event_injection);
}

static void svm_skip(struct vcpu *vcpu, u32 length)
{
    vcpu->rip += length;
    svm_of(vcpu)->vmcb->interrupt_shadow = 0;
    if (vcpu->rflags & RFLAGS_TF) { /* the trap behind the instruction is ours, too (APM 2 13.1.4) */
        svm_of(vcpu)->vmcb->dr6 |= DR6_SINGLE_STEP;
        svm_inject(vcpu, INJECT_EXCEPTION, VECTOR_DEBUG, false, 0);
    }
}

const struct vcpu_vendor vcpu_vendor_svm = {
    .name = "svm",
    .description = "AMD SVM with nested paging",
    .nested_format = &page_format_npt,
    .hypercall_kind = DRIVER_VMMCALL,
    .missing = svm_missing,
    .cpu_init = svm_cpu_init,
    .create = svm_create,
    .allow_ports = svm_allow_ports,
    .reset_long64 = svm_reset_long64,
    .reset_protected32 = svm_reset_protected32,
    .set_deadline = svm_set_deadline,
    .enter = svm_enter,
    .explain = svm_explain,
    .injection_pending = svm_injection_pending,
    .can_take = svm_can_take,
    .inject = svm_inject,
    .request_window = svm_request_window,
    .skip = svm_skip,
    .read = svm_read,
    .write = svm_write,
};
