/* The one interrupt message of a device: MSI (PCI 3.0 6.8.1) or MSI-X entry 0 (6.8.2). */
#include "hv/arch/x86/paging/paging.h"
#include "hv/pci/internal.h"

static void write_msi(const struct pci_device *dev, bool on)
{
    u32 at = dev->cap_msi;
    u32 control = pci_read(dev, at + MSI_CONTROL, 2) & ~(MSI_ENABLE | MSI_MULTIPLE);
    u32 data = control & MSI_WIDE ? 12 : 8; /* the data register follows a 64-bit or a 32-bit address */

    pci_write(dev, at + MSI_CONTROL, 2, control);
    if (!on)
        return;
    pci_write(dev, at + MSI_ADDRESS, 4, (u32)dev->message_address);
    if (control & MSI_WIDE)
        pci_write(dev, at + MSI_ADDRESS + 4, 4, (u32)(dev->message_address >> 32));
    pci_write(dev, at + data, 2, dev->message_data);
    if (control & MSI_MASKABLE)
        pci_write(dev, at + data + 4, 4, ~1u);
    pci_write(dev, at + MSI_CONTROL, 2, control | MSI_ENABLE);
}

static void write_msix(const struct pci_device *dev, bool on)
{
    volatile u32 *entry = dev->msix_entries;
    u32 at = dev->cap_msix + MSIX_CONTROL;
    u32 control = pci_read(dev, at, 2) & ~(MSIX_ENABLE | MSIX_MASK_ALL);

    if (!on) {
        pci_write(dev, at, 2, control);
        return;
    }
    /* The table is written under the mask for all, so that the device never sends half of a message. */
    pci_write(dev, at, 2, control | MSIX_ENABLE | MSIX_MASK_ALL);
    for (u32 i = 0; i < dev->msix_count; i++)
        entry[i * 4 + 3] = MSIX_ENTRY_MASKED;
    entry[0] = (u32)dev->message_address;
    entry[1] = (u32)(dev->message_address >> 32);
    entry[2] = dev->message_data;
    entry[3] = 0;
    pci_write(dev, at, 2, control | MSIX_ENABLE);
}

void pci_message_restore(const struct pci_device *dev)
{
    if (dev->cap_msi)
        write_msi(dev, dev->message_on);
    if (dev->cap_msix)
        write_msix(dev, dev->message_on && !dev->cap_msi);
}

status_t pci_enable_message(struct pci_device *dev, u64 address, u32 data)
{
    if (!dev->cap_msi && !dev->cap_msix)
        return ERR_UNSUPPORTED;
    if (!dev->cap_msi) {
        u64 page = PAGE_DOWN(dev->msix_table.v), size = dev->msix_table.v - page + dev->msix_count * MSIX_ENTRY_SIZE;
        if (!dev->msix_entries)
            dev->msix_entries = paging_map_device(HPA(page), PAGE_UP(size)) + (dev->msix_table.v - page);
        pci_write(dev, PCI_COMMAND, 2, pci_read(dev, PCI_COMMAND, 2) | PCI_COMMAND_MEMORY);
    }
    dev->message_address = address;
    dev->message_data = data;
    dev->message_on = true;
    pci_message_restore(dev);
    return OK;
}

void pci_disable_message(struct pci_device *dev)
{
    dev->message_on = false;
    pci_message_restore(dev);
}

static bool touches(hpa_t page, hpa_t at, u64 size)
{
    return page.v < at.v + size && at.v < page.v + PAGE_SIZE;
}

bool pci_is_msix_page(const struct pci_device *dev, hpa_t page)
{
    if (!dev->cap_msix)
        return false;
    return touches(page, dev->msix_table, (u64)dev->msix_count * MSIX_ENTRY_SIZE) ||
           touches(page, dev->msix_pba, (dev->msix_count + 63) / 64 * 8);
}
