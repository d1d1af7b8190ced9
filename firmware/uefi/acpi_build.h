/*
 * ACPI tables for a machine whose firmware has none (OVMF on Bochs), so that the hypervisor has one input format. Pure:
 * what the machine has is found in acpi_fallback.c.
 */
#pragma once

#include "shared/lib/types.h"

#define ACPI_BUILD_SIZE 4096u /* bytes of all tables */
#define ACPI_BUILD_CPUS 64u

struct acpi_machine {
    u32 cpu_count;
    u8 cpu_apic_id[ACPI_BUILD_CPUS];
    u16 pm_timer_port;  /* 0: none */
    u32 ioapic_address; /* 0: none */
    u8 ioapic_id;
};

/*
 * RSDP, XSDT, FADT and MADT (ACPI 6.4, 5.2) into memory[0..ACPI_BUILD_SIZE), zeroed, which has this physical address.
 * The RSDP comes first. ISA's timer is on the IOAPIC's pin 2, as on every PC with two 8259.
 */
void acpi_build(u8 *memory, u64 physical, const struct acpi_machine *machine);
