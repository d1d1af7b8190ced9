/*
 * VirtIO devices that use addresses as their host does, past the IOMMU that holds them: those that do not offer
 * VIRTIO_F_ACCESS_PLATFORM (VirtIO 1.2 6). The feature stands in a BAR; a window in configuration space leads there
 * (4.1.4.9). A device that lies about it is believed: docs/decisions/011.
 */
#include "hv/pci/internal.h"
#include "shared/virtio/virtio.h"

#define DEVICE_FIRST 0x1000u /* 4.1.2: transitional ones; modern ones from 0x1040 on */
#define DEVICE_LAST 0x107fu
#define WINDOW_DATA ((u32)sizeof(struct virtio_pci_cap)) /* 4.1.4.9: pci_cfg_data */
#define WINDOW_SIZE (WINDOW_DATA + 4)

#define CAP(field) ((u32)offsetof(struct virtio_pci_cap, field))
#define COMMON(field) ((u32)offsetof(struct virtio_pci_common_cfg, field))

/* The first capability of that type, `size` bytes long. 0: none. */
static u32 find(const struct pci_device *dev, u32 type, u32 size)
{
    u32 at = pci_capability_first(dev);

    for (u32 i = 0; i < PCI_STANDARD_SIZE && (at = pci_capability_find(dev, at, PCI_CAP_VENDOR, 4)) != 0; i += 4) {
        if (pci_read(dev, at + CAP(cfg_type), 1) == type)
            return at + size <= PCI_STANDARD_SIZE ? at : 0;
        at = pci_read(dev, at + CAP(cap_next), 1);
    }
    return 0;
}

/* What is wrong with these numbers is between the device and its own registers: nobody else's are in its window. */
static u32 read_features(const struct pci_device *dev, u32 common, u32 window)
{
    u32 at = pci_read(dev, common + CAP(offset), 4) & ~3u;

    pci_update(dev, PCI_COMMAND, 0, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    pci_write(dev, window + CAP(bar), 1, pci_read(dev, common + CAP(bar), 1));
    pci_write(dev, window + CAP(length), 4, 4);
    pci_write(dev, window + CAP(offset), 4, at + COMMON(device_feature_select));
    pci_write(dev, window + WINDOW_DATA, 4, 1); /* bits 32 to 63 */
    pci_write(dev, window + CAP(offset), 4, at + COMMON(device_feature));
    u32 features = pci_read(dev, window + WINDOW_DATA, 4);
    pci_update(dev, PCI_COMMAND, 0xffff, dev->command);
    return features;
}

bool pci_virtio_is_past_iommu(const struct pci_device *dev)
{
    if (dev->vendor != VIRTIO_PCI_VENDOR || dev->device < DEVICE_FIRST || dev->device > DEVICE_LAST)
        return false;
    u32 common = find(dev, VIRTIO_PCI_CAP_COMMON, sizeof(struct virtio_pci_cap));
    u32 window = find(dev, VIRTIO_PCI_CAP_PCI, WINDOW_SIZE);
    u32 features = common && window ? read_features(dev, common, window) : 0; /* a legacy interface cannot offer it */
    return features == ~0u /* nobody answered */ || !(features & (u32)(VIRTIO_F_ACCESS_PLATFORM >> 32));
}
