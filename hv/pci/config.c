/*
 * Configuration space: through ECAM (PCIe 5.0 7.2.2: 4 KiB a function, one window of 1 MiB a bus), or where firmware
 * names none, through address and data port (PCI 3.0 3.2.2.3.2), which reach the first 256 bytes.
 */
#include "hv/arch/x86/cpu/io.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"

#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA 0xcfcu
#define CONFIG_ENABLE (1u << 31)

static volatile u8 *bus_window[256];
static bool by_ports;

void pci_map_bus(hpa_t ecam, u8 bus)
{
    by_ports = ecam.v == 0;
    /* MCFG's base is that of bus 0, also when its range starts later (PCI firmware 3.3, 4.1.2). */
    if (!by_ports && !bus_window[bus])
        bus_window[bus] = paging_map_device(HPA(ecam.v + bus * MIB(1)), MIB(1));
}

static volatile u8 *config_register(const struct pci_device *dev, u32 offset)
{
    volatile u8 *window = bus_window[dev->bdf >> 8];

    ASSERT_HV(window);
    return window + (u32)(dev->bdf & 0xff) * PCI_CONFIG_SIZE + offset;
}

/* The data port that shows this register now. The pair is one: the hv lock covers it. */
static u16 select_register(const struct pci_device *dev, u32 offset)
{
    io_out32(CONFIG_ADDRESS, CONFIG_ENABLE | (u32)dev->bdf << 8 | (offset & ~3u));
    return (u16)(CONFIG_DATA + (offset & 3));
}

u32 pci_read(const struct pci_device *dev, u32 offset, u32 width)
{
    u32 mask = ~0u >> (32 - width * 8);

    ASSERT_HV(pci_access_valid(offset, width));
    if (by_ports && offset >= PCI_STANDARD_SIZE) /* as if nothing were there */
        return mask;
    if (by_ports)
        return io_in32(select_register(dev, offset) & ~3u) >> (offset & 3) * 8 & mask;

    const volatile u8 *at = config_register(dev, offset);
    if (width == 1)
        return *at;
    return width == 2 ? *(const volatile u16 *)at : *(const volatile u32 *)at;
}

/* With its own width: the bytes beside it may be cleared by writing ones. */
static void write_ports(u16 port, u32 width, u32 value)
{
    if (width == 1)
        io_out8(port, (u8)value);
    else if (width == 2)
        io_out16(port, (u16)value);
    else
        io_out32(port, value);
}

void pci_write(const struct pci_device *dev, u32 offset, u32 width, u32 value)
{
    ASSERT_HV(pci_access_valid(offset, width));
    if (by_ports && offset < PCI_STANDARD_SIZE)
        write_ports(select_register(dev, offset), width, value);
    if (by_ports)
        return;

    volatile u8 *at = config_register(dev, offset);
    if (width == 1)
        *at = (u8)value;
    else if (width == 2)
        *(volatile u16 *)at = (u16)value;
    else
        *(volatile u32 *)at = value;
}
