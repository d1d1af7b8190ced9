/* Guest state that lives in the VMCB: start states, MSRs, CR4. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/svm.h"
#include "shared/lib/string.h"

/* Segment attributes: descriptor bits 40-47 and 52-55 packed into 12 (APM 2 15.5.1). */
#define SEGMENT_CODE64 0xa9bu
#define SEGMENT_CODE32 0xc9bu
#define SEGMENT_DATA 0xc93u
#define SEGMENT_TSS 0x08bu
#define SEGMENT_LDT 0x082u
#define PAT_RESET 0x0007040600070406ull

/* What is not named here is 0, like the IDT's limit: an exception before the guest has an IDT ends in a shutdown. */
static void reset_common(struct vcpu *vcpu, u64 entry, u16 code_attributes)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    const struct svm_segment data = {.selector = 0x10, .attributes = SEGMENT_DATA, .limit = 0xffffffff};

    memset(&vmcb->es, 0, sizeof(*vmcb) - offsetof(struct svm_vmcb, es));
    vmcb->cs = (struct svm_segment){.selector = 0x08, .attributes = code_attributes, .limit = 0xffffffff};
    vmcb->ds = vmcb->es = vmcb->ss = vmcb->fs = vmcb->gs = data;
    vmcb->tr = (struct svm_segment){.attributes = SEGMENT_TSS, .limit = 0xffff};
    vmcb->ldtr = (struct svm_segment){.attributes = SEGMENT_LDT, .limit = 0xffff};
    vmcb->dr6 = 0xffff0ff0;
    vmcb->dr7 = 0x400;
    vmcb->pat = PAT_RESET;
    vmcb->cr0 = CR0_PE | CR0_ET | CR0_NE;
    vmcb->efer = EFER_SVME; /* VMRUN demands it */
    vmcb->interrupt_shadow = 0;
    vmcb->int_control = SVM_V_INTR_MASKING;
    svm_of(vcpu)->injection = 0;
    vcpu_reset(vcpu, entry);
}

void svm_reset_long64(struct vcpu *vcpu, u64 entry, u64 rsp, u64 cr3, u64 gdt)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    reset_common(vcpu, entry, SEGMENT_CODE64);
    vmcb->gdtr = (struct svm_segment){.limit = 23, .base = gdt};
    vmcb->cr0 |= CR0_WP | CR0_PG;
    vmcb->cr3 = cr3;
    vmcb->cr4 = CR4_PAE;
    vmcb->efer |= EFER_LME | EFER_LMA | EFER_NXE;
    vcpu->regs.rsp = rsp;
}

void svm_reset_protected32(struct vcpu *vcpu, u64 entry)
{
    reset_common(vcpu, entry, SEGMENT_CODE32);
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
        return false;                                                       /* APM 2 14.6.1: not while paging is on */
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

/* MSRs that are fields of the VMCB and no more. address: only canonical values. */
static const struct {
    u32 index;
    u16 offset;
    bool address;
} msr_fields[] = {
    {MSR_STAR, offsetof(struct svm_vmcb, star), false},
    {MSR_LSTAR, offsetof(struct svm_vmcb, lstar), true},
    {MSR_CSTAR, offsetof(struct svm_vmcb, cstar), true},
    {MSR_SFMASK, offsetof(struct svm_vmcb, sfmask), false},
    {MSR_FS_BASE, offsetof(struct svm_vmcb, fs.base), true},
    {MSR_GS_BASE, offsetof(struct svm_vmcb, gs.base), true},
    {MSR_KERNEL_GS_BASE, offsetof(struct svm_vmcb, kernel_gs_base), true},
    {MSR_SYSENTER_CS, offsetof(struct svm_vmcb, sysenter_cs), false},
    {MSR_SYSENTER_ESP, offsetof(struct svm_vmcb, sysenter_esp), true},
    {MSR_SYSENTER_EIP, offsetof(struct svm_vmcb, sysenter_eip), true},
};

static bool msr_field(u64 *field, bool address, bool write, u64 *value)
{
    if (write && address && !canonical(*value))
        return false;
    *(write ? field : value) = *(write ? value : field);
    return true;
}

bool svm_msr(struct vcpu *vcpu, u32 index, bool write, u64 *value, bool *known)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;

    *known = true;
    for (u32 i = 0; i < ARRAY_SIZE(msr_fields); i++)
        if (msr_fields[i].index == index)
            return msr_field((u64 *)((u8 *)vmcb + msr_fields[i].offset), msr_fields[i].address, write, value);
    if (write && index == MSR_EFER)
        return write_efer(vcpu, *value);
    if (write && index == MSR_PAT)
        return write_pat(vmcb, *value);
    *known = index == MSR_EFER || index == MSR_PAT;
    *value = index == MSR_EFER ? vmcb->efer & ~EFER_SVME : index == MSR_PAT ? vmcb->pat : *value;
    return *known;
}

/* CR4 bits that a guest may set: what it can use without XSAVE, and what this CPU has (VMRUN refuses the rest). */
static u64 cr4_allowed(void)
{
    u32 leaf[4];

    cpuid(7, 0, leaf);
    return 0x6ff /* VME to PGE, OSFXSR, OSXMMEXCPT; not PCE */ | (leaf[1] & 1u << 0 ? CR4_FSGSBASE : 0) |
           (leaf[1] & 1u << 7 ? CR4_SMEP : 0) | (leaf[1] & 1u << 20 ? CR4_SMAP : 0) |
           (leaf[2] & 1u << 2 ? CR4_UMIP : 0);
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

    return (struct guest_paging){.cr0 = vmcb->cr0, .cr3 = vmcb->cr3, .efer = vmcb->efer};
}
