#include "guestos/kernel/dev/pci.h"

#include "guestos/kernel/arch/cpu.h"

#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA 0xcfcu
#define CONFIG_ENABLE 0x80000000u

#define HEADER_TYPE 0x0eu
#define HEADER_MULTIFUNCTION 0x80u
#define HEADER_BRIDGE 1u
#define SECONDARY_BUS 0x19u
#define STATUS 0x06u
#define STATUS_CAPABILITIES 0x10u
#define CAPABILITIES 0x34u
#define MAX_CAPABILITIES 48u /* as many as fit: a longer list is a loop */
#define BAR0 0x10u
#define BAR_IO 0x1u
#define BAR_64 0x4u

static u16 select(u16 bdf, u32 offset)
{
    cpu_out32(CONFIG_ADDRESS, CONFIG_ENABLE | (u32)bdf << 8 | (offset & 0xfc));
    return (u16)(CONFIG_DATA + (offset & 3));
}

u8 pci_read8(u16 bdf, u32 offset)
{
    return cpu_in8(select(bdf, offset));
}

u16 pci_read16(u16 bdf, u32 offset)
{
    return cpu_in16(select(bdf, offset));
}

u32 pci_read32(u16 bdf, u32 offset)
{
    return cpu_in32(select(bdf, offset));
}

void pci_write16(u16 bdf, u32 offset, u16 value)
{
    cpu_out16(select(bdf, offset), value);
}

static bool scan_bus(u8 bus, bool (*visit)(const struct pci_device *, void *), void *context)
{
    for (u32 slot = 0; slot < 256; slot++) {
        u16 bdf = (u16)(bus << 8 | slot);
        u32 id = pci_read32(bdf, 0);
        if ((id & 0xffff) == 0xffff) {
            if (slot % 8 == 0)
                slot += 7; /* without function 0 there are no others */
            continue;
        }
        u8 header = pci_read8(bdf, HEADER_TYPE);
        struct pci_device device = {bdf, (u16)id, (u16)(id >> 16)};
        if (visit(&device, context))
            return true;
        if ((header & 0x7f) == HEADER_BRIDGE) {
            u8 below = pci_read8(bdf, SECONDARY_BUS);
            /* Only upwards, so that a wrong bus number cannot make the walk go round. */
            if (below > bus && scan_bus(below, visit, context))
                return true;
        }
        if (slot % 8 == 0 && (header & HEADER_MULTIFUNCTION) == 0)
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
    if ((pci_read16(bdf, STATUS) & STATUS_CAPABILITIES) == 0)
        return 0;
    u8 at = pci_read8(bdf, after == 0 ? CAPABILITIES : after + 1u) & 0xfc;
    for (u32 i = 0; at >= 0x40 && i < MAX_CAPABILITIES; i++) {
        if (pci_read8(bdf, at) == id)
            return at;
        at = pci_read8(bdf, at + 1u) & 0xfc;
    }
    return 0;
}

struct pci_bar pci_read_bar(u16 bdf, u32 index)
{
    u32 low = pci_read32(bdf, BAR0 + 4 * index);

    if ((low & BAR_IO) != 0)
        return (struct pci_bar){low & 0xfffc, true};
    u64 base = low & 0xfffffff0u;
    if ((low & BAR_64) != 0 && index < 5)
        base |= (u64)pci_read32(bdf, BAR0 + 4 * index + 4) << 32;
    return (struct pci_bar){base, false};
}
