/*
 * The device as the main guest sees it: VirtIO 1.2 4.1, modern virtio-pci. BAR 0 holds the four register blocks in I/O
 * ports, so that no access needs instruction decoding; BAR 1 the MSI-X table, which PCI wants in memory.
 *
 * A field is accessed with its own width, aligned (4.1.3.1); anything else reads all ones and is dropped when written.
 * PCI's bus-master bit is not looked at: it is the hypervisor that reads and writes the rings.
 */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/platform/platform.h"
#include "hv/relay/internal.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

/* BAR 0, in ports */
#define PORTS 256u
enum { COMMON_OFFSET = 0x00, ISR_OFFSET = 0x40, NOTIFY_OFFSET = 0x44, CONFIG_OFFSET = 0x80 };
#define COMMON_SIZE 56u /* up to queue_device: what lies behind belongs to features that are not offered */
_Static_assert(CONFIG_OFFSET + DRIVER_CONFIG_SIZE <= PORTS, "device configuration fits the BAR");

/* BAR 1, in memory: the MSI-X table from 0 */
#define MEMORY_SIZE 4096u
#define PBA_OFFSET 0x800u
_Static_assert(sizeof(((struct virtio_device *)0)->msix) <= PBA_OFFSET, "table and PBA do not overlap");

/* Configuration space in double words: the header (PCI 3.0 6.1), and our capabilities in the order of their list. */
enum { PCI_IDS, PCI_COMMAND, PCI_CLASS, PCI_BAR0 = 4, PCI_BAR1, PCI_SUBSYSTEM = 11, PCI_LIST = 13, PCI_LINE = 15 };
enum { CAP_COMMON = 16, CAP_NOTIFY = 20, CAP_ISR = 25, CAP_DEVICE = 29, CAP_MSIX = 33 };

#define PCI_COMMAND_IO 1u
#define PCI_COMMAND_MEMORY 2u
#define PCI_STATUS_CAPABILITIES (0x10u << 16)
#define PCI_BAR_IO 1u
#define MSIX_ENABLE (0x8000u << 16) /* in the first word of the capability */
#define MSIX_MASK_ALL (0x4000u << 16)
#define MSIX_MASKED 1u /* in the fourth word of an entry */

#define DEVICE_FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_ACCESS_PLATFORM)

/* struct virtio_pci_cap (4.1.4), for a part of BAR 0 */
#define VIRTIO_CAPABILITY(at, next, length, type, start, size)                                                         \
    [at] = 0x09u | 4 * (next) << 8 | (length) << 16 | (type) << 24, [(at) + 2] = (start), [(at) + 3] = (size)

