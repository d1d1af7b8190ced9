/*
 * ACPI tables (ACPI 6.4, 5.2), as far as something here reads or writes them. Nothing in a table is aligned. All of it
 * is firmware's data: a reader checks a length before it looks at a field.
 */
#pragma once

#include "shared/lib/types.h"

#define ACPI_PM_TIMER_HZ 3579545u /* 4.8.3.3; counts at least 24 bits */

struct acpi_rsdp { /* 5.2.5.3 */
    char signature[8];
    u8 checksum; /* of the first ACPI_RSDP_OLD_SIZE bytes, all there is in revision 0 */
    char oem[6];
    u8 revision;
    u32 rsdt, length;
    u64 xsdt;
    u8 checksum_all, reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");
#define ACPI_RSDP_OLD_SIZE 20u

struct acpi_header { /* 5.2.6; behind RSDT's and XSDT's: addresses of 4 and 8 bytes */
    char signature[4];
    u32 length; /* of the whole table */
    u8 revision, checksum;
    char oem[6], oem_table[8];
    u32 oem_revision;
    char creator[4];
    u32 creator_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

/* All bytes of a table, added up: 0 when the checksum in it is right. */
static inline u8 acpi_sum(const void *table, u32 length)
{
    const u8 *bytes = table;
    u8 sum = 0;

    for (u32 i = 0; i < length; i++)
        sum = (u8)(sum + bytes[i]);
    return sum;
}

struct acpi_address { /* 5.2.3.2 */
    u8 space, bits, bit_offset, access;
    u64 address;
} __attribute__((packed));
#define ACPI_SPACE_PORT 1u
#define ACPI_ACCESS_32 3u

struct acpi_fadt { /* 5.2.9, table 5.9; what nobody here wants is skipped */
    struct acpi_header header;
    u8 skipped36[4];
    u32 dsdt;
    u8 skipped44[2];
    u16 sci;
    u8 skipped48[16];
    u32 pm1a_control;
    u8 skipped68[8];
    u32 pm_timer; /* port; 0: none */
    u8 skipped80[11];
    u8 pm_timer_length;
    u8 skipped92[20];
    u32 flags;
    struct acpi_address reset;
    u8 reset_value;
    u8 skipped129[79];
    struct acpi_address x_pm_timer;
    u8 skipped220[24];
    struct acpi_address sleep_control, sleep_status;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_fadt, pm_timer) == 76, "5.2.9");
_Static_assert(offsetof(struct acpi_fadt, flags) == 112, "5.2.9");
_Static_assert(offsetof(struct acpi_fadt, x_pm_timer) == 208, "5.2.9");
_Static_assert(offsetof(struct acpi_fadt, sleep_control) == 244, "5.2.9");
#define FADT_RESET (1u << 10) /* flags: the reset register is there */
#define FADT_HW_REDUCED (1u << 20)

struct acpi_madt { /* 5.2.12; entries behind it */
    struct acpi_header header;
    u32 lapic_address, flags;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_madt) == 44, "5.2.12");
#define MADT_PCAT_COMPAT 1u /* flags: there are two 8259 as well */

enum acpi_madt_type { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_X2APIC = 9 };

/* type says which member it is, if length is that of the member at least. */
union acpi_madt_entry {
    struct {
        u8 type, length;
    };
    struct { /* 5.2.12.2 */
        u8 type, length, uid, apic_id;
        u32 flags;
    } __attribute__((packed)) lapic;
    struct { /* 5.2.12.3 */
        u8 type, length, id, reserved;
        u32 address, gsi; /* gsi: the interrupt number of its first pin */
    } __attribute__((packed)) ioapic;
    struct { /* 5.2.12.5: how an ISA interrupt arrives at an IOAPIC */
        u8 type, length, bus, irq;
        u32 gsi;
        u16 flags;
    } __attribute__((packed)) override;
    struct { /* 5.2.12.12 */
        u8 type, length;
        u16 reserved;
        u32 apic_id, flags, uid;
    } __attribute__((packed)) x2apic;
} __attribute__((packed));
#define MADT_ENABLED 1u  /* flags of a CPU */
#define MADT_POLARITY 3u /* flags of an override (table 5.26); 0: as the bus has it */
#define MADT_LOW 3u
#define MADT_TRIGGER 0xcu
#define MADT_LEVEL 0xcu
#define MADT_ISA_IRQS 16u

struct acpi_mcfg { /* PCI firmware 3.3, 4.1.2 */
    struct acpi_header header;
    u8 reserved[8];
    struct {
        u64 base; /* of bus 0 */
        u16 segment;
        u8 first_bus, last_bus;
        u32 reserved;
    } __attribute__((packed)) range[];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_mcfg) == 44, "PCI firmware 3.3, 4.1.2");
