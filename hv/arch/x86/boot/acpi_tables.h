/*
 * What the hypervisor needs of the machine's ACPI tables (ACPI 6.4, 5.2). Firmware is trusted to be honest, not to be
 * free of errors: lengths and checksums are checked, lists are bounded.
 */
#pragma once

#include "hv/core/cpu.h"
#include "shared/abi/boot_info.h"
#include "shared/acpi/tables.h"
#include "shared/lib/status.h"

#define ACPI_IOAPICS 4u

/* How an ISA interrupt arrives at an IOAPIC, with the flags of MADT's override (MADT_POLARITY, MADT_TRIGGER). */
struct acpi_isa_irq {
    u32 gsi, flags;
};

struct acpi_info {
    u32 cpu_count;
    u32 cpu_apic_id[CPU_MAX];
    u32 ioapic_count;
    struct acpi_ioapic {
        u32 address, gsi; /* gsi: the interrupt number of its first pin */
        u8 id;
    } ioapic[ACPI_IOAPICS];
    struct acpi_isa_irq isa[MADT_ISA_IRQS];
    u64 ecam;                         /* MCFG: segment 0; 0: none */
    u8 ecam_first_bus, ecam_last_bus; /* without MCFG: all */
    u16 pm_timer_port;                /* FADT; 0: none */
    const void *dmar;                 /* whole table; NULL: none */
    u32 dmar_size;
};

/* Boot CPU, direct map in place. ERR_NOT_FOUND: no RSDP or no MADT; ERR_FORMAT: a checksum is wrong; *why names the
 * table. */
NODISCARD status_t acpi_read(u64 rsdp, struct acpi_info *out, const char **why);
