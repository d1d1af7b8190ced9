/* What a driver VM sees and may change of its device's configuration space: an allow list. */
#include "hv/pci/internal.h"

#define DRIVER_COMMAND_BITS (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)

status_t pci_driver_read(const struct pci_device *dev, u32 offset, u32 width, u32 *value)
{
    if (!pci_access_valid(offset, width))
        return ERR_INVALID;
    if (offset >= PCI_STANDARD_SIZE) /* extended capabilities are about links and routing: the platform's */
        return ERR_DENIED;
    *value = pci_read(dev, offset, width);
    return OK;
}

status_t pci_driver_write(const struct pci_device *dev, u32 offset, u32 width, u32 value, bool *bus_master)
{
    *bus_master = false;
    if (!pci_access_valid(offset, width))
        return ERR_INVALID;
    if (offset != PCI_COMMAND || width != 2)
        return ERR_DENIED;
    u32 old = pci_read(dev, PCI_COMMAND, 2);
    if ((value ^ old) & ~DRIVER_COMMAND_BITS)
        return ERR_DENIED;
    *bus_master = value & PCI_COMMAND_MASTER;
    if (!dev->intx_on) /* its line is nobody's, or another's */
        value |= PCI_COMMAND_INTX_DISABLE;
    if (!(old & PCI_COMMAND_MASTER))
        value &= ~PCI_COMMAND_MASTER;
    pci_update(dev, PCI_COMMAND, 0xffff, value);
    return OK;
}

void pci_set_bus_master(const struct pci_device *dev, bool on)
{
    u32 decode = dev->assigned ? PCI_COMMAND_IO | PCI_COMMAND_MEMORY : 0;

    pci_update(dev, PCI_COMMAND, PCI_COMMAND_MASTER, decode | (on ? PCI_COMMAND_MASTER : 0));
}
