/* Inside the VMX back end: what this CPU can do, and the vendor's part of a vCPU. */
#pragma once

#include "hv/arch/x86/vendor.h"
#include "hv/arch/x86/vmx/vmcs.h"

/* The control fields of every vCPU, and what else follows from the capability MSRs. */
struct vmx_controls {
    u32 pin, primary, secondary, exit, entry; /* window bits and ENTRY_CONTROL_GUEST_64 come and go at run time */
    u64 cr0_set, cr4_set;                     /* bits that are 1 in VMX operation; PE and PG are the guest's own */
    u64 cr0_allowed, cr4_allowed;             /* bits that may be 1 */
    u64 ept_pointer;                          /* EPTP without the root: write-back, four levels, A/D where offered */
    u32 ept_superpages;                       /* as in struct page_format: bit 1: 2 MiB, bit 2: 1 GiB */
    bool preemption_timer;
    u32 timer_shift; /* TSC ticks >> this = ticks of the preemption timer (A.6) */
};

/*
 * capabilities.c, pure: every control from what the CPU says of itself. Returns NULL, or static text that names what is
 * required and absent; then *out is undefined.
 */
const char *vmx_controls_compute(const struct vmx_capabilities *caps, struct vmx_controls *out);
