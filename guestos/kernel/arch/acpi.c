#include "guestos/kernel/arch/acpi.h"

#include "guestos/kernel/arch/cpu.h"
#include "shared/acpi/tables.h"
#include "shared/lib/string.h"
#include "shared/x86/descriptors.h"

#define MAPPED_LIMIT GIB(4) /* what the boot map shows */

#define PM1_SLP_EN (1u << 13) /* 4.8.3.2.1 */
#define SLEEP_SLP_EN 0x20u    /* 4.8.3.7 */
#define SLEEP_S5 (5u << 2)
#define QEMU_DEBUG_EXIT_PORT 0xf4u
#define RESET_CONTROL_PORT 0xcf9u

static struct acpi_info info;

static const struct acpi_header *table_at(u64 address)
{
    const struct acpi_header *table = (const void *)address;

    if (address == 0 || address >= MAPPED_LIMIT - sizeof(*table))
        return NULL;
    if (table->length < sizeof(*table) || table->length > MIB(1) || table->length > MAPPED_LIMIT - address)
        return NULL;
    return table;
}

static void read_madt(const struct acpi_madt *madt)
{
    const u8 *base = (const void *)madt;

    if (madt->header.length < sizeof(*madt))
        return;
    info.legacy_pic = (madt->flags & MADT_PCAT_COMPAT) != 0;
    for (u32 at = sizeof(*madt); at + 2 <= madt->header.length;) {
        const union acpi_madt_entry *entry = (const void *)(base + at);
        if (entry->length < 2 || at + entry->length > madt->header.length)
            return;
        if (entry->type == MADT_IOAPIC && entry->length >= sizeof(entry->ioapic) && info.ioapic == 0) {
            info.ioapic = entry->ioapic.address;
            info.ioapic_gsi_base = entry->ioapic.gsi;
        }
        if (entry->type == MADT_OVERRIDE && entry->length >= sizeof(entry->override) &&
            entry->override.irq < MADT_ISA_IRQS)
            info.irq_to_gsi[entry->override.irq] = entry->override.gsi;
        at += entry->length;
    }
}

/* The port of a register; 0: it is none. */
static u16 io_port_of(const struct acpi_address *address)
{
    return address->space == ACPI_SPACE_PORT ? (u16)address->address : 0;
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

static void read_fadt(const struct acpi_fadt *fadt)
{
    if (fadt->header.length < offsetof(struct acpi_fadt, reset))
        return;
    info.hardware_reduced = (fadt->flags & FADT_HW_REDUCED) != 0;
    if (!info.hardware_reduced) {
        info.pm1a_control_port = (u16)fadt->pm1a_control;
        info.pm_timer_port = (u16)fadt->pm_timer;
        const struct acpi_header *dsdt = table_at(fadt->dsdt);
        if (dsdt != NULL)
            info.s5_type = find_s5_type(dsdt);
    }
    if ((fadt->flags & FADT_RESET) != 0 && fadt->header.length > offsetof(struct acpi_fadt, reset_value)) {
        info.reset_port = io_port_of(&fadt->reset);
        info.reset_value = fadt->reset_value;
    }
    if (info.hardware_reduced && fadt->header.length >= offsetof(struct acpi_fadt, sleep_status))
        info.sleep_control_port = io_port_of(&fadt->sleep_control);
}

void acpi_init(u64 address)
{
    const struct acpi_rsdp *rsdp = (const void *)address;

    for (u32 i = 0; i < MADT_ISA_IRQS; i++)
        info.irq_to_gsi[i] = i;
    if (address == 0 || address >= MAPPED_LIMIT - sizeof(*rsdp) || memcmp(rsdp->signature, "RSD PTR ", 8) != 0)
        return;
    bool extended = rsdp->revision >= 2 && rsdp->xsdt != 0;
    u32 width = extended ? 8 : 4;
    const struct acpi_header *root = table_at(extended ? rsdp->xsdt : rsdp->rsdt);
    if (root == NULL)
        return;
    for (u32 at = sizeof(*root); at + width <= root->length; at += width) {
        u64 entry = 0;
        memcpy(&entry, (const u8 *)root + at, width);
        const struct acpi_header *table = table_at(entry);
        if (table == NULL)
            continue;
        if (memcmp(table->signature, "APIC", 4) == 0)
            read_madt((const void *)table);
        if (memcmp(table->signature, "FACP", 4) == 0)
            read_fadt((const void *)table);
    }
}

const struct acpi_info *acpi_get(void)
{
    return &info;
}

void acpi_power_off(void)
{
    if (info.sleep_control_port != 0)
        io_out8(info.sleep_control_port, SLEEP_SLP_EN | SLEEP_S5);
    if (info.pm1a_control_port != 0)
        io_out16(info.pm1a_control_port, (u16)(PM1_SLP_EN | info.s5_type << 10));
    io_out8(QEMU_DEBUG_EXIT_PORT, 0);
}

void acpi_reset(void)
{
    if (info.reset_port != 0)
        io_out8(info.reset_port, info.reset_value);
    if (!info.hardware_reduced)
        io_out8(RESET_CONTROL_PORT, 6); /* ICH9 13.7.5: full reset */
    /* The last resort: with no IDT the exception becomes a triple fault. */
    static const struct descriptor_pointer empty;
    __asm__ volatile("lidt %0; ud2" : : "m"(empty));
}
