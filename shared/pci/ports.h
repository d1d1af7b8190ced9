/* Configuration mechanism 1 (PCI 3.0 3.2.2.3.2): address and data port, for the first 256 bytes of each function. */
#pragma once

#include "shared/x86/io.h"

#define PCI_CONFIG_ADDRESS 0xcf8u
#define PCI_CONFIG_DATA 0xcfcu
#define PCI_CONFIG_ENABLE (1u << 31)

/* The data port that shows this register from now on. The two ports are one machine: the caller sees to it that nobody
 * else selects before the access. bdf: bus << 8 | device << 3 | function. */
static inline u16 pci_port_select(u16 bdf, u32 offset)
{
    io_out32(PCI_CONFIG_ADDRESS, PCI_CONFIG_ENABLE | (u32)bdf << 8 | (offset & 0xfc));
    return (u16)(PCI_CONFIG_DATA + (offset & 3));
}
