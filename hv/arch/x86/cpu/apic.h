/*
 * The local APIC of the physical CPU (SDM 3A 10): xAPIC by MMIO, or x2APIC when firmware left it on. The timer is
 * one-shot. No lock needed: each function works on the calling CPU's own APIC.
 */
#pragma once

#include "shared/lib/types.h"

#define VECTOR_DEVICE_FIRST 0x40u /* device MSIs, one a driver VM */
#define VECTOR_TIMER 0xf0u
#define VECTOR_KICK 0xf1u
#define VECTOR_IOMMU 0xf2u
#define VECTOR_STOP 0xf3u /* panic on another CPU */
#define VECTOR_SPURIOUS 0xffu

void apic_init_cpu(void);
u32 apic_id(void);
void apic_eoi(void);
void apic_send(u32 apic_id, u8 vector);
/* INIT, then SIPI to page `page` (SDM 3A 8.4.4). */
void apic_start_cpu(u32 apic_id, u8 page);

/* Measure TSC and APIC timer against the ACPI PM timer (ACPI 4.8.3.3) at this port. Sets tsc_khz. */
void apic_calibrate(u16 pm_timer_port);

/*
 * Raise VECTOR_TIMER when the TSC reaches `deadline`, or soon when it has passed; ~0: never. again: and then again and
 * again, until this is called anew.
 */
void apic_timer_arm(u64 deadline, bool again);
