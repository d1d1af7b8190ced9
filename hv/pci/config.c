/*
 * Configuration space: through ECAM (PCIe 5.0 7.2.2: 4 KiB a function, one window of 1 MiB a bus), or where firmware
 * names none, through address and data port (PCI 3.0 3.2.2.3.2), which reach the first 256 bytes. The pair is one: the
 * hv lock covers it.
 */
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"
#include "shared/pci/ports.h"
#include "shared/x86/io.h"

static volatile u8 *bus_window[256];
static bool by_ports;

void pci_map_bus(hpa_t ecam, u8 bus)
{
    by_ports = ecam.v == 0;
    /* MCFG's base is that of bus 0, also when its range starts later (PCI firmware 3.3, 4.1.2). */
    if (!by_ports && !bus_window[bus])
        bus_window[bus] = paging_map_device(HPA(ecam.v + bus * MIB(1)), MIB(1));
}

static volatile u8 *config_register(const struct pci_device *dev, u32 offset)
{
    volatile u8 *window = bus_window[dev->bdf >> 8];

    ASSERT_HV(window);
    return window + (u32)(dev->bdf & 0xff) * PCI_CONFIG_SIZE + offset;
}

u32 pci_read(const struct pci_device *dev, u32 offset, u32 width)
{
    ASSERT_HV(pci_access_valid(offset, width));
    if (!by_ports)
        return mmio_read(config_register(dev, offset), width);
    if (offset >= PCI_STANDARD_SIZE) /* as if nothing were there */
        return ~0u >> (32 - width * 8);
    return io_in(pci_port_select(dev->bdf, offset), width);
}

/* With its own width: the bytes beside it may be cleared by writing ones. */
void pci_write(const struct pci_device *dev, u32 offset, u32 width, u32 value)
{
    ASSERT_HV(pci_access_valid(offset, width));
    if (!by_ports)
        mmio_write(config_register(dev, offset), width, value);
    else if (offset < PCI_STANDARD_SIZE)
        io_out(pci_port_select(dev->bdf, offset), width, value);
}
