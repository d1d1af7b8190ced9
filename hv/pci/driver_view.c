/* What a driver VM sees and may change of its device's configuration space: an allow list. */
#include "hv/pci/internal.h"

#define DRIVER_COMMAND_BITS (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER | PCI_COMMAND_INTX_DISABLE)

static bool access_valid(u32 offset, u32 width)
{
    return (width == 1 || width == 2 || width == 4) && offset % width == 0 && offset < PCI_CONFIG_SIZE;
}

status_t pci_driver_read(const struct pci_device *dev, u32 offset, u32 width, u32 *value)
{
    if (!access_valid(offset, width))
        return ERR_INVALID;
    if (offset >= PCI_STANDARD_SIZE) /* extended capabilities are about links and routing: the platform's */
        return ERR_DENIED;
    *value = pci_read(dev, offset, width);
    return OK;
}

status_t pci_driver_write(const struct pci_device *dev, u32 offset, u32 width, u32 value, bool *bus_master)
{
    *bus_master = false;
    if (!access_valid(offset, width))
        return ERR_INVALID;
    if (offset < PCI_COMMAND || offset >= PCI_COMMAND + 4)
        return ERR_DENIED;

    /* Command in the low, status in the high half: as they would stand after the write. No status bit clears by itself.
     */
    u32 shift = (offset - PCI_COMMAND) * 8;
    u32 written = (width == 4 ? ~0u : (1u << width * 8) - 1) << shift;
    u32 old = pci_read(dev, PCI_COMMAND, 2);
    u32 wanted = (old & ~written) | (value << shift & written);
    u32 command = wanted & 0xffff, status = wanted >> 16;

    if (((command ^ old) & ~DRIVER_COMMAND_BITS) || (status & ~PCI_STATUS_CLEARABLE))
        return ERR_DENIED;
    *bus_master = command & written & PCI_COMMAND_BUS_MASTER;
    if (!(old & PCI_COMMAND_BUS_MASTER))
        command &= ~PCI_COMMAND_BUS_MASTER;
    if (command != old)
        pci_write(dev, PCI_COMMAND, 2, command);
    if (status)
        pci_write(dev, PCI_STATUS, 2, status);
    return OK;
}

void pci_set_bus_master(const struct pci_device *dev, bool on)
{
    u32 old = pci_read(dev, PCI_COMMAND, 2);
    u32 command = (old & ~PCI_COMMAND_BUS_MASTER) | (on ? PCI_COMMAND_BUS_MASTER : 0);

    if (dev->assigned)
        command |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
    if (command != old) /* a write costs an outer hypervisor half a millisecond */
        pci_write(dev, PCI_COMMAND, 2, command);
}