/* The configuration space as it is for all devices. */
static const u32 config_template[CONFIG_WORDS] = {
    [PCI_IDS] = VIRTIO_PCI_VENDOR | VIRTIO_PCI_DEVICE_BASE << 16, /* + device type */
    [PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_STATUS_CAPABILITIES,
    [PCI_CLASS] = 0xff0001,                           /* "other": no device type is known here; revision 1 (4.1.2.1) */
    [PCI_BAR0] = PLATFORM_BAR_PORTS | PCI_BAR_IO,     /* + slot */
    [PCI_BAR1] = PLATFORM_MMIO_BASE,                  /* + slot */
    [PCI_SUBSYSTEM] = VIRTIO_PCI_VENDOR | 0x40 << 16, /* 4.1.2.1: a modern device's */
    [PCI_LIST] = CAP_COMMON * 4,
    VIRTIO_CAPABILITY(CAP_COMMON, CAP_NOTIFY, 16, VIRTIO_PCI_CAP_COMMON, COMMON_OFFSET, COMMON_SIZE),
    /* notify_off_multiplier, the word behind this one, is 0: all queues share an address, the value names the queue. */
    VIRTIO_CAPABILITY(CAP_NOTIFY, CAP_ISR, 20, VIRTIO_PCI_CAP_NOTIFY, NOTIFY_OFFSET, 4),
    VIRTIO_CAPABILITY(CAP_ISR, CAP_DEVICE, 16, VIRTIO_PCI_CAP_ISR, ISR_OFFSET, 1),
    VIRTIO_CAPABILITY(CAP_DEVICE, CAP_MSIX, 16, VIRTIO_PCI_CAP_DEVICE, CONFIG_OFFSET, DRIVER_CONFIG_SIZE),
    [CAP_MSIX] = 0x11 | (MSIX_ENTRIES - 1) << 16, /* PCI 3.0 6.8.2; the last in the list */
    [CAP_MSIX + 1] = 1,                           /* table: offset 0 in BAR 1 */
    [CAP_MSIX + 2] = PBA_OFFSET | 1,
};

/* What the guest may change of it. Bits of a BAR below its size are fixed: that is how sizing works. */
static const u32 config_writable[CONFIG_WORDS] = {
    [PCI_COMMAND] = 0x0407, /* I/O, memory, bus master, INTx disable */
    [PCI_BAR0] = ~(PORTS - 1), [PCI_BAR1] = ~(MEMORY_SIZE - 1),
    [PCI_LINE] = 0xff,         [CAP_MSIX] = MSIX_ENABLE | MSIX_MASK_ALL,
};

/* ---- interrupts ---- */

static void msix_send(struct relay *relay)
{
    struct virtio_device *device = &relay->device;
    if ((device->config_space[CAP_MSIX] & (MSIX_ENABLE | MSIX_MASK_ALL)) != MSIX_ENABLE)
        return;
    for (u32 vector = 0; vector < MSIX_ENTRIES; vector++) {
        const u32 *entry = device->msix[vector];
        if ((device->msix_pending & 1u << vector) == 0 || (entry[3] & MSIX_MASKED) != 0)
            continue;
        device->msix_pending &= ~(1u << vector);
        relay->stats.interrupts++;
        platform_message(main_guest, (u64)entry[1] << 32 | entry[0], entry[2]);
    }
}

void device_interrupt(struct relay *relay, u16 vector, u8 isr)
{
    if ((relay->device.config_space[CAP_MSIX] & MSIX_ENABLE) == 0) {
        relay->device.isr |= isr; /* there is no INTx line: such a guest polls */
    } else if (vector < MSIX_ENTRIES) {
        relay->device.msix_pending |= 1u << vector;
        msix_send(relay);
    }
}

static void config_interrupt(struct relay *relay)
{
    if ((relay->device.status & VIRTIO_STATUS_DRIVER_OK) != 0)
        device_interrupt(relay, relay->device.config_vector, ISR_CONFIG);
}

/* ---- life of the device ---- */

void device_announce_features(struct relay *relay)
{
    bool accepted = (relay->device.status & VIRTIO_STATUS_FEATURES_OK) != 0 && !relay->device.resetting;
    if (relay->state != RELAY_OPEN)
        return; /* the successor hears of it when it offers */
    struct driver_events *events = hpa_to_ptr(relay->driver->events_page);
    events->features = accepted ? relay->device.features : 0;
    driver_signal(relay->driver, DRIVER_EVENT_FEATURES);
}

/* PCI's part; BARs where firmware would have put them. */
static void pci_reset(struct relay *relay)
{
    struct virtio_device *device = &relay->device;
    u32 slot = relay->owner->id;
    memcpy(device->config_space, config_template, sizeof(config_template));
    device->config_space[PCI_IDS] += relay->offer.virtio_type << 16;
    device->config_space[PCI_BAR0] += slot * PORTS;
    device->config_space[PCI_BAR1] += slot * MEMORY_SIZE;
    memset(device->msix, 0, sizeof(device->msix));
    device->msix_pending = 0;
    for (u32 vector = 0; vector < MSIX_ENTRIES; vector++)
        device->msix[vector][3] = MSIX_MASKED; /* PCI 3.0 6.8.2.9 */
}

/* VirtIO's part */
static void registers_reset(struct relay *relay)
{
    struct virtio_device *device = &relay->device;
    memset(&device->features, 0, sizeof(*device) - offsetof(struct virtio_device, features));
    device->config_vector = VIRTIO_MSI_NO_VECTOR;
    if (relay->driver == NULL)
        control_reset_guest();
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        relay->queue[q].vq = (struct virtqueue){.size = (u16)relay->offer.queue_size, .vector = VIRTIO_MSI_NO_VECTOR};
}

void device_create(struct relay *relay)
{
    struct virtio_device *device = &relay->device;
    device->offered = relay->offer.features | DEVICE_FEATURES;
    device->queues = (u16)relay->offer.queues;
    memcpy(device->device_config, relay->offer.config, relay->offer.config_length);
    pci_reset(relay);
    registers_reset(relay);
}

status_t relay_config(struct relay *relay, const u8 *config, u32 length)
{
    u8 padded[DRIVER_CONFIG_SIZE] = {0};
    if (relay->state != RELAY_OPEN)
        return ERR_STATE;
    if (length > DRIVER_CONFIG_SIZE)
        return ERR_RANGE;
    memcpy(padded, config, length);
    if (memcmp(padded, relay->device.device_config, sizeof(padded)) == 0)
        return OK; /* a restart's usual case: the guest need not know */
    memcpy(relay->device.device_config, padded, sizeof(padded));
    relay->device.generation++;
    config_interrupt(relay);
    return OK;
}

void device_break(struct relay *relay, const char *why)
{
    if ((relay->device.status & VIRTIO_STATUS_NEEDS_RESET) != 0)
        return;
    relay->device.status |= VIRTIO_STATUS_NEEDS_RESET;
    relay->stats.broken++;
    event_add(EVENT_BROKEN_DEVICE, main_guest->id, "device of %s: %s", relay->owner->name, why);
    config_interrupt(relay); /* 2.1.2 */
}

static void device_reset(struct relay *relay)
{
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        struct inflight *log = &relay->queue[q].log;
        relay->queue[q].vq.enabled = false;
        for (u32 i = 0; i < log->count; i++) /* to be given back in time, even the patient ones */
            log->slot[log->order[i]].submitted = tsc_now() - relay->driver->recovery.lost;
    }
    relay->device.resetting = true;
    device_announce_features(relay);
    device_finish_reset(relay);
}

