/* The machine's IOAPICs. */
#include "hv/arch/x86/cpu/ioapic.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/iommu/formats.h"
#include "shared/acpi/tables.h"
#include "shared/x86/apic.h"
#include "shared/x86/io.h"

#define LINES_MAX 32u

static struct ioapic {
    volatile u8 *mmio;
    u32 pins;
} ioapics[ACPI_IOAPICS];

static struct line {
    volatile u8 *mmio;
    u32 reg, entry, vector; /* the low half: where, and what when not masked */
    u32 now;                /* what stands there */
    bool remapped;
    u16 index; /* of its entry in the remapping table */
} lines[LINES_MAX];
static u32 line_count;

static const struct acpi_info *tables;
static bool busy; /* a register is two accesses; interrupts are off */

static volatile u8 *window(volatile u8 *mmio, u32 reg)
{
    mmio_write(mmio + IOAPIC_SELECT, 4, reg);
    return mmio + IOAPIC_WINDOW;
}

void ioapic_init(const struct acpi_info *acpi)
{
    tables = acpi;
    line_count = 0;
    for (u32 i = 0; i < acpi->ioapic_count; i++) {
        u64 skip = acpi->ioapic[i].address & PAGE_MASK;
        volatile u8 *mmio = (u8 *)paging_map_device(HPA(acpi->ioapic[i].address - skip), PAGE_SIZE) + skip;
        u32 pins = IOAPIC_LAST_PIN(mmio_read(window(mmio, IOAPIC_VERSION), 4)) + 1;
        ioapics[i] = (struct ioapic){mmio, pins};
        for (u32 pin = 0; pin < pins; pin++)
            mmio_write(window(mmio, IOAPIC_ENTRY(pin)), 4, IOAPIC_MASKED);
    }
}

/* The entry's low half, not masked. What MADT leaves to the bus is edge and high on ISA, level and low on PCI. */
static u32 make_entry(const struct pci_line *line, u8 vector)
{
    u32 flags = tables->isa[line->irq].flags, polarity = flags & MADT_POLARITY, trigger = flags & MADT_TRIGGER;
    bool low = polarity ? polarity == MADT_LOW : !line->isa, level = trigger ? trigger == MADT_LEVEL : !line->isa;

    return vector | (low ? IOAPIC_LOW : 0) | (level ? IOAPIC_LEVEL : 0); /* fixed delivery, physical destination */
}

status_t ioapic_route(const struct pci_line *line, u8 vector, u32 apic_id)
{
    u32 gsi = tables->isa[line->irq].gsi, i = 0;

    if (apic_id >= 0xff)
        return ERR_RANGE;
    while (i < tables->ioapic_count && gsi - tables->ioapic[i].gsi >= ioapics[i].pins) /* below the first it wraps */
        i++;
    if (i == tables->ioapic_count || line_count == LINES_MAX)
        return ERR_NOT_FOUND;
    const struct acpi_ioapic *ioapic = &tables->ioapic[i];
    struct line added = {
        ioapics[i].mmio, IOAPIC_ENTRY(gsi - ioapic->gsi), make_entry(line, vector), vector, IOAPIC_MASKED, false, 0};
    for (i = 0; i < line_count; i++)
        if (lines[i].mmio == added.mmio && lines[i].reg == added.reg)
            return ERR_BUSY;
    bool level = added.entry & IOAPIC_LEVEL;
    status_t status = iommu_line_create(ioapic->id, vector, apic_id, level, &added.index);
    if (status != OK && status != ERR_STATE)
        return status;
    added.remapped = status == OK;
    u64 whither = added.remapped ? vtd_line_entry(added.index) : (u64)apic_id << 56;
    added.entry |= (u32)whither;
    mmio_write(window(added.mmio, added.reg + 1), 4, (u32)(whither >> 32));
    lines[line_count++] = added;
    return OK;
}

/* Only where something else stands there, and if `only` is not 0, exactly that. */
static void write_entry(struct line *line, u32 now, u32 only)
{
    while (__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE))
        cpu_pause();
    if (line->now != now && (only == 0 || line->now == only)) {
        mmio_write(window(line->mmio, line->reg), 4, now);
        line->now = now;
    }
    __atomic_store_n(&busy, false, __ATOMIC_RELEASE);
}

/*
 * The table's entry is there before the first request, and goes after the last one. A request that it still refuses is
 * never acknowledged; so a closed pin is edge-triggered, which makes the IOAPIC forget that it waits for that (remote
 * IRR: 82093AA 3.2.4 has it for level-triggered pins only).
 */
void ioapic_open(u32 vector, bool open)
{
    for (u32 i = 0; i < line_count; i++) {
        struct line *line = &lines[i];
        if (line->vector != vector)
            continue;
        if (line->remapped && open)
            iommu_interrupt_open(line->index, true);
        write_entry(line, open ? line->entry : IOAPIC_MASKED, 0);
        if (line->remapped && !open)
            iommu_interrupt_open(line->index, false);
    }
}

void ioapic_interrupt(u32 vector)
{
    for (u32 i = 0; i < line_count; i++)
        if (lines[i].vector == vector && (lines[i].entry & IOAPIC_LEVEL))
            write_entry(&lines[i], lines[i].entry | IOAPIC_MASKED, lines[i].entry);
}
