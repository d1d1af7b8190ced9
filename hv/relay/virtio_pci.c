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

#define PORTS 256u /* BAR 0 */
#define COMMON_OFFSET 0x00u
#define COMMON_SIZE 56u /* up to queue_device: what lies behind belongs to features that are not offered */
#define ISR_OFFSET 0x40u
#define NOTIFY_OFFSET 0x44u
#define CONFIG_OFFSET 0x80u
_Static_assert(CONFIG_OFFSET + DRIVER_CONFIG_SIZE <= PORTS, "device configuration fits the BAR");

#define MEMORY_SIZE PAGE_SIZE /* BAR 1 */
#define PBA_OFFSET 0x800u
_Static_assert(MSIX_ENTRIES * sizeof(struct msix_entry) <= PBA_OFFSET, "table and PBA do not overlap");

/* PCI 3.0 6.1 */
#define PCI_COMMAND 0x04u
#define PCI_COMMAND_IO 1u
#define PCI_COMMAND_MEMORY 2u
#define PCI_BAR0 0x10u
#define PCI_BAR1 0x14u
#define PCI_BAR_IO 1u
#define PCI_INTERRUPT_LINE 0x3cu

/* Our capability list, in this order. */
#define CAP_COMMON 0x40u
#define CAP_NOTIFY 0x50u
#define CAP_ISR 0x64u
#define CAP_DEVICE 0x74u
#define CAP_MSIX 0x84u
#define MSIX_CONTROL (CAP_MSIX + 2)
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u
#define MESSAGE_PREFIX 0xfeeu /* address bits 31:20 of an interrupt message (SDM 3A 10.11.1) */

#define DEVICE_FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_ACCESS_PLATFORM)

static u64 features_offered(const struct relay *relay)
{
    return relay->offer.features | DEVICE_FEATURES;
}

/* ---- configuration space ---- */

static void put(struct relay *relay, u32 offset, u32 width, u32 value)
{
    memcpy(relay->device.config_space + offset, &value, width); /* both little endian */
}

static u32 get(const struct relay *relay, u32 offset, u32 width)
{
    u32 value = 0;
    memcpy(&value, relay->device.config_space + offset, width);
    return value;
}

static void put_virtio_cap(struct relay *relay, u32 at, u32 next, u8 length, u8 type, u32 offset, u32 size)
{
    struct virtio_pci_cap cap = {
        .cap_vndr = 9, .cap_next = (u8)next, .cap_len = length, .cfg_type = type, .offset = offset, .length = size};
    memcpy(relay->device.config_space + at, &cap, sizeof(cap));
}

