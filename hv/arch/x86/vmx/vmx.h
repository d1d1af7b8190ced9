/* Inside the VMX back end: what this CPU can do, and the vendor's part of a vCPU. */
#pragma once

#include "hv/arch/x86/vendor.h"
#include "hv/arch/x86/vmx/vmcs.h"

/* The control fields of every vCPU, and what else follows from the capability MSRs. */
struct vmx_controls {
    u32 pin, primary, secondary, exit, entry; /* window bits and ENTRY_CONTROL_GUEST_64 come and go at run time */
    u64 feature_control;                      /* what IA32_FEATURE_CONTROL must be */
    u64 cr0_set, cr4_set;                     /* bits that are 1 in VMX operation; PE and PG are the guest's own */
    u64 cr4_allowed;                          /* bits that may be 1 */
    u64 ept_pointer;                          /* EPTP without the root: write-back, four levels */
    u32 ept_superpages;                       /* as in struct page_format: bit 1: 2 MiB, bit 2: 1 GiB */
    bool preemption_timer;
    u32 timer_shift; /* TSC ticks >> this = ticks of the preemption timer (A.6) */
};

/*
 * capabilities.c, pure: every control from what the CPU says of itself. Returns NULL, or static text that names what is
 * required and absent; then *out is undefined.
 */
const char *vmx_controls_compute(const struct vmx_capabilities *caps, struct vmx_controls *out);

/* MSRs that neither entry nor exit switches and the hypervisor does not use: theirs is the vCPU that ran here last. */
#define VMX_SWITCHED (GUEST_KERNEL_GS_BASE - GUEST_STAR + 1)

struct vmx_vcpu {
    hpa_t vmcs;
    u16 vpid;
    bool prepared; /* the fields that never change are written */
    bool launched;
    bool dumped;
    bool starts; /* a start state waits for the vCPU's own CPU: */
    struct vcpu_start start;
    u64 switched[VMX_SWITCHED], cr2; /* while another vCPU is loaded */
    u64 deadline;                    /* TSC */
    u32 windows;                     /* of the primary controls, for one entry */
    u32 interruptibility;            /* 24.4.2 */
};

static inline struct vmx_vcpu *vmx_of(const struct vcpu *vcpu)
{
    return vcpu->arch;
}

/* vmx.c. A field that this CPU does not have reads 0. */
u64 vmcs_read(enum vmcs_field field);
void vmcs_write(enum vmcs_field field, u64 value);
/* Makes its VMCS this CPU's current one, in the start state that was asked for. On the vCPU's CPU only. */
struct vmx_vcpu *vmx_use(struct vcpu *vcpu);
extern struct vmx_capabilities vmx_capabilities;
extern struct vmx_controls vmx_controls;
extern hpa_t vmx_closed_map; /* two pages of ones: I/O bitmaps, the first is the MSR bitmap as well */

/* run.S: into the guest and out again. False: there was no entry, VMLAUNCH or VMRESUME failed. */
bool vmx_run(struct vcpu_registers *regs, bool launched);
extern const char vmx_exit_entry[];

/* exit.c: VMCS -> neutral record, and what of the exit matters to the next entry. Reasons that others need, too
 * (appendix C). */
#define REASON_EXCEPTION 0u
#define REASON_EPT_VIOLATION 48u
#define REASON_ENTRY_FAILED (1u << 31)
void vmx_decode_exit(struct vcpu *vcpu, struct vcpu_exit *exit);

/* state.c: the VMCS at its start, registers. The VMCS is current, but for the resets. */
void vmx_write_fixed_fields(struct vcpu *vcpu);
void vmx_write_start_state(struct vcpu *vcpu);
void vmx_reset(struct vcpu *vcpu, const struct vcpu_start *start);
u64 vmx_read(struct vcpu *vcpu, enum guest_register reg);
void vmx_write(struct vcpu *vcpu, enum guest_register reg, u64 value);
void vmx_switch_registers(struct vmx_vcpu *from, struct vmx_vcpu *to);
/* What the CPU would have done to DR6 and DR7 at #DB (27.1); of the guest only, whose DR6 the CPU holds. */
void vmx_debug_exception(struct vcpu *vcpu, u64 qualification);

/* explain.c. The first fills *state, and says which rule it breaks (check.h). */
const char *vmx_check_current(struct vmcs_snapshot *state);
void vmx_explain(struct vcpu *vcpu, u64 code);