/*
 * The driver may still hold withdrawn requests and its device may still write into their pages, until it completes
 * them, or until a recovery has blocked the device and taken back the grants.
 */
void device_finish_reset(struct relay *relay)
{
    if (!relay->device.resetting)
        return;
    if (relay->state != RELAY_OPEN && relay->grants.count == 0) {
        for (u32 q = 0; q < RING_MAX_QUEUES; q++)
            while (relay->queue[q].log.count != 0)
                inflight_remove(&relay->queue[q].log, relay->queue[q].log.order[0]);
    }
    if (relay_in_flight(relay) != 0)
        return;
    if (relay->driver != NULL)
        grants_revoke_all(relay); /* sticky grants end with the queues */
    relay->device.resetting = false;
    registers_reset(relay);
}

void relay_guest_reset(struct relay *relay)
{
    pci_reset(relay);
    device_reset(relay);
}

/* ---- common configuration (4.1.4.3) ---- */

static struct virtqueue *selected(struct relay *relay)
{
    u16 select = relay->device.queue_select;
    return select < relay->device.queues ? &relay->queue[select].vq : NULL;
}

/* 3.1.1, 2.1.1: bits are only ever added; an illegal step is not taken, which the guest sees when it reads back. */
static void status_write(struct relay *relay, u32 value)
{
    struct virtio_device *device = &relay->device;
    u32 added = value & ~device->status;
    if (value == 0) {
        device_reset(relay);
        return;
    }
    device->status |= added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    if ((added & VIRTIO_STATUS_FEATURES_OK) != 0 && (device->status & VIRTIO_STATUS_DRIVER) != 0 &&
        (device->features & ~device->offered) == 0 && (device->features & VIRTIO_F_VERSION_1) != 0) {
        device->status |= VIRTIO_STATUS_FEATURES_OK;
        device_announce_features(relay);
    }
    if ((added & VIRTIO_STATUS_DRIVER_OK) != 0 && (device->status & VIRTIO_STATUS_FEATURES_OK) != 0) {
        device->status |= VIRTIO_STATUS_DRIVER_OK;
        relay_kick(relay); /* buffers may be available already */
    }
}

enum rule { READ_ONLY, PLAIN, PLAIN_UNLESS_ENABLED, VECTOR, FEATURES, STATUS, ENABLE };

