#include "guestos/kernel/dev/pci.h"

#include "shared/pci/ports.h"
#include "shared/pci/registers.h"

#define MAX_CAPABILITIES 48u /* as many as fit: a longer list is a loop */

u8 pci_read8(u16 bdf, u32 offset)
{
    return io_in8(pci_port_select(bdf, offset));
}

u16 pci_read16(u16 bdf, u32 offset)
{
    return io_in16(pci_port_select(bdf, offset));
}

u32 pci_read32(u16 bdf, u32 offset)
{
    return io_in32(pci_port_select(bdf, offset));
}

void pci_write16(u16 bdf, u32 offset, u16 value)
{
    io_out16(pci_port_select(bdf, offset), value);
}

static bool scan_bus(u8 bus, bool (*visit)(const struct pci_device *, void *), void *context)
{
    for (u32 slot = 0; slot < 256; slot++) {
        u16 bdf = (u16)(bus << 8 | slot);
        u32 id = pci_read32(bdf, PCI_VENDOR);
        if ((id & 0xffff) == 0xffff) {
            if (slot % 8 == 0)
                slot += 7; /* without function 0 there are no others */
            continue;
        }
        u8 header = pci_read8(bdf, PCI_HEADER_TYPE);
        struct pci_device device = {bdf, (u16)id, (u16)(id >> 16)};
        if (visit(&device, context))
            return true;
        if ((header & PCI_HEADER_TYPE_MASK) == PCI_HEADER_BRIDGE) {
            u8 below = pci_read8(bdf, PCI_SECONDARY_BUS);
            /* Only upwards, so that a wrong bus number cannot make the walk go round. */
            if (below > bus && scan_bus(below, visit, context))
                return true;
        }
        if (slot % 8 == 0 && (header & PCI_HEADER_MULTIFUNCTION) == 0)
            slot += 7;
    }
    return false;
}

bool pci_scan(bool (*visit)(const struct pci_device *device, void *context), void *context)
{
    return scan_bus(0, visit, context);
}

u8 pci_find_capability(u16 bdf, u8 id, u8 after)
{
    if ((pci_read16(bdf, PCI_STATUS) & PCI_STATUS_CAPABILITIES) == 0)
        return 0;
    u8 at = pci_read8(bdf, after == 0 ? PCI_CAPABILITIES : after + 1u) & 0xfc;
    for (u32 i = 0; at >= PCI_HEADER_SIZE && i < MAX_CAPABILITIES; i++) {
        if (pci_read8(bdf, at) == id)
            return at;
        at = pci_read8(bdf, at + 1u) & 0xfc;
    }
    return 0;
}

struct pci_bar pci_read_bar(u16 bdf, u32 index)
{
    u32 low = pci_read32(bdf, PCI_BAR0 + 4 * index);

    if ((low & PCI_BAR_PORT) != 0)
        return (struct pci_bar){low & 0xfffc, true};
    u64 base = low & 0xfffffff0u;
    if ((low & PCI_BAR_WIDE) != 0 && index < 5)
        base |= (u64)pci_read32(bdf, PCI_BAR0 + 4 * index + 4) << 32;
    return (struct pci_bar){base, false};
}
