/* Inside the SVM back end: the vendor's part of a vCPU. */
#pragma once

#include "hv/arch/x86/svm/vmcb.h"
#include "hv/arch/x86/vendor.h"

struct svm_vcpu {
    struct svm_vmcb *vmcb;
    hpa_t vmcb_hpa;
    /*
     * An NMI blocks further ones until IRET (15.21.8 knows no such state on all CPUs): NMI_NONE -- delivered -->
     * NMI_BLOCKED -- IRET intercepted, about to be done --> NMI_IRET -- any exit elsewhere --> NMI_NONE
     */
    enum { NMI_NONE, NMI_BLOCKED, NMI_IRET } nmi;
    u64 iret_rip;
};

static inline struct svm_vcpu *svm_of(const struct vcpu *vcpu)
{
    return vcpu->arch;
}

void svm_run(u64 guest_vmcb, u64 host_state, struct vcpu_registers *regs);

/* exit.c: VMCB -> neutral record, and which bits of that intercept word (3 or 4) it knows the exits of. */
void svm_decode_exit(struct vcpu *vcpu, struct vcpu_exit *exit);
u32 svm_intercepts(u32 word);

/* state.c: start states, MSRs and control registers that live in the VMCB. */
void svm_reset(struct vcpu *vcpu, const struct vcpu_start *start);
u64 svm_read(struct vcpu *vcpu, enum guest_register reg);
void svm_write(struct vcpu *vcpu, enum guest_register reg, u64 value);