/*
 * What backs each register: a field of the device, or of the selected queue. 64 feature bits are seen through a window
 * of 32, which a field of the device selects.
 */
static const struct common_register {
    u8 offset, width;
    enum rule rule; /* for writing it */
    bool of_queue;
    u16 field, selector; /* offsets in the structure; selector 0: none */
} common_registers[] = {
#define OFFSET(name) offsetof(struct virtio_pci_common_cfg, name)
#define DEVICE(name) .field = offsetof(struct virtio_device, name)
#define SELECTED_BY(name) .selector = offsetof(struct virtio_device, name)
#define QUEUE(name) .of_queue = true, .field = offsetof(struct virtqueue, name)
    {OFFSET(device_feature_select), 4, PLAIN, DEVICE(device_feature_select)},
    {OFFSET(device_feature), 4, READ_ONLY, DEVICE(offered), SELECTED_BY(device_feature_select)},
    {OFFSET(driver_feature_select), 4, PLAIN, DEVICE(driver_feature_select)},
    {OFFSET(driver_feature), 4, FEATURES, DEVICE(features), SELECTED_BY(driver_feature_select)},
    {OFFSET(config_msix_vector), 2, VECTOR, DEVICE(config_vector)},
    {OFFSET(num_queues), 2, READ_ONLY, DEVICE(queues)},
    {OFFSET(device_status), 1, STATUS, DEVICE(status)}, /* until a reset is over the old one, which is not 0 */
    {OFFSET(config_generation), 1, READ_ONLY, DEVICE(generation)},
    {OFFSET(queue_select), 2, PLAIN, DEVICE(queue_select)},
    {OFFSET(queue_size), 2, PLAIN_UNLESS_ENABLED, QUEUE(size)},
    {OFFSET(queue_msix_vector), 2, VECTOR, QUEUE(vector)},
    {OFFSET(queue_enable), 2, ENABLE, QUEUE(enabled)},
    {OFFSET(queue_notify_off), 2, READ_ONLY, QUEUE(notify_off)},
    {OFFSET(queue_desc), 4, PLAIN_UNLESS_ENABLED, QUEUE(desc_gpa)},
    {OFFSET(queue_desc) + 4, 4, PLAIN_UNLESS_ENABLED, QUEUE(desc_gpa) + 4},
    {OFFSET(queue_driver), 4, PLAIN_UNLESS_ENABLED, QUEUE(avail_gpa)},
    {OFFSET(queue_driver) + 4, 4, PLAIN_UNLESS_ENABLED, QUEUE(avail_gpa) + 4},
    {OFFSET(queue_device), 4, PLAIN_UNLESS_ENABLED, QUEUE(used_gpa)},
    {OFFSET(queue_device) + 4, 4, PLAIN_UNLESS_ENABLED, QUEUE(used_gpa) + 4},
};

/* The register of this offset and width, or NULL. *field: what backs it now; NULL: reads 0, not writable. */
static const struct common_register *common_register(struct relay *relay, u32 offset, u32 width, u8 **field)
{
    const struct common_register *reg = common_registers, *end = reg + ARRAY_SIZE(common_registers);
    while (reg != end && (reg->offset != offset || reg->width != width))
        reg++;
    if (reg == end)
        return NULL;
    u8 *base = reg->of_queue ? (u8 *)selected(relay) : (u8 *)&relay->device;
    u32 half = 0;
    if (reg->selector != 0)
        memcpy(&half, base + reg->selector, sizeof(half));
    /* 4.1.4.3.1: a queue_size of 0 says that there is no such queue; feature bits from 64 on are 0. */
    *field = base == NULL || half > 1 ? NULL : base + reg->field + half * sizeof(u32);
    return reg;
}

