#include "guestos/kernel/arch/ioapic.h"

#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/arch/paging.h"
#include "shared/x86/apic.h"

static void write(volatile u8 *ioapic, u32 reg, u32 value)
{
    *(volatile u32 *)(ioapic + IOAPIC_SELECT) = reg;
    *(volatile u32 *)(ioapic + IOAPIC_WINDOW) = value;
}

static u32 read(volatile u8 *ioapic, u32 reg)
{
    *(volatile u32 *)(ioapic + IOAPIC_SELECT) = reg;
    return *(volatile u32 *)(ioapic + IOAPIC_WINDOW);
}

status_t ioapic_route_irq(u8 irq, u8 vector)
{
    const struct acpi_info *acpi = acpi_get();

    if (acpi->ioapic == 0)
        return ERR_NOT_FOUND;
    u32 gsi = acpi->irq_to_gsi[irq & 15];
    volatile u8 *ioapic = paging_map_device(acpi->ioapic, PAGE_SIZE);
    u32 last = IOAPIC_LAST_PIN(read(ioapic, IOAPIC_VERSION));
    if (gsi < acpi->ioapic_gsi_base || gsi - acpi->ioapic_gsi_base > last)
        return ERR_RANGE;
    u32 reg = IOAPIC_ENTRY(gsi - acpi->ioapic_gsi_base);
    /* Destination first: the low half, with the mask bit clear, switches the input on. */
    write(ioapic, reg + 1, lapic_id() << 24);
    write(ioapic, reg, vector);
    return OK;
}
