/* Capability lists: what a device offers, read once. The lists are the device's data: bounded, loops end. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"
#include "shared/lib/checked.h"

u8 pci_capability_find(u16 bdf, u8 id)
{
    if (!(pci_config_read(bdf, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES))
        return 0;

    /* 48 capabilities of four bytes fill the space: whoever walks longer walks in a loop (PCI 3.0 6.7). */
    u32 at = pci_config_read(bdf, PCI_CAPABILITIES, 1) & 0xfc;
    for (u32 i = 0; i < 48 && at >= PCI_HEADER_SIZE; i++) {
        u32 header = pci_config_read(bdf, at, 2);
        if ((header & 0xff) == 0xff)
            return 0;
        if ((header & 0xff) == id)
            return (u8)at;
        at = header >> 8 & 0xfc;
    }
    return 0;
}

u32 pci_extended_find(u16 bdf, u16 id)
{
    u32 at = PCI_STANDARD_SIZE;

    for (u32 i = 0; i < 480 && at >= PCI_STANDARD_SIZE; i++) { /* PCIe 5.0 7.6.3 */
        u32 header = pci_config_read(bdf, at, 4);
        if (header == 0 || header == ~0u)
            return 0;
        if ((header & 0xffff) == id)
            return at;
        at = header >> 20 & 0xffc;
    }
    return 0;
}

/* Where an MSI-X structure lies: a register holds the BAR's index and the offset in it. 0 when that is no memory of the
 * device. */
static u64 msix_locate(const struct pci_device *dev, u32 reg, u64 size)
{
    u32 value = pci_read(dev, dev->cap_msix + reg, 4);
    u32 index = value & 7;

    if (index >= ARRAY_SIZE(dev->bar) || !dev->bar[index].memory ||
        !range_inside(value & ~7u, size, 0, dev->bar[index].size))
        return 0;
    return dev->bar[index].address + (value & ~7u);
}

static void read_msix(struct pci_device *dev)
{
    if (dev->cap_msix > PCI_STANDARD_SIZE - 12) {
        dev->cap_msix = 0;
        return;
    }
    dev->msix_count = (pci_read(dev, dev->cap_msix + MSIX_CONTROL, 2) & MSIX_SIZE) + 1;
    dev->msix_table = HPA(msix_locate(dev, MSIX_TABLE, (u64)dev->msix_count * MSIX_ENTRY_SIZE));
    dev->msix_pba = HPA(msix_locate(dev, MSIX_PBA, (dev->msix_count + 63) / 64 * 8));
    if (!dev->msix_table.v || !dev->msix_pba.v) {
        hv_log("pci %02x:%02x.%x: MSI-X table outside its BARs: not used", dev->bdf >> 8, dev->bdf >> 3 & 31,
               dev->bdf & 7);
        dev->cap_msix = 0;
        dev->msix_table = dev->msix_pba = HPA(0);
    }
}

void pci_capabilities_read(struct pci_device *dev)
{
    dev->cap_msi = pci_capability_find(dev->bdf, PCI_CAP_MSI);
    dev->cap_msix = pci_capability_find(dev->bdf, PCI_CAP_MSIX);
    dev->cap_express = pci_capability_find(dev->bdf, PCI_CAP_EXPRESS);
    dev->cap_af = pci_capability_find(dev->bdf, PCI_CAP_AF);

    /* A structure that would stick out of the standard space is no such structure. */
    if (dev->cap_msi > PCI_STANDARD_SIZE - 24)
        dev->cap_msi = 0;
    if (dev->cap_express > PCI_STANDARD_SIZE - 12)
        dev->cap_express = 0;
    if (dev->cap_af > PCI_STANDARD_SIZE - 8)
        dev->cap_af = 0;
    if (dev->cap_msix)
        read_msix(dev);

    if (dev->cap_express) {
        dev->express_control =
            (u16)(pci_read(dev, dev->cap_express + EXPRESS_DEVICE_CONTROL, 2) & ~EXPRESS_CONTROL_FLR);
        dev->has_flr = pci_read(dev, dev->cap_express + EXPRESS_DEVICE_CAPABILITY, 4) & EXPRESS_CAPABILITY_FLR;
    }
    if (dev->has_flr) /* one way is enough: reset_function() takes AF when it is there */
        dev->cap_af = 0;
    else if (dev->cap_af)
        dev->has_flr = (pci_read(dev, dev->cap_af + AF_CAPABILITY, 1) & AF_HAS_FLR) == AF_HAS_FLR;
}
