/* Base address registers: size, and which of them may be given to a driver VM. */
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"
#include "shared/lib/checked.h"

/* Interrupt controllers, IOMMU and firmware of every PC live here; a device's BAR among them would be a hole in the
 * wall. */
#define CHIPSET_BASE 0xfec00000ull
#define CHIPSET_SIZE (GIB(4) - CHIPSET_BASE)
#define LEGACY_PORTS 0x400u /* ISA devices: UARTs, PIC, PIT */
#define CONFIG_PORTS 0xcf8u /* PCI configuration and reset control */

/* What the register answers when ones are written: zeros where the device decodes. Restored at once. */
static u32 probe(const struct pci_device *dev, u32 index)
{
    u32 offset = PCI_BAR0 + index * 4;

    pci_write(dev, offset, 4, ~0u);
    u32 mask = pci_read(dev, offset, 4);
    pci_write(dev, offset, 4, dev->bar_raw[index]);
    return mask;
}

static struct pci_bar read_bar(const struct pci_device *dev, u32 index, bool wide)
{
    bool memory = !(dev->bar_raw[index] & PCI_BAR_PORT);
    u32 flags = memory ? 0xf : 3;
    u64 address = dev->bar_raw[index] & ~flags, mask = probe(dev, index) & ~flags;

    if (wide) {
        address |= (u64)dev->bar_raw[index + 1] << 32;
        mask |= (u64)probe(dev, index + 1) << 32;
    } else if (mask) {
        mask |= ~0ull << (memory ? 32 : 16); /* of ports the upper half may be hard-wired to zero */
    }
    u64 size = 0 - mask;
    return (struct pci_bar){.address = address, .size = address && !(size & (size - 1)) ? size : 0, .memory = memory};
}

void pci_bars_read(struct pci_device *dev)
{
    u32 count = dev->header_type == 0 ? ARRAY_SIZE(dev->bar) : 2;

    /* A host bridge's decoding is the way to memory: not switched off. */
    if (dev->header_type > 1 || dev->class_code >> 8 == PCI_CLASS_HOST_BRIDGE)
        return;
    pci_write(dev, PCI_COMMAND, 2, dev->command & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
    for (u32 i = 0; i < count; i++)
        dev->bar_raw[i] = pci_read(dev, PCI_BAR0 + i * 4, 4);
    for (u32 i = 0; i < count; i++) {
        bool wide = (dev->bar_raw[i] & PCI_BAR_TYPE_MASK) == PCI_BAR_WIDE;
        if (wide && i + 1 == count) /* no register left for the upper half: not a BAR */
            break;
        dev->bar[i] = read_bar(dev, i, wide);
        i += wide;
    }
    if (dev->header_type == 0)
        pci_ide_bars(dev);
    pci_write(dev, PCI_COMMAND, 2, dev->command);
}

/* Why the BAR cannot be given away, looking at it alone; NULL: it can. */
static const char *bar_flaw(const struct pci_bar *bar, hpa_t ecam, u64 ecam_size, const struct boot_memory *map,
                            u32 map_count)
{
    u64 end;

    if (!bar->memory) {
        if (bar->fixed)
            return NULL;
        if (bar->address + bar->size > 0x10000 || bar->address < LEGACY_PORTS)
            return "is not in the range of PCI ports";
        return ranges_overlap(bar->address, bar->size, CONFIG_PORTS, 8) ? "covers the configuration ports" : NULL;
    }
    if (!add_u64(bar->address, bar->size, &end) || bar->address & (bar->size - 1))
        return "is not aligned to its size";
    if (end > paging_physical_end()) /* a page table would take the bits above for others */
        return "is beyond what the CPU reaches";
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

/*
 * Does another BAR overlap? Memory is handed out in pages, so that two devices in one page are as bad; one device may
 * share a page with itself.
 */
static bool collides(const struct pci_device *dev, const struct pci_bar *bar)
{
    for (u32 d = 0; d < pci_device_count; d++)
        for (u32 i = 0; i < ARRAY_SIZE(dev->bar); i++) {
            const struct pci_bar *other = &pci_devices[d].bar[i];
            u64 round = bar->memory && dev != &pci_devices[d] ? PAGE_MASK : 0;
            if (other != bar && other->size && other->memory == bar->memory &&
                ranges_overlap(bar->address & ~round, (bar->size + round) & ~round, other->address & ~round,
                               (other->size + round) & ~round))
                return true;
        }
    return false;
}

void pci_bars_check(hpa_t ecam, u64 ecam_size, const struct boot_memory *map, u32 map_count)
{
    static bool refuse[PCI_MAX_DEVICES][ARRAY_SIZE(pci_devices[0].bar)];

    /* Judge all first, then strike out: both sides of a collision go. */
    for (u32 d = 0; d < pci_device_count; d++) {
        const struct pci_device *dev = &pci_devices[d];
        for (u32 i = 0; i < ARRAY_SIZE(dev->bar); i++) {
            const struct pci_bar *bar = &dev->bar[i];
            const char *flaw = bar->size ? bar_flaw(bar, ecam, ecam_size, map, map_count) : NULL;
            if (bar->size && !flaw && collides(dev, bar))
                flaw = "overlaps another BAR's pages";
            refuse[d][i] = flaw != NULL;
            if (flaw)
                hv_log("pci " BDF_FORMAT ": BAR %u at 0x%lx %s: not used", BDF_PARTS(dev->bdf), i, bar->address, flaw);
        }
    }
    for (u32 d = 0; d < pci_device_count; d++)
        for (u32 i = 0; i < ARRAY_SIZE(pci_devices[d].bar); i++)
            if (refuse[d][i])
                pci_devices[d].bar[i].size = 0;
}
