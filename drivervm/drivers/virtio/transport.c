/*
 * VirtIO over PCI (VirtIO 1.2 4.1): capabilities, status, features, configuration, queues. The driver may write
 * nothing in configuration space but the command register, which suits: all of it is in BARs. Of MSI-X there is entry
 * 0, whose table only the hypervisor reaches; everything that the device has to say goes there.
 */
#include "drivervm/drivers/virtio/virtio.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define TRANSITIONAL_FIRST 0x1000u /* 4.1.2.1 */
#define CAPABILITIES_MOST 48u      /* as many fit behind the header */
#define RESET_US 500000u
#define GENERATION_TRIES 100u
#define MSIX_ENTRY 0u
#define GONE 0xffu /* of a register of 8 bits, when nobody answers any more */

/* 6.1: a driver should accept it where it is offered; our fences order for devices, too. */
#define FEATURE_ORDER_PLATFORM (1ull << 36)
#define FEATURES_REQUIRED (VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM)
#define FEATURES_TRANSPORT (FEATURES_REQUIRED | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | FEATURE_ORDER_PLATFORM)

#define FIELD(name)                                                                                                    \
    (u32) offsetof(struct virtio_pci_common_cfg, name), (u32)sizeof(((struct virtio_pci_common_cfg *)0)->name)

static struct {
    const char *name;
    struct virtio_area common, notify, isr, config;
    u32 notify_multiplier;
    u32 status;
    u64 features;
    bool msix;
} device;

static u32 common_read(u32 offset, u32 width)
{
    return virtio_read(&device.common, offset, width);
}

static void common_write(u32 offset, u32 width, u32 value)
{
    virtio_write(&device.common, offset, width, value);
}

/* 4.1.3.1: 64 bits are two fields of 32. */
static void common_write64(u32 offset, u32 width, u64 value)
{
    common_write(offset, width / 2, (u32)value);
    common_write(offset + width / 2, width / 2, (u32)(value >> 32));
}

/* ---- capabilities (4.1.4) ---- */

/* The place for a structure, how long it is at least and what its offset is a multiple of; NULL: not of interest. */
static struct virtio_area *area_of(u32 type, u32 *least, u32 *multiple)
{
    *multiple = 4;
    *least = 4;
    switch (type) {
    case VIRTIO_PCI_CAP_COMMON:
        *least = offsetof(struct virtio_pci_common_cfg, queue_notify_data); /* what follows came later */
        return &device.common;
    case VIRTIO_PCI_CAP_NOTIFY:
        *least = *multiple = 2;
        return &device.notify;
    case VIRTIO_PCI_CAP_ISR:
        *least = *multiple = 1;
        return &device.isr;
    case VIRTIO_PCI_CAP_DEVICE:
        return &device.config;
    default:
        return NULL;
    }
}

/*
 * 4.1.4.1: the first of each type that we can use counts, and reserved values are ignored. Whether it lies where only
 * the hypervisor may look, our page tables know.
 */
static status_t take_capability(u32 at)
{
    struct virtio_pci_cap cap;
    u32 words[5] = {0};
    u32 least, multiple;
    status_t status = OK;

    for (u32 i = 0; i < sizeof(cap) / sizeof(u32) && status == OK; i++)
        status = pci_read(at + i * (u32)sizeof(u32), sizeof(u32), &words[i]);
    memcpy(&cap, words, sizeof(cap));
    struct virtio_area *area = area_of(cap.cfg_type, &least, &multiple);
    if (status != OK || !area || area->length != 0 || cap.cap_len < sizeof(cap) ||
        cap.bar >= ARRAY_SIZE(driver_info->bar))
        return status;
    const struct driver_bar *bar = &driver_info->bar[cap.bar];
    if (bar->kind == DRIVER_BAR_NONE || cap.length < least || cap.offset % multiple != 0 ||
        !range_inside(cap.offset, cap.length, 0, bar->size))
        return OK;
    if (area == &device.notify)
        status = pci_read(at + sizeof(cap), sizeof(u32), &device.notify_multiplier); /* 4.1.4.4 */
    *area = (struct virtio_area){
        .address = bar->address + cap.offset, .length = cap.length, .ports = bar->kind == DRIVER_BAR_PORTS};
    return status;
}

