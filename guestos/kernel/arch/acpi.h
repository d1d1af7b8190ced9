/* The few facts that this kernel takes from ACPI (6.4), read once while the boot map still shows the tables. */
#pragma once

#include "shared/acpi/tables.h"
#include "shared/lib/types.h"

struct acpi_info {
    u64 ioapic; /* physical address; 0: none */
    u32 ioapic_gsi_base;
    u32 irq_to_gsi[MADT_ISA_IRQS]; /* ISA interrupt to IOAPIC input, after the MADT's overrides */
    bool legacy_pic;               /* the MADT says that there are 8259s as well */
    bool hardware_reduced;         /* no PM timer, no PM1 block, no PIT, no PIC */
    u16 pm_timer_port;             /* 0: none */
    u16 pm1a_control_port;         /* 0: none */
    u8 s5_type;                    /* SLP_TYP of \_S5_ for PM1a */
    u16 sleep_control_port;        /* 0: none */
    u16 reset_port;                /* 0: none */
    u8 reset_value;
};

/* Read the RSDP at address -> XSDT or RSDT -> MADT, FADT, DSDT. Tables that are missing or malformed leave the
 * defaults. */
void acpi_init(u64 address);
const struct acpi_info *acpi_get(void);

/* Switch the machine off or restart it, by the first way that works; returns only when none did. */
void acpi_power_off(void);
void acpi_reset(void);
