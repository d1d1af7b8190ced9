/* Guest state that lives in the VMCB: start states, MSRs, CR4. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/svm.h"

/* Segment attributes: descriptor bits 40-47 and 52-55 packed into 12 (APM 2 15.5.1). */
#define SEGMENT_CODE64 0xa9bu
#define SEGMENT_CODE32 0xc9bu
#define SEGMENT_DATA 0xc93u
#define SEGMENT_TSS 0x08bu
#define SEGMENT_LDT 0x082u
#define PAT_RESET 0x0007040600070406ull

static void reset_common(struct vcpu *vcpu, u64 entry, u32 code_attributes)
{
    struct svm_vcpu *svm = svm_of(vcpu);
    struct svm_vmcb *vmcb = svm->vmcb;
    const struct svm_segment data = {.selector = 0x10, .attributes = SEGMENT_DATA, .limit = 0xffffffff};

    vmcb->cs = (struct svm_segment){.selector = 0x08, .attributes = (u16)code_attributes, .limit = 0xffffffff};
    vmcb->ds = vmcb->es = vmcb->ss = vmcb->fs = vmcb->gs = data;
    vmcb->tr = (struct svm_segment){.attributes = SEGMENT_TSS, .limit = 0xffff};
    vmcb->ldtr = (struct svm_segment){.attributes = SEGMENT_LDT, .limit = 0xffff};
    vmcb->idtr = (struct svm_segment){.limit = 0}; /* any exception before the guest has an IDT ends in a shutdown */
    vmcb->gdtr = (struct svm_segment){.limit = 0};
    vmcb->cpl = 0;
    vmcb->cr2 = 0;
    vmcb->dr6 = 0xffff0ff0;
    vmcb->dr7 = 0x400;
    vmcb->pat = PAT_RESET;
    vmcb->star = vmcb->lstar = vmcb->cstar = vmcb->sfmask = vmcb->kernel_gs_base = 0;
    vmcb->sysenter_cs = vmcb->sysenter_eip = vmcb->sysenter_esp = 0;
    vmcb->interrupt_shadow = 0;
    vmcb->event_injection = 0;
    vmcb->int_control = SVM_V_INTR_MASKING;
    svm->injection = 0;
    vcpu->regs = (struct vcpu_registers){0};
    vcpu->rip = entry;
    vcpu->rflags = RFLAGS_FIXED;
    vcpu->flush_tlb = true;
}

void svm_reset_long64(struct vcpu *vcpu, u64 entry, u64 rsp, u64 cr3, u64 gdt)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    reset_common(vcpu, entry, SEGMENT_CODE64);
    vmcb->gdtr = (struct svm_segment){.limit = 23, .base = gdt};
    vmcb->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    vmcb->cr3 = cr3;
    vmcb->cr4 = CR4_PAE;
    vmcb->efer = EFER_SVME | EFER_LME | EFER_LMA | EFER_NXE;
    vcpu->regs.rsp = rsp;
}

void svm_reset_protected32(struct vcpu *vcpu, u64 entry)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    reset_common(vcpu, entry, SEGMENT_CODE32);
    vmcb->cr0 = CR0_PE | CR0_ET | CR0_NE;
    vmcb->cr3 = 0;
    vmcb->cr4 = 0;
    vmcb->efer = EFER_SVME;
}

static bool canonical(u64 address)
{
    return (u64)((i64)(address << 16) >> 16) == address;
}

static bool write_efer(struct vcpu *vcpu, u64 value)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    const u64 allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

    if (value & ~allowed)
        return false;
    if ((vmcb->cr0 & CR0_PG) && ((value ^ vmcb->efer) & EFER_LME))
        return false; /* APM 2 14.6.1: not while paging is on */
    vmcb->efer = (value & ~EFER_LMA) | (vmcb->efer & EFER_LMA) | EFER_SVME; /* SVME: VMRUN demands it */
    vcpu->flush_tlb = true;
    return true;
}

static bool write_pat(struct svm_vmcb *vmcb, u64 value)
{
    for (u32 i = 0; i < 8; i++) {
        u64 type = value >> i * 8 & 0xff;
        if (type > 7 || type == 2 || type == 3) /* APM 2 7.8.1 */
            return false;
    }
    vmcb->pat = value;
    return true;
}

static u64 *msr_field(struct svm_vmcb *vmcb, u32 index, bool *address)
{
    *address = false;
    switch (index) {
    case MSR_STAR:
        return &vmcb->star;
    case MSR_SFMASK:
        return &vmcb->sfmask;
    case MSR_SYSENTER_CS:
        return &vmcb->sysenter_cs;
    default:
        break;
    }
    *address = true;
    switch (index) {
    case MSR_LSTAR:
        return &vmcb->lstar;
    case MSR_CSTAR:
        return &vmcb->cstar;
    case MSR_FS_BASE:
        return &vmcb->fs.base;
    case MSR_GS_BASE:
        return &vmcb->gs.base;
    case MSR_KERNEL_GS_BASE:
        return &vmcb->kernel_gs_base;
    case MSR_SYSENTER_ESP:
        return &vmcb->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &vmcb->sysenter_eip;
    default:
        return NULL;
    }
}

bool svm_msr(struct vcpu *vcpu, u32 index, bool write, u64 *value, bool *known)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    bool address;
    u64 *field = msr_field(vmcb, index, &address);

    *known = true;
    if (field) {
        if (!write)
            *value = *field;
        else if (address && !canonical(*value))
            return false;
        else
            *field = *value;
        return true;
    }
    if (index == MSR_EFER || index == MSR_PAT) {
        if (write)
            return index == MSR_EFER ? write_efer(vcpu, *value) : write_pat(vmcb, *value);
        *value = index == MSR_EFER ? vmcb->efer & ~EFER_SVME : vmcb->pat;
        return true;
    }
    *known = false;
    return false;
}

/* CR4 bits that a guest may set: what it can use without XSAVE, and what this CPU has (VMRUN refuses the rest). */
static u64 cr4_allowed(void)
{
    u32 leaf[4];
    u64 allowed = 0x6ff | CR4_OSXMMEXCPT; /* VME .. PGE, OSFXSR; not PCE's bit 8 */

    cpuid(7, 0, leaf);
    if (leaf[1] & 1u << 0)
        allowed |= CR4_FSGSBASE;
    if (leaf[1] & 1u << 7)
        allowed |= CR4_SMEP;
    if (leaf[1] & 1u << 20)
        allowed |= CR4_SMAP;
    if (leaf[2] & 1u << 2)
        allowed |= CR4_UMIP;
    return allowed;
}

bool svm_cr4_write(struct vcpu *vcpu, u64 value)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    if (value & ~cr4_allowed())
        return false;
    if ((vmcb->efer & EFER_LMA) && !(value & CR4_PAE))
        return false; /* APM 2 3.1.3 */
    vmcb->cr4 = value;
    vcpu->flush_tlb = true; /* PGE, PAE, PSE, SMEP change what the TLB may hold */
    return true;
}

struct guest_paging svm_paging(const struct vcpu *vcpu)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    return (struct guest_paging){.cr0 = vmcb->cr0, .cr3 = vmcb->cr3, .cr4 = vmcb->cr4, .efer = vmcb->efer};
}
