/* The one scan of the bus hierarchy: breadth first from the first bus, over the secondary buses of bridges. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"

struct pci_device pci_devices[PCI_MAX_DEVICES];
u32 pci_device_count;
bool pci_devices_left_out;

/* Source validation and no way around the root complex (PCIe 5.0 6.12): a device then is what its requester id says. */
static void enable_access_control(const struct pci_device *bridge)
{
    u32 at = bridge->cap_express ? pci_extended_find(bridge->bdf, PCI_EXTENDED_ACS) : 0;

    if (at && at <= PCI_CONFIG_SIZE - 8)
        pci_write(bridge, at + ACS_CONTROL, 2, pci_read(bridge, at + ACS_CAPABILITY, 2) & ACS_WANTED);
}

static void read_function(struct pci_device *dev, u16 bdf, struct pci_device *bridge)
{
    *dev = (struct pci_device){.bdf = bdf, .bridge = bridge};
    dev->vendor = (u16)pci_read(dev, PCI_VENDOR, 2);
    dev->device = (u16)pci_read(dev, PCI_DEVICE, 2);
    dev->class_code = pci_read(dev, PCI_REVISION, 4) >> 8;
    dev->header_type = pci_read(dev, PCI_HEADER_TYPE, 1) & 0x7f;
    dev->command = (u16)pci_read(dev, PCI_COMMAND, 2);
    if (dev->header_type == 1) {
        dev->secondary_bus = (u8)pci_read(dev, PCI_SECONDARY_BUS, 1);
        dev->command |= PCI_COMMAND_BUS_MASTER; /* else nothing behind it reaches memory */
    } else {
        dev->command &= (u16)~PCI_COMMAND_BUS_MASTER;
    }
    pci_write(dev, PCI_COMMAND, 2, dev->command);
    if (dev->header_type <= 1)
        pci_bars_read(dev);
}

static void scan_bus(u8 bus, struct pci_device *bridge)
{
    u32 functions = 0;

    for (u32 devfn = 0; devfn < 256; devfn++) {
        u16 bdf = (u16)(bus << 8 | devfn);
        if ((devfn & 7) == 0)
            functions = 1;
        else if ((devfn & 7) >= functions)
            continue;
        if (pci_config_read(bdf, PCI_VENDOR, 2) == 0xffff)
            continue;
        if ((devfn & 7) == 0 && (pci_config_read(bdf, PCI_HEADER_TYPE, 1) & PCI_HEADER_MULTIFUNCTION))
            functions = 8;
        if (pci_device_count < PCI_MAX_DEVICES) {
            read_function(&pci_devices[pci_device_count++], bdf, bridge);
            continue;
        }
        hv_log("pci %02x:%02x.%x: more than %u devices: left out", bus, devfn >> 3, devfn & 7, PCI_MAX_DEVICES);
        pci_devices_left_out = true;
        pci_config_write(bdf, PCI_COMMAND, 2, pci_config_read(bdf, PCI_COMMAND, 2) & ~PCI_COMMAND_BUS_MASTER);
    }
}

status_t pci_enumerate(hpa_t ecam, u8 first_bus, u8 last_bus, const struct boot_memory *map, u32 map_count)
{
    u64 scanned[4] = {0};

    if (first_bus > last_bus)
        return ERR_RANGE;
    pci_device_count = 0;
    pci_devices_left_out = false;
    pci_config_map_bus(ecam, first_bus);
    scanned[first_bus / 64] |= 1ull << first_bus % 64;
    scan_bus(first_bus, NULL);

    /* The table is the work list: a bridge's bus is appended behind it. Each bus once, so that it ends whatever bridges
     * say. */
    for (u32 i = 0; i < pci_device_count; i++) {
        struct pci_device *dev = &pci_devices[i];
        u8 bus = dev->secondary_bus;
        if (dev->header_type != 1 || bus == 0) /* 0: firmware found nothing behind it */
            continue;
        if (bus <= first_bus || bus > last_bus || (scanned[bus / 64] >> bus % 64 & 1)) {
            hv_log("pci %02x:%02x.%x: bridge to bus %u, which is taken or not in MCFG: left out", dev->bdf >> 8,
                   dev->bdf >> 3 & 31, dev->bdf & 7, bus);
            pci_devices_left_out = true;
            continue;
        }
        scanned[bus / 64] |= 1ull << bus % 64;
        pci_config_map_bus(ecam, bus);
        scan_bus(bus, dev);
    }

    pci_bars_check(HPA(ecam.v + (u64)first_bus * MIB(1)), (last_bus - first_bus + 1) * MIB(1), map, map_count);
    for (u32 i = 0; i < pci_device_count; i++) {
        pci_capabilities_read(&pci_devices[i]);
        pci_message_restore(&pci_devices[i]); /* firmware may have left one on */
        if (pci_devices[i].header_type == 1)
            enable_access_control(&pci_devices[i]);
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