static void config_space_reset(struct relay *relay)
{
    u32 slot = relay->driver->vm->id;
    memset(relay->device.config_space, 0, sizeof(relay->device.config_space));
    put(relay, 0x00, 2, VIRTIO_PCI_VENDOR);
    put(relay, 0x02, 2, VIRTIO_PCI_DEVICE_BASE + relay->offer.virtio_type);
    put(relay, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    put(relay, 0x06, 2, 0x10);     /* status: there is a capability list */
    put(relay, 0x08, 4, 0xff0001); /* class "other": the hypervisor knows no device types; revision 1 (4.1.2.1) */
    put(relay, PCI_BAR0, 4, (PLATFORM_BAR_PORTS + slot * PORTS) | PCI_BAR_IO);
    put(relay, PCI_BAR1, 4, (u32)(PLATFORM_MMIO_BASE + slot * MEMORY_SIZE));
    put(relay, 0x2c, 2, VIRTIO_PCI_VENDOR);
    put(relay, 0x2e, 2, 0x40); /* 4.1.2.1: subsystem id of a modern device */
    put(relay, 0x34, 1, CAP_COMMON);
    put_virtio_cap(relay, CAP_COMMON, CAP_NOTIFY, 16, VIRTIO_PCI_CAP_COMMON, COMMON_OFFSET, COMMON_SIZE);
    /* notify_off_multiplier, the word behind this one, is 0: all queues share an address, the value names the queue. */
    put_virtio_cap(relay, CAP_NOTIFY, CAP_ISR, 20, VIRTIO_PCI_CAP_NOTIFY, NOTIFY_OFFSET, 4);
    put_virtio_cap(relay, CAP_ISR, CAP_DEVICE, 16, VIRTIO_PCI_CAP_ISR, ISR_OFFSET, 1);
    put_virtio_cap(relay, CAP_DEVICE, CAP_MSIX, 16, VIRTIO_PCI_CAP_DEVICE, CONFIG_OFFSET, DRIVER_CONFIG_SIZE);
    put(relay, CAP_MSIX, 4, 0x11 | (MSIX_ENTRIES - 1) << 16); /* PCI 3.0 6.8.2; last in the list */
    put(relay, CAP_MSIX + 4, 4, 0 | 1);                       /* table: offset 0 in BAR 1 */
    put(relay, CAP_MSIX + 8, 4, PBA_OFFSET | 1);
}

/* Which bits of a byte the guest may change. Bits of a BAR below its size are fixed: that is how sizing works. */
static u8 config_write_mask(u32 offset)
{
    switch (offset) {
    case PCI_COMMAND:
        return 0x07; /* I/O, memory, bus master */
    case PCI_COMMAND + 1:
        return 0x04;                    /* INTx disable */
    case PCI_BAR0 + 1 ... PCI_BAR0 + 3: /* 256 ports */
    case PCI_BAR1 + 2 ... PCI_BAR1 + 3:
    case PCI_INTERRUPT_LINE:
        return 0xff;
    case PCI_BAR1 + 1: /* 4 KiB */
        return 0xf0;
    case MSIX_CONTROL + 1:
        return (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
    default:
        return 0;
    }
}

static bool access_is_natural(u32 offset, u32 width, u32 size)
{
    return (width == 1 || width == 2 || width == 4) && offset % width == 0 && range_inside(offset, width, 0, size);
}

static u32 all_ones(u32 width)
{
    return width >= 4 ? ~0u : (1u << width * 8) - 1;
}

/* ---- interrupts ---- */

static void message_send(struct relay *relay, u32 vector)
{
    const u32 *word = relay->device.msix[vector].word;
    relay->stats.interrupts++;
    if (word[0] >> 20 == MESSAGE_PREFIX && word[1] == 0)
        platform_message(main_guest, word[0], word[2]);
}

static bool is_masked(const struct relay *relay, u32 vector)
{
    return (get(relay, MSIX_CONTROL, 2) & MSIX_MASK_ALL) != 0 || (relay->device.msix[vector].word[3] & 1) != 0;
}

static void send_unmasked(struct relay *relay)
{
    if ((get(relay, MSIX_CONTROL, 2) & MSIX_ENABLE) == 0)
        return;
    for (u32 vector = 0; vector < MSIX_ENTRIES; vector++) {
        if ((relay->device.msix_pending & 1u << vector) != 0 && !is_masked(relay, vector)) {
            relay->device.msix_pending &= ~(1u << vector);
            message_send(relay, vector);
        }
    }
}

static void raise_interrupt(struct relay *relay, u16 vector, u8 isr)
{
    if ((get(relay, MSIX_CONTROL, 2) & MSIX_ENABLE) == 0) {
        relay->device.isr |= isr; /* there is no INTx line: such a guest polls */
    } else if (vector < MSIX_ENTRIES) {
        relay->device.msix_pending |= 1u << vector;
        send_unmasked(relay);
    }
}

void device_raise_queue(struct relay *relay, u16 vector)
{
    raise_interrupt(relay, vector, ISR_QUEUE);
}

static void raise_config(struct relay *relay)
{
    if ((relay->device.status & VIRTIO_STATUS_DRIVER_OK) != 0)
        raise_interrupt(relay, relay->device.config_vector, ISR_CONFIG);
}

/* ---- life of the device ---- */

void device_announce_features(struct relay *relay)
{
    bool accepted = (relay->device.status & VIRTIO_STATUS_FEATURES_OK) != 0 && !relay->device.resetting;
    struct driver_events *events = hpa_to_ptr(relay->driver->events_page);
    if (relay->state != RELAY_OPEN)
        return; /* the successor hears of it when it offers */
    events->features = accepted ? relay->device.features : 0;
    driver_signal(relay->driver, DRIVER_EVENT_FEATURES);
}

static void registers_reset(struct relay *relay)
{
    struct virtio_device *device = &relay->device;
    device->status = device->isr = 0;
    device->queue_select = 0;
    device->config_vector = VIRTIO_MSI_NO_VECTOR;
    device->device_feature_select = device->driver_feature_select = 0;
    device->features = 0;
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        relay->queue[q].vq = (struct virtqueue){.size = (u16)relay->offer.queue_size, .vector = VIRTIO_MSI_NO_VECTOR};
}

static void msix_reset(struct relay *relay)
{
    memset(relay->device.msix, 0, sizeof(relay->device.msix));
    relay->device.msix_pending = 0;
    for (u32 vector = 0; vector < MSIX_ENTRIES; vector++)
        relay->device.msix[vector].word[3] = 1; /* masked (PCI 3.0 6.8.2.9) */
}

void device_create(struct relay *relay)
{
    config_space_reset(relay);
    msix_reset(relay);
    registers_reset(relay);
    memcpy(relay->device.device_config, relay->offer.config, relay->offer.config_length);
}

void device_set_config(struct relay *relay, const u8 *config, u32 length)
{
    u8 padded[DRIVER_CONFIG_SIZE] = {0};
    memcpy(padded, config, length);
    if (memcmp(padded, relay->device.device_config, sizeof(padded)) == 0)
        return; /* a restart's usual case: the guest need not know */
    memcpy(relay->device.device_config, padded, sizeof(padded));
    relay->device.generation++;
    raise_config(relay);
}

void device_break(struct relay *relay, const char *why)
{
    if ((relay->device.status & VIRTIO_STATUS_NEEDS_RESET) != 0)
        return;
    relay->device.status |= VIRTIO_STATUS_NEEDS_RESET;
    relay->stats.broken++;
    event_add(EVENT_BROKEN_DEVICE, main_guest->id, "device of %s: %s", relay->driver->vm->name, why);
    raise_config(relay); /* 2.1.2 */
}

static void device_reset(struct relay *relay)
{
    relay->device.resetting = true;
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        inflight_withdraw(&relay->queue[q].log);
        relay->queue[q].vq.enabled = false;
    }
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
        for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
            while (relay->queue[q].log.oldest != NO_TAG)
                inflight_remove(&relay->queue[q].log, relay->queue[q].log.oldest);
        }
    }
    if (relay_in_flight(relay) != 0)
        return;
    grants_revoke_all(relay); /* sticky grants end with the queues */
    relay->device.resetting = false;
    registers_reset(relay);
}

