/* Configuration space of PCI and PCI Express: offsets and bits (PCI 3.0 6.1, PCIe 5.0 7.5 and 7.7). */
#pragma once

#define PCI_VENDOR 0x00u
#define PCI_DEVICE 0x02u
#define PCI_COMMAND 0x04u
#define PCI_STATUS 0x06u
#define PCI_REVISION 0x08u
#define PCI_HEADER_TYPE 0x0eu
#define PCI_BAR0 0x10u
#define PCI_SECONDARY_BUS 0x19u
#define PCI_CAPABILITIES 0x34u
#define PCI_BRIDGE_CONTROL 0x3eu
#define PCI_HEADER_SIZE 0x40u    /* capabilities lie behind it */
#define PCI_STANDARD_SIZE 0x100u /* the extended ones behind that */
#define PCI_CONFIG_SIZE 0x1000u

#define PCI_COMMAND_IO 0x0001u
#define PCI_COMMAND_MEMORY 0x0002u
#define PCI_COMMAND_BUS_MASTER 0x0004u
#define PCI_COMMAND_INTX_DISABLE 0x0400u
#define PCI_STATUS_CAPABILITIES 0x0010u
#define PCI_STATUS_CLEARABLE 0xf900u /* write one to clear */
#define PCI_HEADER_MULTIFUNCTION 0x80u
#define PCI_BRIDGE_RESET 0x0040u

#define PCI_BAR_PORT 0x1u
#define PCI_BAR_TYPE_MASK 0x6u
#define PCI_BAR_WIDE 0x4u
#define PCI_BAR_PREFETCH 0x8u

#define PCI_CAP_MSI 0x05u
#define PCI_CAP_EXPRESS 0x10u
#define PCI_CAP_MSIX 0x11u
#define PCI_CAP_AF 0x13u

#define MSI_CONTROL 2u
#define MSI_ADDRESS 4u
#define MSI_ENABLE 0x0001u
#define MSI_MULTIPLE 0x0070u /* how many vectors are enabled, log2 */
#define MSI_WIDE 0x0080u
#define MSI_MASKABLE 0x0100u

#define MSIX_CONTROL 2u
#define MSIX_TABLE 4u
#define MSIX_PBA 8u
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u
#define MSIX_SIZE 0x07ffu
#define MSIX_ENTRY_SIZE 16u
#define MSIX_ENTRY_MASKED 1u

#define EXPRESS_DEVICE_CAPABILITY 0x4u
#define EXPRESS_DEVICE_CONTROL 0x8u
#define EXPRESS_DEVICE_STATUS 0xau
#define EXPRESS_CAPABILITY_FLR (1u << 28)
#define EXPRESS_CONTROL_FLR 0x8000u
#define EXPRESS_STATUS_PENDING 0x0020u

#define AF_CAPABILITY 3u /* Advanced Features (PCI AF ECN, 6.x): reset for conventional functions */
#define AF_CONTROL 4u
#define AF_STATUS 5u
#define AF_HAS_FLR 0x03u /* transactions pending and FLR, both needed */
#define AF_RESET 0x01u
#define AF_PENDING 0x01u

#define PCI_EXTENDED_ACS 0x000du
#define ACS_CAPABILITY 4u
#define ACS_CONTROL 6u
#define ACS_WANTED                                                                                                     \
    0x1fu /* source validation, translation blocking, P2P request and completion redirect, upstream forwarding */

#define PCI_CLASS_HOST_BRIDGE 0x0600u /* base << 8 | sub */