static void common_write(struct relay *relay, const struct common_register *reg, u8 *field, u32 value)
{
    struct virtio_device *device = &relay->device;
    struct virtqueue *vq = selected(relay); /* of a queue's register: it exists */
    bool accepted = (device->status & VIRTIO_STATUS_FEATURES_OK) != 0;
    if (reg->rule == READ_ONLY || (reg->rule == FEATURES && accepted) ||
        (reg->rule == PLAIN_UNLESS_ENABLED && vq->enabled)) /* 4.1.4.3.2: what it stands on does not move */
        return;
    if (reg->rule == STATUS) {
        status_write(relay, value);
    } else if (reg->rule == ENABLE) {
        if (value == 1 && !vq->enabled && accepted &&
            virtqueue_enable(vq, main_guest, (u16)relay->offer.queue_size, device->features) != OK)
            device_break(relay, "queue of impossible size or place");
    } else {
        if (reg->rule == VECTOR && value >= MSIX_ENTRIES)
            value = VIRTIO_MSI_NO_VECTOR; /* 4.1.5.1.2.1: that is what it reads then */
        memcpy(field, &value, reg->width);
    }
}

/* ---- the guest's accesses ---- */

void relay_pci_config(struct relay *relay, u32 offset, u32 width, bool write, u32 *value)
{
    u32 shift = offset % 4 * 8, *word = &relay->device.config_space[offset / 4], bits = ~0u >> (32 - width * 8);
    if (!write) {
        *value = *word >> shift & bits;
        return;
    }
    bits = config_writable[offset / 4] & bits << shift;
    *word = (*word & ~bits) | (*value << shift & bits);
    msix_send(relay);
}

static u32 port_read(struct relay *relay, u32 offset, u32 width)
{
    struct virtio_device *device = &relay->device;
    u8 *field;
    u32 value = 0;
    if (common_register(relay, offset, width, &field) != NULL) {
        if (field != NULL)
            memcpy(&value, field, width);
    } else if (offset == ISR_OFFSET && width == 1) {
        value = device->isr;
        device->isr = 0; /* 4.1.4.5.1 */
    } else if (offset % width == 0 && range_inside(offset, width, CONFIG_OFFSET, DRIVER_CONFIG_SIZE)) {
        memcpy(&value, device->device_config + (offset - CONFIG_OFFSET), width);
    } else {
        value = ~0u >> (32 - width * 8);
    }
    return value;
}

static void port_write(struct relay *relay, u32 offset, u32 width, u32 value)
{
    u8 *field;
    if (offset == NOTIFY_OFFSET) {
        if (width >= 2 && value < relay->device.queues)
            relay_kick(relay);
        return;
    }
    const struct common_register *reg = common_register(relay, offset, width, &field);
    /* 4.1.4.3.2: while a reset waits nothing is taken; the driver looks until device_status reads 0 */
    if (reg != NULL && field != NULL && !relay->device.resetting)
        common_write(relay, reg, field, value);
}

bool relay_port(struct relay *relay, u16 port, u32 width, bool write, u32 *value)
{
    const u32 *config = relay->device.config_space;
    u32 base = config[PCI_BAR0] & ~(PORTS - 1);
    if ((config[PCI_COMMAND] & PCI_COMMAND_IO) == 0 || !range_inside(port, 1, base, PORTS))
        return false;
    if (write)
        port_write(relay, port - base, width, *value);
    else
        *value = port_read(relay, port - base, width);
    return true;
}

bool relay_memory(struct relay *relay, gpa_t address, u32 width, bool write, u64 *value)
{
    struct virtio_device *device = &relay->device;
    u64 base = device->config_space[PCI_BAR1], offset = address.v - base;
    bool is_table = offset < sizeof(device->msix);
    if ((device->config_space[PCI_COMMAND] & PCI_COMMAND_MEMORY) == 0 || !range_inside(address.v, 1, base, MEMORY_SIZE))
        return false;
    if (!write)
        *value = ~0ull;
    if ((width != 4 && width != 8) || offset % width != 0)
        return true; /* PCI 3.0 6.8.2: double words and quadwords only */
    if (!write) {
        *value = offset == PBA_OFFSET ? device->msix_pending : 0;
        if (is_table)
            memcpy(value, (u8 *)device->msix + offset, width);
    } else if (is_table) {
        memcpy((u8 *)device->msix + offset, value, width);
        device->msix[offset / sizeof(device->msix[0])][3] &= MSIX_MASKED; /* its other bits do not exist */
        msix_send(relay);
    }
    return true;
}
