/* Minimal ACPI tables. */
#include "firmware/uefi/acpi_build.h"

#include "shared/acpi/tables.h"
#include "shared/lib/string.h"

/* Where in the memory: 16-byte aligned as the RSDP must be (5.2.5.1). */
#define RSDP_AT 0u
#define XSDT_AT 64u
#define FADT_AT 128u
#define MADT_AT 384u

#define LOCAL_APIC_BASE 0xfee00000u
#define FADT_LENGTH offsetof(struct acpi_fadt, sleep_control) /* of revision 3 */

/* All of the entries have their full size. */
#define ENTRY_SIZE(member) sizeof(((union acpi_madt_entry *)0)->member)

_Static_assert(MADT_AT + sizeof(struct acpi_madt) + ACPI_BUILD_CPUS * ENTRY_SIZE(lapic) + ENTRY_SIZE(ioapic) +
                       ENTRY_SIZE(override) <=
                   ACPI_BUILD_SIZE,
               "all tables fit");

/* Everything else of the table is in place. */
static void put_header(struct acpi_header *table, const char *signature, u32 length, u8 revision)
{
    memcpy(table->signature, signature, sizeof(table->signature));
    table->length = length;
    table->revision = revision;
    memcpy(table->oem, "BLKHD ", sizeof(table->oem));
    memcpy(table->oem_table, "BULKHEAD", sizeof(table->oem_table));
    memcpy(table->creator, "BLKH", sizeof(table->creator));
    table->checksum = (u8)-acpi_sum(table, length);
}

static void build_fadt(struct acpi_fadt *fadt, const struct acpi_machine *machine)
{
    fadt->sci = 9;
    if (machine->pm_timer_port) {
        fadt->pm_timer = machine->pm_timer_port;
        fadt->pm_timer_length = 4;
        fadt->x_pm_timer = (struct acpi_address){
            .space = ACPI_SPACE_PORT, .bits = 32, .access = ACPI_ACCESS_32, .address = machine->pm_timer_port};
    }
    put_header(&fadt->header, "FACP", FADT_LENGTH, 3);
}

static void build_madt(struct acpi_madt *madt, const struct acpi_machine *machine)
{
    u8 *at = (u8 *)(madt + 1);

    madt->lapic_address = LOCAL_APIC_BASE;
    madt->flags = MADT_PCAT_COMPAT;
    for (u32 i = 0; i < machine->cpu_count && i < ACPI_BUILD_CPUS; i++, at += ENTRY_SIZE(lapic)) {
        union acpi_madt_entry *cpu = (void *)at;
        cpu->type = MADT_LAPIC;
        cpu->length = ENTRY_SIZE(lapic);
        cpu->lapic.uid = (u8)i;
        cpu->lapic.apic_id = machine->cpu_apic_id[i];
        cpu->lapic.flags = MADT_ENABLED;
    }
    if (machine->ioapic_address) {
        union acpi_madt_entry *ioapic = (void *)at, *timer = (void *)(at + ENTRY_SIZE(ioapic));
        ioapic->type = MADT_IOAPIC; /* its first pin is interrupt 0 */
        ioapic->length = ENTRY_SIZE(ioapic);
        ioapic->ioapic.id = machine->ioapic_id;
        ioapic->ioapic.address = machine->ioapic_address;
        timer->type = MADT_OVERRIDE; /* ISA's IRQ 0 is interrupt 2, as the bus has it */
        timer->length = ENTRY_SIZE(override);
        timer->override.gsi = 2;
        at += ENTRY_SIZE(ioapic) + ENTRY_SIZE(override);
    }
    put_header(&madt->header, "APIC", (u32)(at - (u8 *)madt), 3);
}

void acpi_build(u8 *memory, u64 physical, const struct acpi_machine *machine)
{
    struct acpi_rsdp *rsdp = (void *)(memory + RSDP_AT);
    struct acpi_header *xsdt = (void *)(memory + XSDT_AT);
    const u64 tables[] = {physical + FADT_AT, physical + MADT_AT};

    build_fadt((void *)(memory + FADT_AT), machine);
    build_madt((void *)(memory + MADT_AT), machine);
    memcpy(xsdt + 1, tables, sizeof(tables));
    put_header(xsdt, "XSDT", sizeof(*xsdt) + sizeof(tables), 1);

    memcpy(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature));
    memcpy(rsdp->oem, "BLKHD ", sizeof(rsdp->oem));
    rsdp->revision = 2;
    rsdp->length = sizeof(*rsdp);
    rsdp->xsdt = physical + XSDT_AT;
    rsdp->checksum = (u8)-acpi_sum(rsdp, ACPI_RSDP_OLD_SIZE);
    rsdp->checksum_all = (u8)-acpi_sum(rsdp, sizeof(*rsdp));
}
