/* The machine's IOAPICs. */
#include "hv/arch/x86/cpu/ioapic.h"

#include "hv/arch/x86/cpu/io.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"

#define IOAPIC_SELECT 0x00u /* 3.1.1 */
#define IOAPIC_WINDOW 0x10u
#define IOAPIC_VERSION 1u
#define IOAPIC_ENTRY(pin) (0x10u + 2 * (pin)) /* low half; the high one behind it (3.2.4) */
#define ENTRY_LOW (1u << 13)
#define ENTRY_LEVEL (1u << 15)
#define ENTRY_MASKED (1u << 16)
#define LINES_MAX 32u

static struct ioapic {
    volatile u8 *mmio;
    u32 gsi, pins; /* gsi: of the first pin */
} ioapics[ACPI_IOAPICS];

static struct line {
    const struct ioapic *ioapic;
    u32 pin, vector, entry; /* entry: low half, not masked */
    bool open;
} lines[LINES_MAX];
static u32 line_count;

static const struct acpi_info *tables;
static bool busy; /* a register is two accesses; interrupts are off */

static u32 read_register(const struct ioapic *ioapic, u32 reg)
{
    mmio_write32(ioapic->mmio + IOAPIC_SELECT, reg);
    return mmio_read32(ioapic->mmio + IOAPIC_WINDOW);
}

static void write_register(const struct ioapic *ioapic, u32 reg, u32 value)
{
    mmio_write32(ioapic->mmio + IOAPIC_SELECT, reg);
    mmio_write32(ioapic->mmio + IOAPIC_WINDOW, value);
}

void ioapic_init(const struct acpi_info *acpi)
{
    tables = acpi;
    line_count = 0;
    for (u32 i = 0; i < acpi->ioapic_count; i++) {
        struct ioapic *ioapic = &ioapics[i];
        u64 skip = acpi->ioapic[i].address & PAGE_MASK;
        ioapic->mmio = (u8 *)paging_map_device(HPA(acpi->ioapic[i].address - skip), PAGE_SIZE) + skip;
        ioapic->gsi = acpi->ioapic[i].gsi;
        ioapic->pins = (read_register(ioapic, IOAPIC_VERSION) >> 16 & 0xff) + 1;
        for (u32 pin = 0; pin < ioapic->pins; pin++)
            write_register(ioapic, IOAPIC_ENTRY(pin), ENTRY_MASKED);
    }
}

static const struct ioapic *find_ioapic(u32 gsi)
{
    for (u32 i = 0; i < tables->ioapic_count; i++)
        if (gsi >= ioapics[i].gsi && gsi - ioapics[i].gsi < ioapics[i].pins)
            return &ioapics[i];
    return NULL;
}

status_t ioapic_route(const struct pci_line *line, u8 vector, u32 apic_id)
{
    const struct acpi_isa_irq *irq = &tables->isa[line->irq];
    const struct ioapic *ioapic = find_ioapic(irq->gsi);
    /* What MADT leaves to the bus is edge and high on ISA, level and low on PCI (ACPI 6.4 5.2.12.5, PCI 3.0 2.2.6). */
    bool low = irq->polarity == ACPI_BUS_DEFAULT ? !line->isa : irq->polarity == ACPI_LOW;
    bool level = irq->trigger == ACPI_BUS_DEFAULT ? !line->isa : irq->trigger == ACPI_LEVEL;

    if (apic_id >= 0xff)
        return ERR_RANGE;
    if (!ioapic || line_count == LINES_MAX)
        return ERR_NOT_FOUND;
    u32 pin = irq->gsi - ioapic->gsi;
    for (u32 i = 0; i < line_count; i++)
        if (lines[i].ioapic == ioapic && lines[i].pin == pin)
            return ERR_BUSY;
    u32 entry = vector | (low ? ENTRY_LOW : 0) | (level ? ENTRY_LEVEL : 0); /* fixed delivery, physical destination */
    write_register(ioapic, IOAPIC_ENTRY(pin) + 1, apic_id << 24);
    write_register(ioapic, IOAPIC_ENTRY(pin), entry | ENTRY_MASKED);
    lines[line_count++] = (struct line){.ioapic = ioapic, .pin = pin, .vector = vector, .entry = entry};
    return OK;
}

static void set_open(struct line *line, bool open)
{
    while (__atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
    if (line->open != open)
        write_register(line->ioapic, IOAPIC_ENTRY(line->pin), line->entry | (open ? 0 : ENTRY_MASKED));
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
        if (lines[i].vector == vector && (lines[i].entry & ENTRY_LEVEL))
            set_open(&lines[i], false);
}