static status_t take_msix(u32 at)
{
    u32 control = 0;
    status_t status = pci_read(at + MSIX_CONTROL, 2, &control);

    device.msix = control & MSIX_ENABLE;
    return status;
}

static status_t find_areas(void)
{
    u32 at = 0, header = 0;
    status_t status = pci_read(PCI_CAPABILITIES, 1, &at);

    for (u32 n = 0; n < CAPABILITIES_MOST && status == OK && (at &= ~3u) >= PCI_HEADER_SIZE; n++) {
        status = pci_read(at, 2, &header);
        if (status == OK && (header & 0xff) == PCI_CAP_VENDOR)
            status = take_capability(at);
        else if (status == OK && (header & 0xff) == PCI_CAP_MSIX)
            status = take_msix(at);
        at = header >> 8;
    }
    if (status != OK)
        return status;
    return device.common.length && device.notify.length && device.isr.length && device.config.length ? OK
                                                                                                     : ERR_NOT_FOUND;
}

status_t virtio_open(const char *name, u32 type)
{
    memset(&device, 0, sizeof(device));
    device.name = name;
    if (driver_info->pci_vendor != VIRTIO_PCI_VENDOR || driver_info->pci_device != VIRTIO_PCI_DEVICE_BASE + type) {
        log_line("%s: %04x:%04x is not a modern device of type %u%s", name, driver_info->pci_vendor,
                 driver_info->pci_device, type,
                 driver_info->pci_device < VIRTIO_PCI_DEVICE_BASE && driver_info->pci_device >= TRANSITIONAL_FIRST
                     ? " but one with a legacy interface"
                     : "");
        return ERR_UNSUPPORTED;
    }
    status_t status = find_areas();
    if (status != OK)
        return status;
    bool ports = device.common.ports || device.notify.ports || device.isr.ports || device.config.ports;
    if (ports)
        log_line("%s: registers among ports:%s%s%s%s", name, device.common.ports ? " common" : "",
                 device.notify.ports ? " notify" : "", device.isr.ports ? " isr" : "",
                 device.config.ports ? " config" : "");
    return pci_command(PCI_COMMAND_MEMORY | (ports ? PCI_COMMAND_IO : 0) | (device.msix ? PCI_COMMAND_INTX_DISABLE : 0),
                       PCI_COMMAND_MASTER | (device.msix ? 0 : PCI_COMMAND_INTX_DISABLE));
}

/* ---- status and features (3.1.1) ---- */

static void add_status(u32 bits)
{
    device.status |= bits;
    common_write(FIELD(device_status), device.status);
}

/* 4.1.4.3.1: the reset is done when the device says so. */
static status_t device_reset(void)
{
    device.status = 0;
    common_write(FIELD(device_status), 0);
    for (struct device_wait wait = device_wait_begin(RESET_US); common_read(FIELD(device_status)) != 0;)
        if (!device_wait_more(&wait))
            return ERR_TIMEOUT;
    return OK;
}

static u64 features_offered(void)
{
    common_write(FIELD(device_feature_select), 0);
    u64 low = common_read(FIELD(device_feature));
    common_write(FIELD(device_feature_select), 1);
    return low | (u64)common_read(FIELD(device_feature)) << 32;
}

static void features_accept(u64 features)
{
    common_write(FIELD(driver_feature_select), 0);
    common_write(FIELD(driver_feature), (u32)features);
    common_write(FIELD(driver_feature_select), 1);
    common_write(FIELD(driver_feature), (u32)(features >> 32));
}

/* One that goes without ACCESS_PLATFORM uses addresses as its host does, past the IOMMU that holds it. */
static status_t check_offer(u64 offered)
{
    if ((offered & FEATURES_REQUIRED) == FEATURES_REQUIRED)
        return OK;
    log_line("%s: the device does not offer %s", device.name,
             offered & VIRTIO_F_VERSION_1 ? "ACCESS_PLATFORM: its DMA would bypass the IOMMU" : "VERSION_1");
    add_status(VIRTIO_STATUS_FAILED);
    return ERR_UNSUPPORTED;
}

