/* The local APIC: x2APIC by MSRs where CPUID offers it, else xAPIC by memory at 0xfee00000. One CPU, any context. */
#pragma once

#include "shared/lib/types.h"

/* Enable it, mask its local pins, and take KVM's paravirtual end of interrupt when it is offered. After paging_init. */
void lapic_init(void);

/* Tell the APIC that the handler is through; costs no access when the hypervisor said so beforehand (PV_EOI). */
void lapic_end_interrupt(void);

u32 lapic_id(void);
const char *lapic_mode(void); /* "x2APIC" or "xAPIC" */

/* The timer in one-shot mode: start counting down from count at the bus clock divided by 1; 0 stops it. */
void lapic_timer_start(u32 count);
u32 lapic_timer_remaining(void);

/* Choose the vector and the mode of the timer: TSC deadline (MSR_TSC_DEADLINE) or one-shot. */
void lapic_timer_configure(u8 vector, bool tsc_deadline);
