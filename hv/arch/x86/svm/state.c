/* Guest state that lives in the VMCB: start states, registers. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/svm.h"
#include "shared/lib/string.h"

/* Segment attributes: descriptor bits 40-47 and 52-55 packed into 12 (APM 2 15.5.1). */
#define SEGMENT_CODE64 0xa9bu
#define SEGMENT_CODE32 0xc9bu
#define SEGMENT_DATA 0xc93u
#define SEGMENT_TSS 0x08bu
#define SEGMENT_LDT 0x082u

/* What is not named here is 0, like the IDT's limit: an exception before the guest has an IDT ends in a shutdown. */
void svm_reset(struct vcpu *vcpu, const struct vcpu_start *start)
{
    struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    const struct svm_segment data = {.selector = 0x10, .attributes = SEGMENT_DATA, .limit = 0xffffffff};

    memset(&vmcb->es, 0, sizeof(*vmcb) - offsetof(struct svm_vmcb, es));
    vmcb->cs = (struct svm_segment){
        .selector = 0x08, .attributes = start->long64 ? SEGMENT_CODE64 : SEGMENT_CODE32, .limit = 0xffffffff};
    vmcb->ds = vmcb->es = vmcb->ss = vmcb->fs = vmcb->gs = data;
    vmcb->tr = (struct svm_segment){.attributes = SEGMENT_TSS, .limit = 0xffff};
    vmcb->ldtr = (struct svm_segment){.attributes = SEGMENT_LDT, .limit = 0xffff};
    vmcb->gdtr = (struct svm_segment){.limit = start->long64 ? 23 : 0, .base = start->gdt};
    vmcb->dr6 = DR6_RESET;
    vmcb->dr7 = DR7_RESET;
    vmcb->pat = PAT_RESET;
    vmcb->cr0 = CR0_PE | CR0_ET | CR0_NE | (start->long64 ? CR0_WP | CR0_PG : 0);
    vmcb->cr3 = start->cr3;
    vmcb->cr4 = start->long64 ? CR4_PAE : 0;
    vmcb->efer = EFER_SVME /* VMRUN demands it */ | (start->long64 ? EFER_LME | EFER_LMA | EFER_NXE : 0);
    vmcb->interrupt_shadow = 0;
    vmcb->int_control = SVM_V_INTR_MASKING;
    svm_of(vcpu)->nmi = NMI_NONE;
    vcpu_reset(vcpu, start->entry);
    /* Nothing is injected into a driver VM, so its IF means nothing: physical interrupts go by the host's (APM
     * 2 15.21.1). But Bochs 2.7 loads RFLAGS before it is in guest mode, and a cleared IF then keeps them from a VM
     * that spins. */
    vcpu->rflags |= start->long64 ? RFLAGS_IF : 0;
}

#define FIELD(name) offsetof(struct svm_vmcb, name)
static const u16 fields[GUEST_REGISTERS] = {
    [GUEST_CR0] = FIELD(cr0),
    [GUEST_CR3] = FIELD(cr3),
    [GUEST_CR4] = FIELD(cr4),
    [GUEST_EFER] = FIELD(efer),
    [GUEST_PAT] = FIELD(pat),
    [GUEST_STAR] = FIELD(star),
    [GUEST_LSTAR] = FIELD(lstar),
    [GUEST_CSTAR] = FIELD(cstar),
    [GUEST_SFMASK] = FIELD(sfmask),
    [GUEST_KERNEL_GS_BASE] = FIELD(kernel_gs_base),
    [GUEST_FS_BASE] = FIELD(fs.base),
    [GUEST_GS_BASE] = FIELD(gs.base),
    [GUEST_SYSENTER_CS] = FIELD(sysenter_cs),
    [GUEST_SYSENTER_ESP] = FIELD(sysenter_esp),
    [GUEST_SYSENTER_EIP] = FIELD(sysenter_eip),
};

static u64 *field(struct vcpu *vcpu, enum guest_register reg)
{
    return (u64 *)((u8 *)svm_of(vcpu)->vmcb + fields[reg]);
}

/* SVME is ours: VMRUN demands it. */
u64 svm_read(struct vcpu *vcpu, enum guest_register reg)
{
    return *field(vcpu, reg) & ~(reg == GUEST_EFER ? EFER_SVME : 0);
}

void svm_write(struct vcpu *vcpu, enum guest_register reg, u64 value)
{
    *field(vcpu, reg) = value | (reg == GUEST_EFER ? EFER_SVME : 0);
}