status_t virtio_negotiate(u64 wanted)
{
    status_t status = pci_command(0, PCI_COMMAND_MASTER);

    if (status == OK)
        status = device_reset();
    if (status == OK)
        status = pci_command(PCI_COMMAND_MASTER, 0);
    if (status != OK)
        return status;
    add_status(VIRTIO_STATUS_ACKNOWLEDGE);
    add_status(VIRTIO_STATUS_DRIVER);
    u64 offered = features_offered();
    status = check_offer(offered);
    if (status != OK)
        return status;
    device.features = offered & (wanted | FEATURES_TRANSPORT);
    features_accept(device.features);
    add_status(VIRTIO_STATUS_FEATURES_OK);
    if (common_read(FIELD(device_status)) == device.status)
        return OK;
    log_line("%s: the device refuses the features %llx", device.name, (unsigned long long)device.features);
    return ERR_UNSUPPORTED;
}

bool virtio_has(u64 feature)
{
    return device.features & feature;
}

void virtio_go(void)
{
    if (!device.msix || !driver_info->interrupts) {
        add_status(VIRTIO_STATUS_DRIVER_OK);
        return;
    }
    /* 4.1.5.1.2: what has changed is worth less than what is done; without a vector we look less often. */
    common_write(FIELD(config_msix_vector), MSIX_ENTRY);
    if (common_read(FIELD(config_msix_vector)) != MSIX_ENTRY)
        log_line("%s: no interrupt for changes of the configuration", device.name);
    add_status(VIRTIO_STATUS_DRIVER_OK);
}

void virtio_acknowledge(void)
{
    if (!device.msix && driver_info->interrupts)
        (void)virtio_read(&device.isr, 0, 1); /* 4.1.4.5: reading it is what takes the line back */
}

void virtio_check(void)
{
    u32 status = common_read(FIELD(device_status));

    if (status == device.status)
        return;
    log_line("%s: the device %s, status %02x", device.name,
             status == GONE                       ? "is gone"
             : status & VIRTIO_STATUS_NEEDS_RESET ? "needs a reset"
                                                  : "has lost its state",
             status);
    driver_fault(DRIVER_FAULT_DEVICE, status);
}

/* ---- configuration (2.5) ---- */

u32 virtio_config_field(u32 offset, u32 width)
{
    return range_inside(offset, width, 0, device.config.length) ? virtio_read(&device.config, offset, width) : 0;
}

static void copy_config(u8 *out, const u8 *width, u32 fields)
{
    for (u32 i = 0, offset = 0; i < fields; i++) {
        for (u32 end = offset + width[i], part = width[i] < 4 ? width[i] : 4; offset < end; offset += part) {
            u32 value = virtio_config_field(offset, part);
            memcpy(out + offset, &value, part);
        }
    }
}

status_t virtio_config(void *out, const u8 *width, u32 fields)
{
    for (u32 tries = 0; tries < GENERATION_TRIES; tries++) {
        u32 generation = common_read(FIELD(config_generation));
        copy_config(out, width, fields);
        if (common_read(FIELD(config_generation)) == generation)
            return OK;
    }
    return ERR_BUSY;
}

/* ---- queues (4.1.5.1.3) ---- */

u32 virtio_queue_size(u32 index)
{
    if (index >= common_read(FIELD(num_queues)))
        return 0;
    common_write(FIELD(queue_select), index);
    return common_read(FIELD(queue_size));
}

status_t virtio_queue_enable(struct virtq *q)
{
    u64 at = (u64)common_read(FIELD(queue_notify_off)) * device.notify_multiplier;

    if (at % 2 != 0 || !range_inside(at, 2, 0, device.notify.length)) /* 4.1.4.4.1 */
        return ERR_RANGE;
    q->notify = (struct virtio_area){.address = device.notify.address + at, .length = 2, .ports = device.notify.ports};
    common_write(FIELD(queue_size), q->size);
    common_write64(FIELD(queue_desc), dma_address((u64)q->memory->desc));
    common_write64(FIELD(queue_driver), dma_address((u64)&q->memory->avail));
    common_write64(FIELD(queue_device), dma_address((u64)&q->memory->used));
    if (device.msix && !q->silent) {
        common_write(FIELD(queue_msix_vector), MSIX_ENTRY);
        if (common_read(FIELD(queue_msix_vector)) != MSIX_ENTRY) /* 4.1.5.1.2.2 */
            return ERR_NO_SPACE;
    }
    common_write(FIELD(queue_enable), 1);
    return OK;
}
