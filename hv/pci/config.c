/* Configuration space through ECAM (PCIe 5.0 7.2.2): 4 KiB a function, one window of 1 MiB a bus. */
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"

static volatile u8 *bus_window[256];

void pci_map_bus(hpa_t ecam, u8 bus)
{
    /* MCFG's base is that of bus 0, also when its range starts later (PCI firmware 3.3, 4.1.2). */
    if (!bus_window[bus])
        bus_window[bus] = paging_map_device(HPA(ecam.v + bus * MIB(1)), MIB(1));
}

static volatile u8 *config_register(const struct pci_device *dev, u32 offset, u32 width)
{
    volatile u8 *window = bus_window[dev->bdf >> 8];

    ASSERT_HV(window && pci_access_valid(offset, width));
    return window + (u32)(dev->bdf & 0xff) * PCI_CONFIG_SIZE + offset;
}

u32 pci_read(const struct pci_device *dev, u32 offset, u32 width)
{
    const volatile u8 *at = config_register(dev, offset, width);

    if (width == 1)
        return *at;
    return width == 2 ? *(const volatile u16 *)at : *(const volatile u32 *)at;
}

void pci_write(const struct pci_device *dev, u32 offset, u32 width, u32 value)
{
    volatile u8 *at = config_register(dev, offset, width);

    if (width == 1)
        *at = (u8)value;
    else if (width == 2)
        *(volatile u16 *)at = (u16)value;
    else
        *(volatile u32 *)at = value;
}