void relay_guest_reset(struct relay *relay)
{
    if (!relay->offered)
        return;
    config_space_reset(relay);
    msix_reset(relay);
    device_reset(relay);
}

/* ---- common configuration (4.1.4.3) ---- */

/* The width of the field that begins at an offset; 0: none does. */
static const u8 common_width[COMMON_SIZE] = {
    [0] = 4,  [4] = 4,  [8] = 4,  [12] = 4, [16] = 2, [18] = 2, [20] = 1, [21] = 1, [22] = 2, [24] = 2,
    [26] = 2, [28] = 2, [30] = 2, [32] = 4, [36] = 4, [40] = 4, [44] = 4, [48] = 4, [52] = 4,
};
#define FIELD(name) offsetof(struct virtio_pci_common_cfg, name)

static struct virtqueue *selected(struct relay *relay)
{
    u16 select = relay->device.queue_select;
    return select < relay->offer.queues ? &relay->queue[select].vq : NULL;
}

static u32 queue_read(const struct virtqueue *vq, u32 offset)
{
    switch (offset) {
    case FIELD(queue_size):
        return vq->size;
    case FIELD(queue_msix_vector):
        return vq->vector;
    case FIELD(queue_enable):
        return vq->enabled;
    case FIELD(queue_desc):
        return (u32)vq->desc_gpa;
    case FIELD(queue_desc) + 4:
        return (u32)(vq->desc_gpa >> 32);
    case FIELD(queue_driver):
        return (u32)vq->avail_gpa;
    case FIELD(queue_driver) + 4:
        return (u32)(vq->avail_gpa >> 32);
    case FIELD(queue_device):
        return (u32)vq->used_gpa;
    case FIELD(queue_device) + 4:
        return (u32)(vq->used_gpa >> 32);
    default: /* queue_notify_off */
        return 0;
    }
}

