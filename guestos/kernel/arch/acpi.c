#include "guestos/kernel/arch/acpi.h"

#include "guestos/kernel/arch/cpu.h"
#include "shared/lib/string.h"

#define MAPPED_LIMIT GIB(4) /* what the boot map shows */
#define MADT_FLAGS 40u
#define MADT_FLAG_PCAT_COMPAT 1u /* 5.2.12, table 5.20 */
#define MADT_HEADER 44u
#define MADT_IOAPIC 1u
#define MADT_OVERRIDE 2u
#define FADT_DSDT 40u
#define FADT_PM1A_CONTROL 64u
#define FADT_PM_TIMER 76u
#define FADT_FLAGS 112u
#define FADT_RESET_REG 116u
#define FADT_RESET_VALUE 128u
#define FADT_SLEEP_CONTROL 244u
#define FADT_FLAG_RESET (1u << 10)
#define FADT_FLAG_HW_REDUCED (1u << 20)
#define GAS_SYSTEM_IO 1u

#define PM1_SLP_EN (1u << 13) /* 4.8.3.2.1 */
#define SLEEP_SLP_EN 0x20u    /* 4.8.3.7 */
#define SLEEP_S5 (5u << 2)
#define QEMU_DEBUG_EXIT_PORT 0xf4u
#define RESET_CONTROL_PORT 0xcf9u

struct acpi_header {
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem[6], oem_table[8];
    u32 oem_revision, creator, creator_revision;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

static struct acpi_info info;

/* Tables are not aligned to their fields, so fields are copied out. */
static u64 field(const void *table, u32 offset, u32 width)
{
    u64 value = 0;
    memcpy(&value, (const u8 *)table + offset, width);
    return value;
}

static const struct acpi_header *table_at(u64 address)
{
    const struct acpi_header *table = (const void *)address;

    if (address == 0 || address >= MAPPED_LIMIT - sizeof(*table))
        return NULL;
    if (table->length < sizeof(*table) || table->length > MIB(1) || table->length > MAPPED_LIMIT - address)
        return NULL;
    return table;
}

static void read_madt(const struct acpi_header *madt)
{
    const u8 *base = (const void *)madt;

    if (madt->length < MADT_HEADER)
        return;
    info.legacy_pic = (field(base, MADT_FLAGS, 4) & MADT_FLAG_PCAT_COMPAT) != 0;
    for (u32 at = MADT_HEADER; at + 2 <= madt->length;) {
        u8 type = base[at], length = base[at + 1];
        if (length < 2 || at + length > madt->length)
            return;
        if (type == MADT_IOAPIC && length >= 12 && info.ioapic == 0) { /* 5.2.12.3 */
            info.ioapic = field(base, at + 4, 4);
            info.ioapic_gsi_base = (u32)field(base, at + 8, 4);
        }
        if (type == MADT_OVERRIDE && length >= 10 && base[at + 3] < 16) /* 5.2.12.5 */
            info.irq_to_gsi[base[at + 3]] = (u32)field(base, at + 4, 4);
        at += length;
    }
}

/* A generic address structure (5.2.3.2) that names an I/O port; else 0. */
static u16 io_port_of(const void *table, u32 offset)
{
    return field(table, offset, 1) == GAS_SYSTEM_IO ? (u16)field(table, offset + 4, 8) : 0;
}

/*
 * Without an AML interpreter: the first number of the package \_S5_ = NameOp "_S5_" PackageOp PkgLength NumElements
 * value, where a value is ZeroOp, OneOp or BytePrefix and a byte (20.2). QEMU's and most firmware's tables look like
 * this.
 */
static u8 find_s5_type(const struct acpi_header *dsdt)
{
    const u8 *base = (const void *)dsdt;

    for (u32 at = sizeof(*dsdt); at + 12 < dsdt->length; at++) {
        if (memcmp(base + at, "_S5_\x12", 5) != 0)
            continue;
        u32 value = at + 5 + 1 + (base[at + 5] >> 6) + 1;
        if (value + 1 >= dsdt->length)
            return 0;
        return base[value] == 0x0a ? base[value + 1] : base[value];
    }
    return 0;
}

static void read_fadt(const struct acpi_header *fadt)
{
    if (fadt->length < 116)
        return;
    u32 flags = (u32)field(fadt, FADT_FLAGS, 4);
    info.hardware_reduced = (flags & FADT_FLAG_HW_REDUCED) != 0;
    if (!info.hardware_reduced) {
        info.pm1a_control_port = (u16)field(fadt, FADT_PM1A_CONTROL, 4);
        info.pm_timer_port = (u16)field(fadt, FADT_PM_TIMER, 4);
        const struct acpi_header *dsdt = table_at(field(fadt, FADT_DSDT, 4));
        if (dsdt != NULL)
            info.s5_type = find_s5_type(dsdt);
    }
    if ((flags & FADT_FLAG_RESET) != 0 && fadt->length > FADT_RESET_VALUE) {
        info.reset_port = io_port_of(fadt, FADT_RESET_REG);
        info.reset_value = (u8)field(fadt, FADT_RESET_VALUE, 1);
    }
    if (info.hardware_reduced && fadt->length >= FADT_SLEEP_CONTROL + 12)
        info.sleep_control_port = io_port_of(fadt, FADT_SLEEP_CONTROL);
}

void acpi_init(u64 rsdp)
{
    for (u32 i = 0; i < ARRAY_SIZE(info.irq_to_gsi); i++)
        info.irq_to_gsi[i] = i;
    if (rsdp == 0 || rsdp >= MAPPED_LIMIT - 36 || memcmp((const void *)rsdp, "RSD PTR ", 8) != 0)
        return;
    /* 5.2.5.3: revision 2 and later have the 64-bit XSDT at offset 24, the first the 32-bit RSDT at 16. */
    bool extended = field((const void *)rsdp, 15, 1) >= 2 && field((const void *)rsdp, 24, 8) != 0;
    u32 width = extended ? 8 : 4;
    const struct acpi_header *root = table_at(field((const void *)rsdp, extended ? 24 : 16, width));
    if (root == NULL)
        return;
    for (u32 at = sizeof(*root); at + width <= root->length; at += width) {
        const struct acpi_header *table = table_at(field(root, at, width));
        if (table == NULL)
            continue;
        if (memcmp(table->signature, "APIC", 4) == 0)
            read_madt(table);
        if (memcmp(table->signature, "FACP", 4) == 0)
            read_fadt(table);
    }
}

const struct acpi_info *acpi_get(void)
{
    return &info;
}

void acpi_power_off(void)
{
    if (info.sleep_control_port != 0)
        cpu_out8(info.sleep_control_port, SLEEP_SLP_EN | SLEEP_S5);
    if (info.pm1a_control_port != 0)
        cpu_out16(info.pm1a_control_port, (u16)(PM1_SLP_EN | info.s5_type << 10));
    cpu_out8(QEMU_DEBUG_EXIT_PORT, 0);
}

void acpi_reset(void)
{
    if (info.reset_port != 0)
        cpu_out8(info.reset_port, info.reset_value);
    if (!info.hardware_reduced)
        cpu_out8(RESET_CONTROL_PORT, 6); /* ICH9 13.7.5: full reset */
    /* The last resort: with no IDT the exception becomes a triple fault. */
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) empty = {0, 0};
    __asm__ volatile("lidt %0; ud2" : : "m"(empty));
}
