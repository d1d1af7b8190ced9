/* Shared by the files of pci/ only: registers (PCI 3.0 6.1, PCIe 5.0 7.5 and 7.7), steps of the enumeration. */
#pragma once

#include "hv/pci/pci.h"

#define PCI_VENDOR 0x00u
#define PCI_DEVICE 0x02u
#define PCI_COMMAND 0x04u
#define PCI_STATUS 0x06u
#define PCI_REVISION 0x08u
#define PCI_HEADER_TYPE 0x0eu
#define PCI_BAR0 0x10u
#define PCI_SECONDARY_BUS 0x19u
#define PCI_CAPABILITIES 0x34u
#define PCI_INTERRUPT_LINE 0x3cu
#define PCI_INTERRUPT_PIN 0x3du
#define PCI_BRIDGE_CONTROL 0x3eu
#define PCI_HEADER_SIZE 0x40u    /* capabilities lie behind it */
#define PCI_STANDARD_SIZE 0x100u /* the extended ones behind that */
#define PCI_CONFIG_SIZE 0x1000u

#define PCI_COMMAND_IO 0x0001u
#define PCI_COMMAND_MEMORY 0x0002u
#define PCI_COMMAND_BUS_MASTER 0x0004u
#define PCI_COMMAND_INTX_DISABLE 0x0400u
#define PCI_STATUS_CAPABILITIES 0x0010u
#define PCI_HEADER_MULTIFUNCTION 0x80u
#define PCI_BRIDGE_RESET 0x0040u
#define PCI_CLASS_HOST_BRIDGE 0x0600u /* base << 8 | sub */
#define PCI_CLASS_IDE 0x0101u

#define PCI_BAR_PORT 0x1u
#define PCI_BAR_TYPE_MASK 0x7u
#define PCI_BAR_WIDE 0x4u /* 64-bit: the next register is its upper half */

#define PCI_CAP_MSI 0x05u
#define PCI_CAP_EXPRESS 0x10u
#define PCI_CAP_MSIX 0x11u
#define PCI_EXTENDED_ACS 0x000du

#define MSI_CONTROL 2u
#define MSI_ADDRESS 4u
#define MSI_ENABLE 0x0001u
#define MSI_MULTIPLE 0x0070u /* how many vectors are enabled, log2 */
#define MSI_WIDE 0x0080u

#define MSIX_CONTROL 2u
#define MSIX_TABLE 4u
#define MSIX_PBA 8u
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u
#define MSIX_SIZE 0x07ffu
#define MSIX_ENTRY_MASKED 1u
#define MSIX_TABLE_SIZE(count) ((u64)(count)*16)
#define MSIX_PBA_SIZE(count) (((u64)(count) + 63) / 64 * 8)

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

/* enumerate.c: some function did not fit into pci_devices[]: nobody can tell what lives behind a bridge. */
extern bool pci_devices_left_out;

/* message.c: write the message in force into the device, or switch MSI and MSI-X off when there is none; INTx likewise.
 */
void pci_message_restore(const struct pci_device *dev);
