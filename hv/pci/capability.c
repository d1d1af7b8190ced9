/* Capability lists: what a device offers, read once. The lists are the device's data: bounded, loops end. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"
#include "shared/lib/checked.h"

/* Source validation, translation blocking, P2P request and completion redirect, upstream forwarding (PCIe 5.0 6.12). */
#define ACS_WANTED 0x1fu

/* The two lists: where they may lie, and the fields of an entry's first word (PCI 3.0 6.7, PCIe 5.0 7.6.3). */
struct capability_list {
    u32 begin, end, id_mask, next_shift;
};
static const struct capability_list standard = {PCI_HEADER_SIZE, PCI_STANDARD_SIZE, 0xff, 8};
static const struct capability_list extended = {PCI_STANDARD_SIZE, PCI_CONFIG_SIZE, 0xffff, 20};

/* The first capability with that id, in the list that begins `at`. 0: none, or its `size` bytes stick out. */
static u32 find(const struct pci_device *dev, const struct capability_list *list, u32 at, u32 id, u32 size)
{
    /* Entries of four bytes fill the space: whoever walks longer walks in a loop. The last four bytes' offset, end - 4,
     * has ones where an offset may have them. */
    for (u32 i = list->begin; i < list->end && at >= list->begin; i += 4) {
        u32 header = pci_read(dev, at, 4);
        if ((header & list->id_mask) == id)
            return at + size <= list->end ? at : 0;
        at = header >> list->next_shift & (list->end - 4);
    }
    return 0;
}

/* Where an MSI-X structure lies: a register holds the BAR's index and the offset in it. 0 when that is no memory of the
 * device. */
static hpa_t msix_locate(const struct pci_device *dev, u32 reg, u64 size)
{
    u32 value = pci_read(dev, dev->cap_msix + reg, 4);
    u32 index = value & 7, offset = value & ~7u;

    if (index >= ARRAY_SIZE(dev->bar) || !dev->bar[index].memory ||
        !range_inside(offset, size, 0, dev->bar[index].size))
        return HPA(0);
    return HPA(dev->bar[index].address + offset);
}

static void read_msix(struct pci_device *dev)
{
    dev->msix_count = (pci_read(dev, dev->cap_msix + MSIX_CONTROL, 2) & MSIX_SIZE) + 1;
    dev->msix_table = msix_locate(dev, MSIX_TABLE, MSIX_TABLE_SIZE(dev->msix_count));
    dev->msix_pba = msix_locate(dev, MSIX_PBA, MSIX_PBA_SIZE(dev->msix_count));
    if (!dev->msix_table.v || !dev->msix_pba.v) {
        hv_log("pci " BDF_FORMAT ": MSI-X table outside its BARs: not used", BDF_PARTS(dev->bdf));
        dev->cap_msix = 0;
    }
}

u32 pci_capability_first(const struct pci_device *dev)
{
    return pci_read(dev, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES ? pci_read(dev, PCI_CAPABILITIES, 1) : 0;
}

u32 pci_capability_find(const struct pci_device *dev, u32 at, u32 id, u32 size)
{
    return find(dev, &standard, at & (standard.end - 4), id, size);
}

void pci_capabilities_read(struct pci_device *dev)
{
    u32 first = pci_capability_first(dev);

    dev->cap_msi = (u8)pci_capability_find(dev, first, PCI_CAP_MSI, 24);
    dev->cap_msix = (u8)pci_capability_find(dev, first, PCI_CAP_MSIX, 12);
    dev->cap_express = (u8)pci_capability_find(dev, first, PCI_CAP_EXPRESS, 12);
    if (dev->cap_msix)
        read_msix(dev);
    if (!dev->cap_express)
        return;
    dev->express_control = (u16)(pci_read(dev, dev->cap_express + EXPRESS_DEVICE_CONTROL, 2) & ~EXPRESS_CONTROL_FLR);
    dev->has_flr = pci_read(dev, dev->cap_express + EXPRESS_DEVICE_CAPABILITY, 4) & EXPRESS_CAPABILITY_FLR;

    /* No way around the root complex: a device behind the bridge then is what its requester id says. */
    u32 acs = dev->header_type == 1 ? find(dev, &extended, PCI_STANDARD_SIZE, PCI_EXTENDED_ACS, 8) : 0;
    if (acs)
        pci_write(dev, acs + ACS_CONTROL, 2, pci_read(dev, acs + ACS_CAPABILITY, 2) & ACS_WANTED);
}
