/* Shared by the files of pci/ only. Context: hv lock held. */
#pragma once

#include "hv/pci/pci.h"
#include "hv/pci/registers.h"

/*
 * config.c: configuration space by address, through the mapped windows. A bus that was not mapped reads as all ones, as
 * absent devices do, and drops writes.
 */
void pci_config_map_bus(hpa_t ecam, u8 bus);
u32 pci_config_read(u16 bdf, u32 offset, u32 width);
void pci_config_write(u16 bdf, u32 offset, u32 width, u32 value);

/* capability.c. The offset of the first capability with that id; 0: none. Bounded, also when the list has a loop. */
u8 pci_capability_find(u16 bdf, u8 id);
/* The same in the extended space of PCI Express. */
u32 pci_extended_find(u16 bdf, u16 id);
/* Fill in the cap_*, has_flr and msix_* fields. Wants the BARs. */
void pci_capabilities_read(struct pci_device *dev);

/* bar.c. Size all BARs, with decoding off meanwhile (PCI 3.0 6.2.5.1). */
void pci_bars_read(struct pci_device *dev);
/* Refuse the BARs of all devices that may not be given away, see pci_enumerate(). Each is named in the log. */
void pci_bars_check(hpa_t ecam, u64 ecam_size, const struct boot_memory *map, u32 map_count);

/* enumerate.c: some function did not fit into pci_devices[]: nobody can tell what lives behind a bridge. */
extern bool pci_devices_left_out;

/* message.c: write the message in force into the device, or switch MSI and MSI-X off when there is none. */
void pci_message_restore(const struct pci_device *dev);
