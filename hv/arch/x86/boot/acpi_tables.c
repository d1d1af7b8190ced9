/* The machine's ACPI tables. */
#include "hv/arch/x86/boot/acpi_tables.h"

#include "hv/core/frames.h"
#include "shared/lib/string.h"

#define TABLE_MAX MIB(1)

static bool table_ok(const struct acpi_header *table)
{
    return table->length >= sizeof(*table) && table->length <= TABLE_MAX && acpi_sum(table, table->length) == 0;
}

static void add_cpu(struct acpi_info *out, u32 apic_id, u32 flags)
{
    if ((flags & MADT_ENABLED) && out->cpu_count < CPU_MAX)
        out->cpu_apic_id[out->cpu_count++] = apic_id;
}

/* entry->length bytes, all inside the table. */
static void read_madt_entry(const union acpi_madt_entry *entry, struct acpi_info *out)
{
    if (entry->type == MADT_LAPIC && entry->length >= sizeof(entry->lapic))
        add_cpu(out, entry->lapic.apic_id, entry->lapic.flags);
    else if (entry->type == MADT_X2APIC && entry->length >= sizeof(entry->x2apic))
        add_cpu(out, entry->x2apic.apic_id, entry->x2apic.flags);
    else if (entry->type == MADT_OVERRIDE && entry->length >= sizeof(entry->override) &&
             entry->override.irq < MADT_ISA_IRQS)
        out->isa[entry->override.irq] = (struct acpi_isa_irq){entry->override.gsi, entry->override.flags};
    else if (entry->type == MADT_IOAPIC && entry->length >= sizeof(entry->ioapic) && out->ioapic_count < ACPI_IOAPICS)
        out->ioapic[out->ioapic_count++] =
            (struct acpi_ioapic){entry->ioapic.address, entry->ioapic.gsi, entry->ioapic.id};
}

static void read_madt(const struct acpi_madt *madt, struct acpi_info *out)
{
    const u8 *at = (const u8 *)(madt + 1), *end = (const u8 *)madt + madt->header.length;

    for (; end - at >= 2 && at[1] >= 2 && at[1] <= end - at; at += at[1])
        read_madt_entry((const void *)at, out);
}

static void read_mcfg(const struct acpi_mcfg *mcfg, struct acpi_info *out)
{
    u32 count = (mcfg->header.length - sizeof(*mcfg)) / sizeof(mcfg->range[0]);

    for (u32 i = 0; i < count; i++) {
        if (mcfg->range[i].segment != 0) /* the one that is supported */
            continue;
        out->ecam = mcfg->range[i].base;
        out->ecam_first_bus = mcfg->range[i].first_bus;
        out->ecam_last_bus = mcfg->range[i].last_bus;
        return;
    }
}

static void read_table(const struct acpi_header *table, struct acpi_info *out)
{
    const struct acpi_fadt *fadt = (const void *)table;

    if (!memcmp(table->signature, "APIC", 4) && table->length >= sizeof(struct acpi_madt))
        read_madt((const void *)table, out);
    else if (!memcmp(table->signature, "MCFG", 4) && table->length >= sizeof(struct acpi_mcfg))
        read_mcfg((const void *)table, out);
    else if (!memcmp(table->signature, "FACP", 4) &&
             table->length >= offsetof(struct acpi_fadt, pm_timer) + sizeof(fadt->pm_timer))
        out->pm_timer_port = (u16)fadt->pm_timer;
    else if (!memcmp(table->signature, "DMAR", 4)) {
        out->dmar = table;
        out->dmar_size = table->length;
    }
}

status_t acpi_read(u64 rsdp_address, struct acpi_info *out, const char **why)
{
    const struct acpi_rsdp *rsdp = hpa_to_ptr(HPA(rsdp_address));

    *out = (struct acpi_info){.ecam_last_bus = 0xff};
    for (u32 i = 0; i < MADT_ISA_IRQS; i++)
        out->isa[i].gsi = i;
    *why = "RSDP";
    if (!rsdp_address || memcmp(rsdp->signature, "RSD PTR ", sizeof(rsdp->signature)) != 0)
        return ERR_NOT_FOUND;
    if (acpi_sum(rsdp, ACPI_RSDP_OLD_SIZE) != 0)
        return ERR_FORMAT;
    bool wide = rsdp->revision >= 2 && rsdp->xsdt;
    u32 width = wide ? 8 : 4; /* of an address */
    const struct acpi_header *root = hpa_to_ptr(HPA(wide ? rsdp->xsdt : rsdp->rsdt));
    *why = wide ? "XSDT" : "RSDT";
    if (!table_ok(root))
        return ERR_FORMAT;

    for (u32 at = sizeof(*root); at + width <= root->length; at += width) {
        u64 address = 0;
        memcpy(&address, (const u8 *)root + at, width);
        const struct acpi_header *table = hpa_to_ptr(HPA(address));
        if (table_ok(table)) /* a broken one may be for an option that nobody needs; what is missing is found below */
            read_table(table, out);
    }
    *why = "MADT";
    return out->cpu_count ? OK : ERR_NOT_FOUND;
}
