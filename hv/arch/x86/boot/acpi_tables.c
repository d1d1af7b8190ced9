/* The machine's ACPI tables. */
#include "hv/arch/x86/boot/acpi_tables.h"

#include "hv/core/frames.h"
#include "shared/lib/string.h"

struct sdt_header { /* ACPI 5.2.6 */
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem[22];
    u32 creator_revision;
} __attribute__((packed));

#define RSDP_REVISION 15u /* 5.2.5.3 */
#define RSDP_RSDT 16u
#define RSDP_XSDT 24u

#define TABLE_MAX MIB(1)
#define MADT_LAPIC 0u
#define MADT_IOAPIC 1u
#define MADT_OVERRIDE 2u
#define MADT_X2APIC 9u
#define MADT_ENABLED 1u
#define FADT_PM_TIMER_OFFSET 76u

static bool checksum_ok(const void *table, u32 length)
{
    const u8 *b = table;
    u8 sum = 0;

    for (u32 i = 0; i < length; i++)
        sum = (u8)(sum + b[i]);
    return sum == 0;
}

/* A field of `width` bytes, aligned or not. */
static u64 read_field(const u8 *at, u32 width)
{
    u64 v = 0;

    memcpy(&v, at, width);
    return v;
}

static void add_cpu(struct acpi_info *out, u32 apic_id, u32 flags)
{
    if ((flags & MADT_ENABLED) && out->cpu_count < CPU_MAX)
        out->cpu_apic_id[out->cpu_count++] = apic_id;
}

/* at[1] bytes, all inside the table. */
static void read_madt_entry(const u8 *at, struct acpi_info *out)
{
    if (at[0] == MADT_LAPIC && at[1] >= 8)
        add_cpu(out, at[3], at[4]);
    else if (at[0] == MADT_X2APIC && at[1] >= 16)
        add_cpu(out, (u32)read_field(at + 4, 4), at[8]);
    else if (at[0] == MADT_OVERRIDE && at[1] >= 10 && at[3] < ARRAY_SIZE(out->isa))
        out->isa[at[3]] = (struct acpi_isa_irq){(u32)read_field(at + 4, 4), at[8]};
    else if (at[0] == MADT_IOAPIC && at[1] >= 12 && out->ioapic_count < ACPI_IOAPICS) {
        out->ioapic[out->ioapic_count].address = (u32)read_field(at + 4, 4);
        out->ioapic[out->ioapic_count++].gsi = (u32)read_field(at + 8, 4);
    }
}

static void read_madt(const struct sdt_header *table, struct acpi_info *out)
{
    const u8 *at = (const u8 *)table + 44, *end = (const u8 *)table + table->length; /* 5.2.12 */

    for (; end - at >= 2 && at[1] >= 2 && at[1] <= end - at; at += at[1])
        read_madt_entry(at, out);
}

static void read_mcfg(const struct sdt_header *table, struct acpi_info *out)
{
    const u8 *at = (const u8 *)table + 44, *end = (const u8 *)table + table->length; /* PCI firmware 3.3, 4.1.2 */

    for (; end - at >= 16; at += 16) {
        if (at[8] || at[9]) /* segment 0 only */
            continue;
        out->ecam = read_field(at, 8);
        out->ecam_first_bus = at[10];
        out->ecam_last_bus = at[11];
        return;
    }
}

static void read_table(const struct sdt_header *table, struct acpi_info *out)
{
    if (!memcmp(table->signature, "APIC", 4) && table->length >= 44)
        read_madt(table, out);
    else if (!memcmp(table->signature, "MCFG", 4) && table->length >= 44)
        read_mcfg(table, out);
    else if (!memcmp(table->signature, "FACP", 4) && table->length >= FADT_PM_TIMER_OFFSET + 4)
        out->pm_timer_port = (u16)read_field((const u8 *)table + FADT_PM_TIMER_OFFSET, 4);
    else if (!memcmp(table->signature, "DMAR", 4)) {
        out->dmar = table;
        out->dmar_size = table->length;
    }
}

status_t acpi_read(u64 rsdp_address, struct acpi_info *out, const char **why)
{
    const u8 *rsdp = hpa_to_ptr(HPA(rsdp_address));

    *out = (struct acpi_info){.ecam_last_bus = 0xff};
    for (u32 i = 0; i < ARRAY_SIZE(out->isa); i++)
        out->isa[i].gsi = i;
    *why = "RSDP";
    if (!rsdp_address || memcmp(rsdp, "RSD PTR ", 8) != 0)
        return ERR_NOT_FOUND;
    if (!checksum_ok(rsdp, 20))
        return ERR_FORMAT;
    bool wide = rsdp[RSDP_REVISION] >= 2 && read_field(rsdp + RSDP_XSDT, 8);
    u32 width = wide ? 8 : 4; /* of an address */
    const struct sdt_header *root = hpa_to_ptr(HPA(read_field(rsdp + (wide ? RSDP_XSDT : RSDP_RSDT), width)));
    *why = wide ? "XSDT" : "RSDT";
    if (root->length < sizeof(*root) || root->length > TABLE_MAX || !checksum_ok(root, root->length))
        return ERR_FORMAT;

    for (u32 at = sizeof(*root); at + width <= root->length; at += width) {
        const u8 *entry = (const u8 *)root + at;
        const struct sdt_header *table = hpa_to_ptr(HPA(read_field(entry, width)));
        if (table->length < sizeof(*table) || table->length > TABLE_MAX || !checksum_ok(table, table->length))
            continue; /* one broken table of an option we may not need; what is needed and missing is found below */
        read_table(table, out);
    }
    *why = "MADT";
    return out->cpu_count ? OK : ERR_NOT_FOUND;
}
