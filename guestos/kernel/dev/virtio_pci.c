#include "guestos/kernel/dev/virtio_pci.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/arch/paging.h"
#include "guestos/kernel/dev/console.h"
#include "shared/x86/apic.h"
#include "shared/x86/io.h"

#define RESET_TIMEOUT_US 10000000u

u32 virtio_read(const struct virtio_region *region, u32 offset, u32 width)
{
    u64 at = region->base + offset;

    return region->io ? io_in((u16)at, width) : mmio_read((volatile void *)at, width);
}

void virtio_write(const struct virtio_region *region, u32 offset, u32 width, u32 value)
{
    u64 at = region->base + offset;

    if (region->io)
        io_out((u16)at, width, value);
    else
        mmio_write((volatile void *)at, width, value);
}

/*
 * The region of capability `type`. A device may show the same registers twice, in memory and in ports; ports are taken
 * then: a port access tells a hypervisor all it needs, a memory access has to be decoded first (4.1.4.1 leaves the
 * choice to the driver).
 */
static u8 find_region(u16 bdf, u8 type, struct virtio_region *region)
{
    u8 chosen = 0;

    for (u8 cap = 0; (cap = pci_find_capability(bdf, PCI_CAP_VENDOR, cap)) != 0;) {
        if (pci_read8(bdf, cap + offsetof(struct virtio_pci_cap, cfg_type)) != type)
            continue;
        u8 index = pci_read8(bdf, cap + offsetof(struct virtio_pci_cap, bar));
        if (index > 5)
            continue; /* reserved values are to be ignored (4.1.4.1) */
        struct pci_bar bar = pci_read_bar(bdf, index);
        if (bar.base == 0 || (chosen != 0 && (region->io || !bar.io)))
            continue;
        region->io = bar.io;
        region->base = bar.base + pci_read32(bdf, cap + offsetof(struct virtio_pci_cap, offset));
        region->length = pci_read32(bdf, cap + offsetof(struct virtio_pci_cap, length));
        chosen = cap;
    }
    return chosen;
}

static void map_region(struct virtio_region *region)
{
    if (!region->io && region->length != 0)
        paging_map_device(region->base, region->length);
}

static status_t enable_msix(struct virtio_device *device)
{
    u8 cap = pci_find_capability(device->bdf, PCI_CAP_MSIX, 0);

    if (cap == 0)
        return ERR_UNSUPPORTED;
    u16 control = pci_read16(device->bdf, cap + MSIX_CONTROL);
    u32 table = pci_read32(device->bdf, cap + MSIX_TABLE);
    device->msix_vectors = (u16)((control & MSIX_SIZE) + 1);
    if ((table & 7) > 5)
        return ERR_FORMAT;
    struct pci_bar bar = pci_read_bar(device->bdf, table & 7);
    if (bar.io || bar.base == 0)
        return ERR_FORMAT;
    device->msix_table = paging_map_device(bar.base + (table & ~7u), MSIX_TABLE_SIZE(device->msix_vectors));
    pci_write16(device->bdf, cap + MSIX_CONTROL, (u16)((control & ~MSIX_MASK_ALL) | MSIX_ENABLE));
    return OK;
}

static status_t open_device(struct virtio_device *device)
{
    u8 notify = find_region(device->bdf, VIRTIO_PCI_CAP_NOTIFY, &device->notify);

    if (notify == 0 || find_region(device->bdf, VIRTIO_PCI_CAP_COMMON, &device->common) == 0 ||
        find_region(device->bdf, VIRTIO_PCI_CAP_ISR, &device->isr) == 0 || device->common.length < 56)
        return ERR_FORMAT;
    if (find_region(device->bdf, VIRTIO_PCI_CAP_DEVICE, &device->config) == 0)
        device->config.length = 0;
    /* 4.1.4.4: the multiplier follows the capability. */
    device->notify_multiplier = pci_read32(device->bdf, notify + sizeof(struct virtio_pci_cap));
    map_region(&device->common);
    map_region(&device->notify);
    map_region(&device->isr);
    map_region(&device->config);
    u16 command = pci_read16(device->bdf, PCI_COMMAND);
    command |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE;
    pci_write16(device->bdf, PCI_COMMAND, command);
    return enable_msix(device);
}

struct search {
    u16 type;
    u32 wanted, seen; /* the number of the one that is looked for; how many there were before it */
    u16 bdf;
};

