/* Configuration space: the header and what capabilities hold (PCI 3.0 6.1, 6.2, 6.8). Offsets in bytes. */
#pragma once

#include "shared/lib/types.h"

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
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_INTX_DISABLE 0x0400u
#define PCI_STATUS_CAPABILITIES 0x0010u
#define PCI_HEADER_BRIDGE 1u
#define PCI_HEADER_TYPE_MASK 0x7fu
#define PCI_HEADER_MULTIFUNCTION 0x80u

#define PCI_BAR_PORT 0x1u
#define PCI_BAR_TYPE_MASK 0x7u
#define PCI_BAR_WIDE 0x4u /* 64-bit: the next register is its upper half */

#define PCI_CAP_MSI 0x05u
#define PCI_CAP_VENDOR 0x09u
#define PCI_CAP_EXPRESS 0x10u
#define PCI_CAP_MSIX 0x11u

#define MSI_CONTROL 2u
#define MSI_ADDRESS 4u
#define MSI_ENABLE 0x0001u
#define MSI_MULTIPLE 0x0070u /* how many vectors are enabled, log2 */
#define MSI_WIDE 0x0080u

#define MSIX_CONTROL 2u
#define MSIX_TABLE 4u /* index of a BAR in the low three bits, offset in it */
#define MSIX_PBA 8u
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u
#define MSIX_SIZE 0x07ffu    /* of CONTROL: entries - 1 */
#define MSIX_ENTRY_MASKED 1u /* in the last of an entry's four words: address, its upper half, data, control */
#define MSIX_TABLE_SIZE(count) ((u64)(count)*16)
#define MSIX_PBA_SIZE(count) (((u64)(count) + 63) / 64 * 8)
