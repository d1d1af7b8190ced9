/* Minimal ACPI tables: fields at the offsets that the specification gives them. */
#include "firmware/uefi/acpi_build.h"

#include "shared/lib/string.h"

/* Where in the memory: 16-byte aligned as the RSDP must be (5.2.5.1). */
#define RSDP_AT 0u
#define XSDT_AT 64u
#define FADT_AT 128u
#define MADT_AT 384u

#define RSDP_SIZE 36u
#define HEADER_SIZE 36u
#define FADT_SIZE 244u /* of revision 3 */
#define FADT_SCI 46u
#define FADT_PM_TIMER 76u
#define FADT_PM_TIMER_LENGTH 91u
#define FADT_X_PM_TIMER 208u /* a generic address (5.2.3.2) */
#define MADT_ENTRIES 44u
#define LOCAL_APIC_BASE 0xfee00000u
#define PCAT_COMPAT 1u /* there are two 8259 */

_Static_assert(MADT_AT + MADT_ENTRIES + ACPI_BUILD_CPUS * 8 + 12 + 10 <= ACPI_BUILD_SIZE, "all tables fit");

static void put(u8 *table, u32 offset, u64 value, u32 width)
{
    memcpy(table + offset, &value, width); /* little-endian */
}

static u8 checksum(const u8 *at, u32 length)
{
    u8 sum = 0;

    for (u32 i = 0; i < length; i++)
        sum = (u8)(sum + at[i]);
    return (u8)-sum;
}

/* Everything else of the table is in place (5.2.6). */
static void put_header(u8 *table, const char *signature, u32 length, u8 revision)
{
    memcpy(table, signature, 4);
    put(table, 4, length, 4);
    put(table, 8, revision, 1);
    memcpy(table + 10, "BLKHD BULKHEAD", 14); /* OEM id of 6, table id of 8 */
    memcpy(table + 28, "BLKH", 4);
    put(table, 9, checksum(table, length), 1);
}

static void build_fadt(u8 *fadt, const struct acpi_machine *machine)
{
    put(fadt, FADT_SCI, 9, 2);
    if (machine->pm_timer_port) {
        put(fadt, FADT_PM_TIMER, machine->pm_timer_port, 4);
        put(fadt, FADT_PM_TIMER_LENGTH, 4, 1);
        put(fadt, FADT_X_PM_TIMER, 0x03002001, 4); /* port, 32 bits, at 0, by doublewords */
        put(fadt, FADT_X_PM_TIMER + 4, machine->pm_timer_port, 8);
    }
    put_header(fadt, "FACP", FADT_SIZE, 3);
}

/* 5.2.12: each entry begins with type and length. */
static void build_madt(u8 *madt, const struct acpi_machine *machine)
{
    u32 at = MADT_ENTRIES;

    put(madt, 36, LOCAL_APIC_BASE, 4);
    put(madt, 40, PCAT_COMPAT, 4);
    for (u32 i = 0; i < machine->cpu_count && i < ACPI_BUILD_CPUS; i++, at += 8) {
        put(madt, at, 0x0800, 2); /* local APIC */
        put(madt, at + 2, i, 1);
        put(madt, at + 3, machine->cpu_apic_id[i], 1);
        put(madt, at + 4, 1, 4); /* enabled */
    }
    if (machine->ioapic_address) {
        put(madt, at, 0x0c01, 2); /* IOAPIC, its first pin is interrupt 0 */
        put(madt, at + 2, machine->ioapic_id, 1);
        put(madt, at + 4, machine->ioapic_address, 4);
        put(madt, at + 12, 0x0a02, 2); /* override: ISA's IRQ 0 is interrupt 2, as the bus has it */
        put(madt, at + 16, 2, 4);
        at += 12 + 10;
    }
    put_header(madt, "APIC", at, 3);
}

void acpi_build(u8 *memory, u64 physical, const struct acpi_machine *machine)
{
    u8 *rsdp = memory + RSDP_AT, *xsdt = memory + XSDT_AT;

    build_fadt(memory + FADT_AT, machine);
    build_madt(memory + MADT_AT, machine);
    put(xsdt, HEADER_SIZE, physical + FADT_AT, 8);
    put(xsdt, HEADER_SIZE + 8, physical + MADT_AT, 8);
    put_header(xsdt, "XSDT", HEADER_SIZE + 16, 1);

    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "BLKHD ", 6);
    put(rsdp, 15, 2, 1);
    put(rsdp, 20, RSDP_SIZE, 4);
    put(rsdp, 24, physical + XSDT_AT, 8);
    put(rsdp, 8, checksum(rsdp, 20), 1);
    put(rsdp, 32, checksum(rsdp, RSDP_SIZE), 1);
}
