/*
 * The registers of a driver VM's device: where the VM finds them, and that it finds no more. Memory BARs lie in the
 * contract's area and not where the host has them: firmware may put one anywhere below 2^52, above what the VM's page
 * tables and address width reach.
 */
#include "hv/core/driver.h"

#include "hv/arch/x86/vendor.h"

_Static_assert(DRIVER_BARS_ADDRESS + 6 * DRIVER_BAR_STRIDE == DRIVER_AREA, "room for six");

u64 driver_bar_address(const struct pci_device *dev, u32 index)
{
    const struct pci_bar *bar = &dev->bar[index];

    return bar->memory ? DRIVER_BARS_ADDRESS + index * DRIVER_BAR_STRIDE + (bar->address & PAGE_MASK) : bar->address;
}

/* In pieces between the pages of the MSI-X table, which stay out of reach. */
static status_t map_memory(struct driver *driver, u32 index)
{
    const struct pci_bar *bar = &driver->pci->bar[index];
    u64 page = PAGE_DOWN(bar->address), end = bar->address + bar->size, next;
    u64 offset = driver_bar_address(driver->pci, index) - bar->address; /* modulo 2^64 */
    status_t status = OK;

    for (; page < end && status == OK; page = next) {
        bool hidden = pci_is_msix_page(driver->pci, HPA(page));
        for (next = page + PAGE_SIZE; next < end && pci_is_msix_page(driver->pci, HPA(next)) == hidden;)
            next += PAGE_SIZE;
        if (!hidden)
            status = page_table_map(&driver->vm->npt, page + offset, HPA(page), next - page,
                                    PAGE_READ | PAGE_WRITE | PAGE_UNCACHED);
    }
    return status;
}

status_t driver_map_bars(struct driver *driver)
{
    status_t status = OK;

    for (u32 i = 0; i < ARRAY_SIZE(driver->pci->bar) && status == OK; i++) {
        const struct pci_bar *bar = &driver->pci->bar[i];
        if (!bar->size)
            continue;
        if (bar->memory)
            status = map_memory(driver, i);
        else
            vcpu_allow_ports(&driver->vm->vcpu, (u16)bar->address, (u32)bar->size);
    }
    return status;
}
