/* The one scan of the bus hierarchy: breadth first from the first bus, over the secondary buses of bridges. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"

struct pci_device pci_devices[PCI_MAX_DEVICES];
u32 pci_device_count;
bool pci_devices_left_out;

static void read_function(struct pci_device *dev)
{
    dev->vendor = (u16)pci_read(dev, PCI_VENDOR, 2);
    dev->device = (u16)pci_read(dev, PCI_DEVICE, 2);
    dev->class_code = pci_read(dev, PCI_REVISION, 4) >> 8;
    dev->header_type = pci_read(dev, PCI_HEADER_TYPE, 1) & 0x7f;
    /* Nobody's device may hold a line that it shares with somebody's. */
    dev->command = (u16)((pci_read(dev, PCI_COMMAND, 2) & ~PCI_COMMAND_MASTER) | PCI_COMMAND_INTX_DISABLE);
    if (dev->header_type == 1) {
        dev->secondary_bus = (u8)pci_read(dev, PCI_SECONDARY_BUS, 1);
        dev->command |= PCI_COMMAND_MASTER; /* else nothing behind it reaches memory */
    }
    pci_write(dev, PCI_COMMAND, 2, dev->command);
    pci_bars_read(dev);
}

static void scan_bus(hpa_t ecam, u8 bus, struct pci_device *bridge)
{
    bool multifunction = false;

    pci_map_bus(ecam, bus);
    for (u32 devfn = 0; devfn < 256; devfn++) {
        const struct pci_device found = {.bdf = (u16)(bus << 8 | devfn), .bridge = bridge};
        bool first = (devfn & 7) == 0;
        if (!first && !multifunction)
            continue;
        bool absent = pci_read(&found, PCI_VENDOR, 2) == 0xffff;
        if (first)
            multifunction = !absent && (pci_read(&found, PCI_HEADER_TYPE, 1) & PCI_HEADER_MULTIFUNCTION);
        if (absent)
            continue;
        if (pci_device_count < PCI_MAX_DEVICES) {
            pci_devices[pci_device_count] = found;
            read_function(&pci_devices[pci_device_count++]);
            continue;
        }
        hv_log("pci " BDF_FORMAT ": more than %u devices: left out", BDF_PARTS(found.bdf), PCI_MAX_DEVICES);
        pci_devices_left_out = true;
        pci_update(&found, PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_INTX_DISABLE);
    }
}

status_t pci_enumerate(hpa_t ecam, u8 first_bus, u8 last_bus, const struct boot_memory *map, u32 map_count)
{
    bool scanned[256] = {false};

    if (first_bus > last_bus)
        return ERR_RANGE;
    pci_device_count = 0;
    pci_devices_left_out = false;
    scan_bus(ecam, first_bus, NULL);

    /* The table is the work list: a bridge's bus is appended behind it. Each bus once, so that it ends whatever bridges
     * say. */
    for (u32 i = 0; i < pci_device_count; i++) {
        struct pci_device *dev = &pci_devices[i];
        u8 bus = dev->secondary_bus;
        if (bus == 0) /* no bridge, or firmware found nothing behind it */
            continue;
        if (bus <= first_bus || bus > last_bus || scanned[bus]) {
            hv_log("pci " BDF_FORMAT ": bridge to bus %u, which is taken or out of reach: left out",
                   BDF_PARTS(dev->bdf), bus);
            pci_devices_left_out = true;
            continue;
        }
        scanned[bus] = true;
        scan_bus(ecam, bus, dev);
    }

    u64 window = ecam.v ? (last_bus - first_bus + 1) * MIB(1) : 0;
    pci_bars_check(HPA(ecam.v + first_bus * MIB(1)), window, map, map_count);
    for (u32 i = 0; i < pci_device_count; i++) {
        pci_capabilities_read(&pci_devices[i]);
        pci_devices[i].past_iommu = pci_virtio_is_past_iommu(&pci_devices[i]);
        pci_message_restore(&pci_devices[i]); /* firmware may have left one on */
    }
    return pci_device_count ? OK : ERR_NOT_FOUND;
}

struct pci_device *pci_find_address(u16 bdf)
{
    for (u32 i = 0; i < pci_device_count; i++)
        if (pci_devices[i].bdf == bdf)
            return &pci_devices[i];
    return NULL;
}

struct pci_device *pci_find_class(u32 class_code, u32 class_mask)
{
    for (u32 i = 0; i < pci_device_count; i++) {
        struct pci_device *dev = &pci_devices[i];
        if (!dev->assigned && dev->header_type == 0 && (dev->class_code & class_mask) == (class_code & class_mask))
            return dev;
    }
    return NULL;
}