static u32 common_read(struct relay *relay, u32 offset)
{
    struct virtio_device *device = &relay->device;
    const struct virtqueue *vq;
    u32 select;
    switch (offset) {
    case FIELD(device_feature_select):
        return device->device_feature_select;
    case FIELD(device_feature):
        select = device->device_feature_select;
        return select < 2 ? (u32)(features_offered(relay) >> select * 32) : 0;
    case FIELD(driver_feature_select):
        return device->driver_feature_select;
    case FIELD(driver_feature):
        select = device->driver_feature_select;
        return select < 2 ? (u32)(device->features >> select * 32) : 0;
    case FIELD(config_msix_vector):
        return device->config_vector;
    case FIELD(num_queues):
        return relay->offer.queues;
    case FIELD(device_status):
        return device->status; /* of a reset that waits: still the old one, which is not 0 */
    case FIELD(config_generation):
        return device->generation;
    case FIELD(queue_select):
        return device->queue_select;
    default:
        vq = selected(relay);
        return vq == NULL ? 0 : queue_read(vq, offset); /* 4.1.4.3.1: queue_size 0 says that there is none */
    }
}

/* 3.1.1, 2.1.1: bits are only ever added; an illegal step is not taken, which the guest sees when it reads back. */
static void status_write(struct relay *relay, u8 value)
{
    struct virtio_device *device = &relay->device;
    u8 added = (u8)(value & ~device->status & ~VIRTIO_STATUS_NEEDS_RESET);
    if (value == 0) {
        device_reset(relay);
        return;
    }
    device->status |= added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED);
    if ((added & VIRTIO_STATUS_FEATURES_OK) != 0 && (device->status & VIRTIO_STATUS_DRIVER) != 0 &&
        (device->features & ~features_offered(relay)) == 0 && (device->features & VIRTIO_F_VERSION_1) != 0) {
        device->status |= VIRTIO_STATUS_FEATURES_OK;
        device_announce_features(relay);
    }
    if ((added & VIRTIO_STATUS_DRIVER_OK) != 0 && (device->status & VIRTIO_STATUS_FEATURES_OK) != 0) {
        device->status |= VIRTIO_STATUS_DRIVER_OK;
        relay_kick(relay); /* buffers may be available already */
    }
}

