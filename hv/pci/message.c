/* The one interrupt of a device: MSI (PCI 3.0 6.8.1), MSI-X entry 0 (6.8.2), or its pin (6.2.2, bit 10). */
#include "hv/arch/x86/paging/paging.h"
#include "hv/pci/internal.h"
#include "shared/lib/checked.h"

static void write_msi(const struct pci_device *dev)
{
    u32 at = dev->cap_msi;
    bool wide = pci_read(dev, at + MSI_CONTROL, 2) & MSI_WIDE;

    pci_write(dev, at + MSI_ADDRESS, 4, (u32)dev->message_address);
    if (wide)
        pci_write(dev, at + MSI_ADDRESS + 4, 4, (u32)(dev->message_address >> 32));
    pci_write(dev, at + MSI_ADDRESS + (wide ? 8 : 4), 2, dev->message_data);
    pci_update(dev, at + MSI_CONTROL, 0, MSI_ENABLE);
}

static void write_msix(const struct pci_device *dev)
{
    volatile u32 *entry = dev->msix_entries;
    u32 control = dev->cap_msix + MSIX_CONTROL;

    /* The table is written under the mask for all, so that the device never sends half of a message. */
    pci_update(dev, control, 0, MSIX_ENABLE | MSIX_MASK_ALL);
    for (u32 i = 0; i < dev->msix_count; i++)
        entry[i * 4 + 3] = MSIX_ENTRY_MASKED;
    entry[0] = (u32)dev->message_address;
    entry[1] = (u32)(dev->message_address >> 32);
    entry[2] = dev->message_data;
    entry[3] = 0;
    pci_update(dev, control, MSIX_MASK_ALL, 0);
}

void pci_message_restore(const struct pci_device *dev)
{
    pci_update(dev, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, dev->intx_on ? 0 : PCI_COMMAND_INTX_DISABLE);
    if (dev->cap_msi)
        pci_update(dev, dev->cap_msi + MSI_CONTROL, MSI_ENABLE | MSI_MULTIPLE, 0);
    if (dev->cap_msix)
        pci_update(dev, dev->cap_msix + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL, 0);
    if (dev->message_on && dev->cap_msi)
        write_msi(dev);
    else if (dev->message_on)
        write_msix(dev);
}

status_t pci_enable_message(struct pci_device *dev, u64 address, u32 data)
{
    if (!dev->cap_msi && !dev->cap_msix)
        return ERR_UNSUPPORTED;
    if (!dev->cap_msi) {
        u64 skip = dev->msix_table.v & PAGE_MASK, size = PAGE_UP(skip + MSIX_TABLE_SIZE(dev->msix_count));
        if (!dev->msix_entries)
            dev->msix_entries = paging_map_device(HPA(PAGE_DOWN(dev->msix_table.v)), size) + skip;
        pci_update(dev, PCI_COMMAND, 0, PCI_COMMAND_MEMORY);
    }
    dev->message_address = address;
    dev->message_data = data;
    dev->message_on = true;
    pci_message_restore(dev);
    return OK;
}

void pci_enable_intx(struct pci_device *dev)
{
    dev->intx_on = true;
    pci_message_restore(dev);
}

void pci_disable_interrupt(struct pci_device *dev)
{
    dev->message_on = dev->intx_on = false;
    pci_message_restore(dev);
}

bool pci_is_msix_page(const struct pci_device *dev, hpa_t page)
{
    return dev->cap_msix && (ranges_overlap(page.v, PAGE_SIZE, dev->msix_table.v, MSIX_TABLE_SIZE(dev->msix_count)) ||
                             ranges_overlap(page.v, PAGE_SIZE, dev->msix_pba.v, MSIX_PBA_SIZE(dev->msix_count)));
}
