/* The machine's IOAPICs. */
#include "hv/arch/x86/cpu/ioapic.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "shared/acpi/tables.h"
#include "shared/x86/apic.h"
#include "shared/x86/io.h"

#define LINES_MAX 32u

static struct ioapic {
    volatile u8 *mmio;
    u32 gsi, pins; /* gsi: of the first pin */
} ioapics[ACPI_IOAPICS];

static struct line {
    volatile u8 *mmio;
    u32 reg, entry, vector; /* the low half: where, and what when not masked */
    bool open;
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
        ioapics[i] = (struct ioapic){mmio, acpi->ioapic[i].gsi, pins};
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
    while (i < tables->ioapic_count && gsi - ioapics[i].gsi >= ioapics[i].pins) /* below the first pin it wraps */
        i++;
    if (i == tables->ioapic_count || line_count == LINES_MAX)
        return ERR_NOT_FOUND;
    struct line new = {ioapics[i].mmio, IOAPIC_ENTRY(gsi - ioapics[i].gsi), make_entry(line, vector), vector,
                       .open = false};
    for (i = 0; i < line_count; i++)
        if (lines[i].mmio == new.mmio && lines[i].reg == new.reg)
            return ERR_BUSY;
    mmio_write(window(new.mmio, new.reg + 1), 4, apic_id << 24);
    mmio_write(window(new.mmio, new.reg), 4, new.entry | IOAPIC_MASKED);
    lines[line_count++] = new;
    return OK;
}

static void set_open(struct line *line, bool open)
{
    while (__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE))
        cpu_pause();
    if (line->open != open)
        mmio_write(window(line->mmio, line->reg), 4, line->entry | (open ? 0 : IOAPIC_MASKED));
    line->open = open;
    __atomic_store_n(&busy, false, __ATOMIC_RELEASE);
}

void ioapic_open(u32 vector, bool open)
{
    for (u32 i = 0; i < line_count; i++)
        if (lines[i].vector == vector)
            set_open(&lines[i], open);
}

void ioapic_interrupt(u32 vector)
{
    for (u32 i = 0; i < line_count; i++)
        if (lines[i].vector == vector && (lines[i].entry & IOAPIC_LEVEL))
            set_open(&lines[i], false);
}
