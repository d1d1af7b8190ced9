/* Base address registers: size, and which of them may be given to a driver VM. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"
#include "shared/lib/checked.h"

/* Interrupt controllers, IOMMU and firmware of every PC live here; a device's BAR among them would be a hole in the
 * wall. */
#define CHIPSET_BASE 0xfec00000ull
#define CHIPSET_SIZE (GIB(4) - CHIPSET_BASE)
#define LEGACY_PORTS 0x400u /* ISA devices: UARTs, PIC, PIT */
#define CONFIG_PORTS 0xcf8u /* PCI configuration and reset control */

static u32 bar_offset(u32 index)
{
    return PCI_BAR0 + index * 4;
}

/* What the register answers when ones are written: zeros where the device decodes. Restored at once. */
static u32 probe(const struct pci_device *dev, u32 index)
{
    pci_write(dev, bar_offset(index), 4, ~0u);
    u32 mask = pci_read(dev, bar_offset(index), 4);
    pci_write(dev, bar_offset(index), 4, dev->bar_raw[index]);
    return mask;
}

static void read_port_bar(const struct pci_device *dev, u32 index, struct pci_bar *bar)
{
    u32 mask = probe(dev, index) & ~3u;

    bar->address = dev->bar_raw[index] & ~3u;
    bar->size = mask ? (0u - mask) & 0xffff : 0; /* the upper half may be hard-wired to zero */
}

static void read_memory_bar(const struct pci_device *dev, u32 index, struct pci_bar *bar)
{
    u32 raw = dev->bar_raw[index];
    u64 mask = probe(dev, index) & ~0xfu;

    bar->memory = true;
    bar->prefetch = raw & PCI_BAR_PREFETCH;
    bar->wide = (raw & PCI_BAR_TYPE_MASK) == PCI_BAR_WIDE;
    bar->address = raw & ~0xfu;
    if (bar->wide) {
        mask |= (u64)probe(dev, index + 1) << 32;
        bar->address |= (u64)dev->bar_raw[index + 1] << 32;
    } else if (mask) {
        mask |= 0xffffffffull << 32;
    }
    bar->size = 0 - mask;
}

void pci_bars_read(struct pci_device *dev)
{
    u32 count = dev->header_type == 1 ? 2 : ARRAY_SIZE(dev->bar);

    if (dev->class_code >> 8 == PCI_CLASS_HOST_BRIDGE) /* its decoding is the way to memory: not switched off */
        return;
    pci_write(dev, PCI_COMMAND, 2, dev->command & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
    for (u32 i = 0; i < count; i++)
        dev->bar_raw[i] = pci_read(dev, bar_offset(i), 4);
    for (u32 i = 0; i < count; i++) {
        struct pci_bar *bar = &dev->bar[i];
        bool wide = (dev->bar_raw[i] & (PCI_BAR_PORT | PCI_BAR_TYPE_MASK)) == PCI_BAR_WIDE;
        if (wide && i + 1 == count) /* no register left for the upper half: not a BAR */
            break;
        if (dev->bar_raw[i] & PCI_BAR_PORT)
            read_port_bar(dev, i, bar);
        else
            read_memory_bar(dev, i, bar);
        if (!bar->address || bar->size & (bar->size - 1))
            bar->size = 0;
        i += wide;
    }
    pci_write(dev, PCI_COMMAND, 2, dev->command);
}

/* Why the BAR cannot be given away, looking at it alone; NULL: it can. */
static const char *bar_flaw(const struct pci_bar *bar, hpa_t ecam, u64 ecam_size, const struct boot_memory *map,
                            u32 map_count)
{
    u64 end;

    if (!bar->memory) {
        if (bar->address + bar->size > 0x10000 || bar->address < LEGACY_PORTS)
            return "is not in the range of PCI ports";
        return ranges_overlap(bar->address, bar->size, CONFIG_PORTS, 8) ? "covers the configuration ports" : NULL;
    }
    if (!add_u64(bar->address, bar->size, &end) || bar->address & (bar->size - 1))
        return "is not aligned to its size";
    if (ranges_overlap(bar->address, bar->size, ecam.v, ecam_size))
        return "covers configuration space";
    if (ranges_overlap(bar->address, bar->size, CHIPSET_BASE, CHIPSET_SIZE))
        return "covers interrupt controllers";
    for (u32 i = 0; i < map_count; i++)
        if (map[i].kind != BOOT_MEMORY_RESERVED &&
            ranges_overlap(PAGE_DOWN(bar->address), PAGE_UP(bar->size), map[i].base, map[i].size))
            return "covers memory";
    return NULL;
}

/* Memory is handed out in pages, so that two devices in one page are as bad as an overlap. One device may share with
 * itself. */
static bool bars_collide(const struct pci_bar *a, const struct pci_bar *b, bool same_device)
{
    if (!a->size || !b->size || a->memory != b->memory)
        return false;
    if (!a->memory || same_device)
        return ranges_overlap(a->address, a->size, b->address, b->size);
    return ranges_overlap(PAGE_DOWN(a->address), PAGE_UP(a->size), PAGE_DOWN(b->address), PAGE_UP(b->size));
}

static bool collides_with_any(u32 device, u32 index)
{
    const struct pci_bar *bar = &pci_devices[device].bar[index];

    for (u32 d = 0; d < pci_device_count; d++)
        for (u32 i = 0; i < ARRAY_SIZE(pci_devices[d].bar); i++)
            if ((d != device || i != index) && bars_collide(bar, &pci_devices[d].bar[i], d == device))
                return true;
    return false;
}

void pci_bars_check(hpa_t ecam, u64 ecam_size, const struct boot_memory *map, u32 map_count)
{
    static bool refuse[PCI_MAX_DEVICES][ARRAY_SIZE(pci_devices[0].bar)];

    /* Judge all first, then strike out: both sides of a collision go. */
    for (u32 d = 0; d < pci_device_count; d++) {
        const struct pci_device *dev = &pci_devices[d];
        for (u32 i = 0; i < ARRAY_SIZE(dev->bar); i++) {
            const char *flaw = dev->bar[i].size ? bar_flaw(&dev->bar[i], ecam, ecam_size, map, map_count) : NULL;
            if (!flaw && collides_with_any(d, i))
                flaw = "overlaps another BAR's pages";
            refuse[d][i] = flaw != NULL;
            if (flaw)
                hv_log("pci %02x:%02x.%x: BAR %u at 0x%llx %s: not used", dev->bdf >> 8, dev->bdf >> 3 & 31,
                       dev->bdf & 7, i, (unsigned long long)dev->bar[i].address, flaw);
        }
    }
    for (u32 d = 0; d < pci_device_count; d++)
        for (u32 i = 0; i < ARRAY_SIZE(pci_devices[d].bar); i++)
            if (refuse[d][i])
                pci_devices[d].bar[i].size = 0;
}
