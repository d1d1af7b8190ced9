/* Shared by the files of pci/ only: registers of bridges and PCI Express (PCIe 5.0 7.5, 7.7), steps of the enumeration.
 */
#pragma once

#include "hv/pci/pci.h"
#include "shared/pci/registers.h"

#define PCI_CLASS_HOST_BRIDGE 0x0600u /* base << 8 | sub */
#define PCI_CLASS_IDE 0x0101u
#define PCI_BRIDGE_RESET 0x0040u /* of PCI_BRIDGE_CONTROL */
#define PCI_EXTENDED_ACS 0x000du

#define EXPRESS_DEVICE_CAPABILITY 0x4u
#define EXPRESS_DEVICE_CONTROL 0x8u
#define EXPRESS_DEVICE_STATUS 0xau
#define EXPRESS_CAPABILITY_FLR (1u << 28)
#define EXPRESS_CONTROL_FLR 0x8000u
#define EXPRESS_STATUS_PENDING 0x0020u

#define ACS_CAPABILITY 4u
#define ACS_CONTROL 6u

static inline bool pci_access_valid(u32 offset, u32 width)
{
    return (width == 1 || width == 2 || width == 4) && offset % width == 0 && offset < PCI_CONFIG_SIZE;
}

/*
 * Change bits of a 16-bit register. Under an outer hypervisor a write that changes a mapping costs a millisecond and a
 * read nothing: what stands already is left alone.
 */
static inline void pci_update(const struct pci_device *dev, u32 offset, u32 clear, u32 set)
{
    u32 old = pci_read(dev, offset, 2), value = (old & ~clear) | set;

    if (value != old)
        pci_write(dev, offset, 2, value);
}

/* config.c. Once for each bus, before the first access to it; what is absent there reads as all ones. ecam 0: by ports.
 */
void pci_map_bus(hpa_t ecam, u8 bus);

/* bar.c. Size all BARs, with decoding off meanwhile (PCI 3.0 6.2.5.1). */
void pci_bars_read(struct pci_device *dev);
/* Refuse the BARs of all devices that may not be given away, see pci_enumerate(). Each is named in the log. */
void pci_bars_check(hpa_t ecam, u64 ecam_size, const struct boot_memory *map, u32 map_count);

/* legacy.c. The BARs that an IDE controller has in compatibility mode, whatever its registers say; others: nothing. */
void pci_ide_bars(struct pci_device *dev);

/* capability.c. Fill in the cap_*, has_flr and msix_* fields; access control of bridges goes on. Wants the BARs. */
void pci_capabilities_read(struct pci_device *dev);
/* Where the list of standard capabilities begins; 0: there is none. */
u32 pci_capability_first(const struct pci_device *dev);
/* The first one with that id from `at` on, which may be anything. 0: none, or its `size` bytes stick out. */
u32 pci_capability_find(const struct pci_device *dev, u32 at, u32 id, u32 size);

/* virtio_platform.c. Is it a VirtIO device that does not say that the platform translates its DMA? */
bool pci_virtio_is_past_iommu(const struct pci_device *dev);

/* enumerate.c: some function did not fit into pci_devices[]: nobody can tell what lives behind a bridge. */
extern bool pci_devices_left_out;

/* message.c: write the message in force into the device, or switch MSI and MSI-X off when there is none; INTx likewise.
 */
void pci_message_restore(const struct pci_device *dev);
