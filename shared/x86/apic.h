/* Registers of the local APIC (SDM 3A 10) and the IOAPIC (82093AA data sheet, 3), and the messages between them. */
#pragma once

#include "shared/lib/types.h"

/* MSR_APIC_BASE (SDM 3A 10.4.4) */
#define APIC_BASE_EXTD (1ull << 10) /* x2APIC; entered through the enabled xAPIC state only (10.12.5) */
#define APIC_BASE_ENABLE (1ull << 11)
#define APIC_BASE_ADDRESS 0x000ffffffffff000ull

/* Offsets of the memory-mapped form; the MSR is MSR_X2APIC + offset / 16 (SDM 3A 10.4.1, 10.12.1). */
#define APIC_ID 0x20u
#define APIC_TPR 0x80u
#define APIC_EOI 0xb0u
#define APIC_SPURIOUS 0xf0u
#define APIC_ICR_LOW 0x300u
#define APIC_ICR_HIGH 0x310u
#define APIC_LVT_TIMER 0x320u
#define APIC_LVT_LINT0 0x350u
#define APIC_LVT_LINT1 0x360u
#define APIC_LVT_ERROR 0x370u
#define APIC_TIMER_INITIAL 0x380u
#define APIC_TIMER_CURRENT 0x390u
#define APIC_TIMER_DIVIDE 0x3e0u

#define APIC_ENABLE (1u << 8)    /* of SPURIOUS */
#define APIC_MASKED (1u << 16)   /* of a local vector */
#define APIC_PERIODIC (1u << 17) /* of the timer's */
#define APIC_TSC_DEADLINE (1u << 18)
#define APIC_DIVIDE_BY_1 0xbu
#define ICR_INIT (5u << 8)
#define ICR_STARTUP (6u << 8)
#define ICR_PENDING (1u << 12)
#define ICR_ASSERT (1u << 14)

/* An index register and a data window; registers by their index. */
#define IOAPIC_SELECT 0x00u
#define IOAPIC_WINDOW 0x10u
#define IOAPIC_ID 0x00u
#define IOAPIC_VERSION 0x01u
#define IOAPIC_LAST_PIN(version) ((version) >> 16 & 0xff)
#define IOAPIC_ENTRY(pin) (0x10u + 2 * (pin)) /* low half; the high one behind it: destination << 24 (3.2.4) */
#define IOAPIC_LOW (1u << 13)
#define IOAPIC_LEVEL (1u << 15)
#define IOAPIC_MASKED (1u << 16)

/* Where a device writes a vector to interrupt a CPU (SDM 3A 10.11): fixed, edge, physical destination. */
static inline u64 msi_address(u8 apic_id)
{
    return 0xfee00000ull | (u64)apic_id << 12;
}