static bool is_wanted(const struct pci_device *candidate, void *context)
{
    struct search *search = context;

    if (candidate->vendor != VIRTIO_PCI_VENDOR || candidate->device != VIRTIO_PCI_DEVICE_BASE + search->type)
        return false;
    search->bdf = candidate->bdf;
    return search->seen++ == search->wanted;
}

status_t virtio_find(u16 type, u32 index, struct virtio_device *device)
{
    struct search search = {.type = type, .wanted = index};

    if (!pci_scan(is_wanted, &search))
        return ERR_NOT_FOUND;
    *device = (struct virtio_device){.bdf = search.bdf};
    return open_device(device);
}

u32 virtio_count(u16 type)
{
    struct search search = {.type = type, .wanted = ~0u};

    (void)pci_scan(is_wanted, &search);
    return search.seen;
}

status_t virtio_reset(const struct virtio_device *device)
{
    u64 deadline = clock_us() + RESET_TIMEOUT_US;

    VIRTIO_COMMON_WRITE(device, device_status, 0);
    while (VIRTIO_COMMON_READ(device, device_status) != 0) {
        if (clock_us() > deadline)
            return ERR_TIMEOUT;
        console_sleep(100);
    }
    return OK;
}

u64 virtio_offered_features(const struct virtio_device *device)
{
    VIRTIO_COMMON_WRITE(device, device_feature_select, 0);
    u64 features = VIRTIO_COMMON_READ(device, device_feature);
    VIRTIO_COMMON_WRITE(device, device_feature_select, 1);
    return features | (u64)VIRTIO_COMMON_READ(device, device_feature) << 32;
}

status_t virtio_negotiate(const struct virtio_device *device, u64 wanted, u64 *accepted)
{
    u32 status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

    VIRTIO_COMMON_WRITE(device, device_status, VIRTIO_STATUS_ACKNOWLEDGE);
    VIRTIO_COMMON_WRITE(device, device_status, status);
    *accepted = virtio_offered_features(device) & wanted;
    if ((*accepted & VIRTIO_F_VERSION_1) == 0)
        return ERR_UNSUPPORTED;
    VIRTIO_COMMON_WRITE(device, driver_feature_select, 0);
    VIRTIO_COMMON_WRITE(device, driver_feature, (u32)*accepted);
    VIRTIO_COMMON_WRITE(device, driver_feature_select, 1);
    VIRTIO_COMMON_WRITE(device, driver_feature, (u32)(*accepted >> 32));
    VIRTIO_COMMON_WRITE(device, device_status, status | VIRTIO_STATUS_FEATURES_OK);
    if ((VIRTIO_COMMON_READ(device, device_status) & VIRTIO_STATUS_FEATURES_OK) == 0)
        return ERR_UNSUPPORTED;
    return OK;
}

void virtio_set_msix(const struct virtio_device *device, u16 entry, u8 vector)
{
    volatile u32 *at = (volatile u32 *)(device->msix_table + (u64)entry * 16);

    /* Masked while it changes (PCI 3.0, 6.8.2.9: address, data, then the mask bit of vector control). */
    at[3] = MSIX_ENTRY_MASKED;
    at[0] = (u32)msi_address((u8)lapic_id());
    at[1] = 0;
    at[2] = vector;
    at[3] = 0;
}

static void write_address(const struct virtio_device *device, u32 offset, u64 address)
{
    /* 4.1.3.1: 64-bit fields are written as two 32-bit halves. */
    virtio_write(&device->common, offset, 4, (u32)address);
    virtio_write(&device->common, offset + 4, 4, (u32)(address >> 32));
}

void virtio_enable_queue(const struct virtio_device *device, u64 descriptors, u64 driver, u64 dev)
{
    write_address(device, offsetof(struct virtio_pci_common_cfg, queue_desc), descriptors);
    write_address(device, offsetof(struct virtio_pci_common_cfg, queue_driver), driver);
    write_address(device, offsetof(struct virtio_pci_common_cfg, queue_device), dev);
    VIRTIO_COMMON_WRITE(device, queue_enable, 1);
}

void virtio_notify(const struct virtio_device *device, u16 notify_off, u16 queue)
{
    virtio_write(&device->notify, notify_off * device->notify_multiplier, 2, queue);
}