static void driver_feature_write(struct virtio_device *device, u32 value)
{
    u32 shift = device->driver_feature_select * 32;
    if (device->driver_feature_select >= 2 || (device->status & VIRTIO_STATUS_FEATURES_OK) != 0)
        return;
    device->features = (device->features & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static u16 vector_or_none(u32 value)
{
    return value < MSIX_ENTRIES ? (u16)value : VIRTIO_MSI_NO_VECTOR; /* 4.1.5.1.2.1: reads back NO_VECTOR on failure */
}

static void set_half(u64 *address, u32 high, u32 value)
{
    *address = high ? (*address & 0xffffffffu) | (u64)value << 32 : (*address & ~0xffffffffull) | value;
}

static void queue_write(struct relay *relay, struct virtqueue *vq, u32 offset, u32 value)
{
    if (offset == FIELD(queue_msix_vector)) {
        vq->vector = vector_or_none(value);
        return;
    }
    if (vq->enabled)
        return; /* 4.1.4.3.2: what an enabled queue stands on does not move */
    switch (offset) {
    case FIELD(queue_size):
        vq->size = (u16)value;
        break;
    case FIELD(queue_enable):
        if (value != 1 || (relay->device.status & VIRTIO_STATUS_FEATURES_OK) == 0)
            break;
        if (virtqueue_enable(vq, main_guest, (u16)relay->offer.queue_size, relay->device.features) != OK)
            device_break(relay, "queue of impossible size or place");
        break;
    case FIELD(queue_desc):
    case FIELD(queue_desc) + 4:
        set_half(&vq->desc_gpa, offset & 4, value);
        break;
    case FIELD(queue_driver):
    case FIELD(queue_driver) + 4:
        set_half(&vq->avail_gpa, offset & 4, value);
        break;
    case FIELD(queue_device):
    case FIELD(queue_device) + 4:
        set_half(&vq->used_gpa, offset & 4, value);
        break;
    default:
        break; /* read-only */
    }
}

static void common_write(struct relay *relay, u32 offset, u32 value)
{
    struct virtio_device *device = &relay->device;
    if (device->resetting)
        return; /* 4.1.4.3.2: the driver waits until device_status reads 0 */
    switch (offset) {
    case FIELD(device_feature_select):
        device->device_feature_select = value;
        break;
    case FIELD(driver_feature_select):
        device->driver_feature_select = value;
        break;
    case FIELD(driver_feature):
        driver_feature_write(device, value);
        break;
    case FIELD(config_msix_vector):
        device->config_vector = vector_or_none(value);
        break;
    case FIELD(device_status):
        status_write(relay, (u8)value);
        break;
    case FIELD(queue_select):
        device->queue_select = (u16)value;
        break;
    case FIELD(device_feature):
    case FIELD(num_queues):
    case FIELD(config_generation):
        break;
    default:
        if (selected(relay) != NULL)
            queue_write(relay, selected(relay), offset, value);
        break;
    }
}

/* ---- what the exit handlers call ---- */

u32 relay_pci_config_read(struct relay *relay, u32 offset, u32 width)
{
    if (!access_is_natural(offset, width, sizeof(relay->device.config_space)))
        return all_ones(width);
    return get(relay, offset, width);
}

void relay_pci_config_write(struct relay *relay, u32 offset, u32 width, u32 value)
{
    if (!access_is_natural(offset, width, sizeof(relay->device.config_space)))
        return;
    for (u32 i = 0; i < width; i++) {
        u8 mask = config_write_mask(offset + i), *byte = &relay->device.config_space[offset + i];
        *byte = (u8)((*byte & ~mask) | (value >> i * 8 & mask));
    }
    send_unmasked(relay);
}

bool relay_claims_port(const struct relay *relay, u16 port, u32 *offset)
{
    u32 base = get(relay, PCI_BAR0, 4) & ~(PORTS - 1);
    if ((get(relay, PCI_COMMAND, 2) & PCI_COMMAND_IO) == 0 || !range_inside(port, 1, base, PORTS))
        return false;
    *offset = port - base;
    return true;
}

bool relay_claims_memory(const struct relay *relay, gpa_t address, u32 *offset)
{
    u64 base = get(relay, PCI_BAR1, 4);
    if ((get(relay, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY) == 0 || !range_inside(address.v, 1, base, MEMORY_SIZE))
        return false;
    *offset = (u32)(address.v - base);
    return true;
}

u32 relay_port_read(struct relay *relay, u32 offset, u32 width)
{
    u32 value = 0;
    if (!access_is_natural(offset, width, PORTS))
        return all_ones(width);
    if (offset < COMMON_SIZE && common_width[offset] == width)
        return common_read(relay, offset);
    if (offset == ISR_OFFSET && width == 1) {
        value = relay->device.isr;
        relay->device.isr = 0; /* 4.1.4.5.1 */
        return value;
    }
    if (range_inside(offset, width, CONFIG_OFFSET, DRIVER_CONFIG_SIZE)) {
        memcpy(&value, relay->device.device_config + (offset - CONFIG_OFFSET), width);
        return value;
    }
    return all_ones(width);
}

void relay_port_write(struct relay *relay, u32 offset, u32 width, u32 value)
{
    if (!access_is_natural(offset, width, PORTS))
        return;
    if (offset < COMMON_SIZE && common_width[offset] == width)
        common_write(relay, offset, value);
    else if (offset == NOTIFY_OFFSET && width >= 2 && value < relay->offer.queues)
        relay_kick(relay);
}

u64 relay_memory_read(struct relay *relay, u32 offset, u32 width)
{
    u64 value = 0;
    if ((width != 4 && width != 8) || offset % width != 0)
        return ~0ull;
    for (u32 i = 0; i < width / 4; i++) {
        u32 at = offset + i * 4, word = at == PBA_OFFSET ? relay->device.msix_pending : 0;
        if (at < MSIX_ENTRIES * sizeof(struct msix_entry))
            word = relay->device.msix[at / 16].word[at / 4 % 4];
        value |= (u64)word << i * 32;
    }
    return value;
}

void relay_memory_write(struct relay *relay, u32 offset, u32 width, u64 value)
{
    if ((width != 4 && width != 8) || offset % width != 0)
        return; /* PCI 3.0 6.8.2: words and quadwords only */
    for (u32 i = 0; i < width / 4; i++) {
        u32 at = offset + i * 4, word = (u32)(value >> i * 32);
        if (at < MSIX_ENTRIES * sizeof(struct msix_entry))
            relay->device.msix[at / 16].word[at / 4 % 4] = at / 4 % 4 == 3 ? word & 1 : word;
    }
    send_unmasked(relay);
}
