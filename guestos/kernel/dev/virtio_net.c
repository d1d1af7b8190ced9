#include "guestos/kernel/dev/virtio_net.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"
#include "shared/lib/string.h"

#define WANTED_FEATURES                                                                                                \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_ACCESS_PLATFORM | VIRTIO_NET_F_CSUM | \
     VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MAC | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_MRG_RXBUF |                    \
     VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX)
#define STATUS_RUNNING                                                                                                 \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)
#define ETHERNET_HEADER 14u
#define CTRL_SIZE 16u
#define CTRL_TIMEOUT_US 1000000u
#define RX_BUDGET 256u /* frames a poll: timers and transmission get their turn under a flood */

struct nic_queue {
    struct virtqueue ring;
    u16 index, notify_off;
};

static struct virtio_device device;
static struct nic_queue rx = {.index = VIRTIO_NET_QUEUE_RX}, tx = {.index = VIRTIO_NET_QUEUE_TX},
                        ctrl = {.index = VIRTIO_NET_QUEUE_CTRL};
static struct nic_info info;
static struct nic_counters counters;
static const struct nic_callbacks *callbacks;
static u8 *buffers; /* NIC_RX_BUFFERS of them */
static u16 free_buffer[NIC_RX_BUFFERS];
static u32 free_buffers;
static bool running, broken;
static volatile u64 interrupts;
static volatile bool config_changed;

static void on_queue_interrupt(void)
{
    interrupts++;
}

static void on_config_interrupt(void)
{
    config_changed = true;
}

static bool has(u64 feature)
{
    return (info.features & feature) != 0;
}

/* 2.5.1: what is read while the generation changes is read again. */
static void read_config(void)
{
    struct virtio_net_config config = {0};
    u8 *bytes = (u8 *)&config;
    u32 size = sizeof(config) < device.config.length ? sizeof(config) : device.config.length;

    for (u32 attempt = 0; attempt < 4; attempt++) {
        u32 generation = VIRTIO_COMMON_READ(&device, config_generation);
        for (u32 i = 0; i < size; i++)
            bytes[i] = (u8)virtio_read(&device.config, i, 1);
        if (generation == VIRTIO_COMMON_READ(&device, config_generation))
            break;
    }
    if (has(VIRTIO_NET_F_MAC))
        memcpy(info.mac, config.mac, sizeof(info.mac));
    /* 5.1.4.2: without STATUS the link is to be taken as up. */
    info.link_up = !has(VIRTIO_NET_F_STATUS) || (config.status & VIRTIO_NET_S_LINK_UP) != 0;
}

/* With fewer vectors than uses, the queues share one, or all do. */
static u16 msix_entry_of(const struct nic_queue *queue)
{
    if (device.msix_vectors >= 3)
        return queue->index == VIRTIO_NET_QUEUE_TX ? 2 : 1;
    return device.msix_vectors == 2 ? 1 : 0;
}

static void set_vectors(void)
{
    interrupt_set_handler(VECTOR_NET_CONFIG, on_config_interrupt);
    interrupt_set_handler(VECTOR_NET_RX, on_queue_interrupt);
    interrupt_set_handler(VECTOR_NET_TX, on_queue_interrupt);
    if (device.msix_vectors > 1)
        virtio_set_msix(&device, 0, VECTOR_NET_CONFIG);
    virtio_set_msix(&device, msix_entry_of(&rx), VECTOR_NET_RX);
    if (msix_entry_of(&tx) != msix_entry_of(&rx))
        virtio_set_msix(&device, msix_entry_of(&tx), VECTOR_NET_TX);
}

static status_t allocate(struct nic_queue *queue, u32 offered)
{
    u16 limit = queue->index == VIRTIO_NET_QUEUE_CTRL ? CTRL_SIZE : VIRTQUEUE_MAX_SIZE;
    u16 size = (u16)(offered < limit ? offered : limit);

    if (offered < 4 || (offered & (offered - 1)) != 0)
        return ERR_FORMAT;
    if (queue->index == VIRTIO_NET_QUEUE_CTRL)
        return virtqueue_alloc(&queue->ring, size);
    status_t status = virtqueue_alloc_rings(&queue->ring, size);
    if (status == OK && queue->index == VIRTIO_NET_QUEUE_TX)
        status = virtqueue_alloc_indirect(&queue->ring);
    return status;
}

static status_t start_queue(struct nic_queue *queue)
{
    u16 entry = msix_entry_of(queue);
    status_t status = OK;

    VIRTIO_COMMON_WRITE(&device, queue_select, queue->index);
    VIRTIO_COMMON_WRITE(&device, queue_msix_vector, entry);
    if (VIRTIO_COMMON_READ(&device, queue_msix_vector) != entry)
        return ERR_NO_SPACE; /* the device has no room for the mapping (4.1.5.1.2.1) */
    u32 offered = VIRTIO_COMMON_READ(&device, queue_size);
    if (queue->ring.table == NULL)
        status = allocate(queue, offered);
    else if (offered < queue->ring.size)
        status = ERR_STATE; /* a device that shrinks in a reset is not the one we knew */
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&device, queue_size, queue->ring.size);
    /* A receive buffer is one descriptor: a table for it would only be one more place to look at. */
    virtqueue_start(&queue->ring, queue == &rx ? info.features & ~VIRTIO_F_INDIRECT_DESC : info.features);
    queue->notify_off = (u16)VIRTIO_COMMON_READ(&device, queue_notify_off);
    virtio_enable_queue(&device, (u64)queue->ring.table, (u64)queue->ring.avail, (u64)queue->ring.used);
    return OK;
}

static void kick(struct nic_queue *queue)
{
    u16 before = queue->ring.kicked_idx;

    if (!running)
        return;
    if (virtqueue_must_notify(&queue->ring)) {
        counters.notified++;
        virtio_notify(&device, queue->notify_off, queue->index);
    } else if (before != queue->ring.kicked_idx) {
        counters.notify_suppressed++;
    }
}

static u8 *buffer_at(u32 index)
{
    return buffers + (u64)index * NIC_RX_BUFFER_SIZE;
}

/* Owners in the receive queue are buffer numbers plus one: NULL stays nobody. */
static void refill(void)
{
    while (free_buffers > 0) {
        u16 head = virtqueue_peek_head(&rx.ring, 1);
        if (head == VIRTQUEUE_NONE)
            break;
        u16 index = free_buffer[--free_buffers];
        struct virtqueue_part part = {(u64)buffer_at(index), NIC_RX_BUFFER_SIZE, true};
        virtqueue_add(&rx.ring, head, &part, 1, (void *)(index + 1ull));
    }
    kick(&rx);
}

/* 5.1.3.1: some features are worth nothing, and must not be accepted, without another. */
static u64 wanted_features(void)
{
    u64 offered = virtio_offered_features(&device), wanted = WANTED_FEATURES;

    if ((offered & VIRTIO_NET_F_CSUM) == 0)
        wanted &= ~VIRTIO_NET_F_HOST_TSO4;
    if ((offered & VIRTIO_NET_F_CTRL_VQ) == 0)
        wanted &= ~VIRTIO_NET_F_CTRL_RX;
    return wanted;
}

/* 3.1.1: the whole way from reset to DRIVER_OK. Also the way back after an error. */
static status_t start(void)
{
    status_t status = virtio_reset(&device);
    if (status == OK)
        status = virtio_negotiate(&device, wanted_features(), &info.features);
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&device, config_msix_vector, device.msix_vectors > 1 ? 0 : VIRTIO_MSI_NO_VECTOR);
    status = start_queue(&rx);
    if (status == OK)
        status = start_queue(&tx);
    if (status == OK && has(VIRTIO_NET_F_CTRL_VQ))
        status = start_queue(&ctrl);
    if (status != OK)
        return status;
    info.rx_size = rx.ring.size;
    info.tx_size = tx.ring.size;
    VIRTIO_COMMON_WRITE(&device, device_status, STATUS_RUNNING);
    read_config();
    running = true;
    broken = false;
    refill();
    return OK;
}

/* 5.1.5 leaves the address to the driver where the device has none: locally administered, from the place on the bus. */
static void make_mac(void)
{
    const u8 mac[6] = {0x52, 0x54, 0x00, 0x42, (u8)(info.bdf >> 8), (u8)info.bdf};

    if (!has(VIRTIO_NET_F_MAC))
        memcpy(info.mac, mac, sizeof(mac));
}

void nic_init(const struct nic_callbacks *functions)
{
    callbacks = functions;
    info.error = virtio_find(VIRTIO_ID_NET, &device);
    if (info.error != OK)
        return;
    info.bdf = device.bdf;
    buffers = arena_alloc(NIC_RX_BUFFERS * NIC_RX_BUFFER_SIZE, PAGE_SIZE);
    if (buffers == NULL) {
        info.error = ERR_NO_MEMORY;
        return;
    }
    for (free_buffers = 0; free_buffers < NIC_RX_BUFFERS; free_buffers++)
        free_buffer[free_buffers] = (u16)free_buffers;
    set_vectors();
    info.error = start();
    info.present = info.error == OK;
    if (info.present)
        make_mac();
}

const struct nic_info *nic_get_info(void)
{
    return &info;
}

const struct nic_counters *nic_get_counters(void)
{
    counters.interrupts = interrupts;
    return &counters;
}

status_t nic_send(const struct nic_part *part, u32 count, void *owner)
{
    struct virtqueue_part parts[NIC_TX_PARTS];
    u64 bytes = 0;

    if (!running)
        return ERR_NOT_FOUND;
    if (count == 0 || count > NIC_TX_PARTS || (!tx.ring.indirect && count > tx.ring.size))
        return ERR_RANGE;
    u16 head = virtqueue_peek_head(&tx.ring, count);
    if (head == VIRTQUEUE_NONE) {
        counters.tx_full++;
        return ERR_NO_SPACE;
    }
    for (u32 i = 0; i < count; i++) {
        parts[i] = (struct virtqueue_part){part[i].address, part[i].length, false};
        bytes += part[i].length;
    }
    virtqueue_add(&tx.ring, head, parts, count, owner);
    counters.tx_frames++;
    counters.tx_bytes += bytes - sizeof(struct virtio_net_hdr);
    return OK;
}

bool nic_can_send(u32 parts)
{
    bool room = virtqueue_peek_head(&tx.ring, parts) != VIRTQUEUE_NONE;

    counters.tx_full += !room;
    return room;
}

void nic_flush(void)
{
    kick(&tx);
}

void nic_return_buffer(u16 index)
{
    free_buffer[free_buffers++] = index;
}

u32 nic_check_length(u32 used, bool first)
{
    u32 header = first ? (u32)sizeof(struct virtio_net_hdr) : 0;
    u32 least = first ? header + ETHERNET_HEADER : 1;

    return used < least || used > NIC_RX_BUFFER_SIZE ? 0 : used - header;
}

/* The entries that the device says it has used; one that says more than the ring holds is not believed any more. */
static u16 pending(struct virtqueue *ring)
{
    u16 count = virtqueue_pending(ring);

    if (count <= ring->busy)
        return count;
    counters.protocol++;
    broken = true;
    return 0;
}

/* The next used entry's owner; NULL (and counted) when the device names a chain that it does not have. */
static void *take(struct virtqueue *ring, u32 *length)
{
    struct virtq_used_elem entry = virtqueue_next_used(ring);

    if (entry.id >= ring->size || ring->slot[entry.id] != SLOT_BUSY) {
        counters.unknown++;
        return NULL;
    }
    *length = entry.len;
    return virtqueue_complete(ring, (u16)entry.id);
}

/*
 * One more buffer of a frame. Its length counts only when the whole frame does; a buffer that came back is ours in any
 * case and goes into the frame, so that it is returned with it.
 */
static bool take_part(struct nic_frame *frame)
{
    u32 used;
    void *owner = take(&rx.ring, &used);

    if (owner == NULL)
        return false;
    struct nic_buffer *part = &frame->part[frame->count];
    bool first = frame->count == 0;
    part->index = (u16)((u64)owner - 1);
    part->data = buffer_at(part->index) + (first ? sizeof(struct virtio_net_hdr) : 0);
    part->length = nic_check_length(used, first);
    frame->count++;
    return part->length != 0;
}

static void drop(const struct nic_frame *frame)
{
    for (u32 i = 0; i < frame->count; i++)
        nic_return_buffer(frame->part[i].index);
    counters.protocol++;
}

/* Take one frame of at most `entries` used entries; the number of entries it took. */
static u32 receive(u16 entries)
{
    struct nic_frame frame = {0};
    struct virtio_net_hdr header;

    if (!take_part(&frame)) {
        drop(&frame);
        return 1;
    }
    memcpy(&header, buffer_at(frame.part[0].index), sizeof(header)); /* once: the device may still write there */
    u32 wanted = has(VIRTIO_NET_F_MRG_RXBUF) ? header.num_buffers : 1;
    /* 5.1.6.4: all buffers of a packet become used at once. */
    bool good = wanted >= 1 && wanted <= NIC_RX_PARTS && wanted <= entries;
    while (good && frame.count < wanted)
        good = take_part(&frame);
    if (!good) {
        drop(&frame);
        return frame.count;
    }
    frame.verified = has(VIRTIO_NET_F_GUEST_CSUM) &&
                     (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
    counters.rx_frames++;
    for (u32 i = 0; i < frame.count; i++)
        counters.rx_bytes += frame.part[i].length;
    callbacks->received(&frame);
    return frame.count;
}

static u32 reap_sent(void)
{
    u32 taken = 0, length;

    for (u16 left = pending(&tx.ring); left > 0; left--, taken++) {
        void *owner = take(&tx.ring, &length);
        if (owner != NULL)
            callbacks->sent(owner);
    }
    return taken;
}

static void follow_config(void)
{
    config_changed = false;
    broken = broken || (VIRTIO_COMMON_READ(&device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0;
    read_config();
}

u32 nic_poll(void)
{
    u32 taken = 0;

    if (!running)
        return 0;
    if (config_changed)
        follow_config();
    if (broken && nic_restart() != OK)
        return 0;
    taken = reap_sent();
    for (u32 frames = 0; frames < RX_BUDGET; frames++) {
        u16 entries = pending(&rx.ring);
        if (entries == 0)
            break;
        taken += receive(entries);
    }
    refill();
    return taken;
}

bool nic_enable_interrupts(void)
{
    if (!running)
        return false;
    /* Sent frames wait for the next poll gladly, unless soon there will be no room for others. */
    u16 ahead = tx.ring.busy > tx.ring.size / 2u ? (u16)(tx.ring.busy * 3 / 4) : tx.ring.size;
    bool work = virtqueue_enable_interrupt_after(&tx.ring, ahead);
    return virtqueue_enable_interrupt(&rx.ring) || work || config_changed;
}

/* One command on the control queue, waited for: it happens when a person types, and seldom. */
static status_t control(u8 class, u8 command, u8 value)
{
    u64 deadline = clock_us() + CTRL_TIMEOUT_US;
    u16 head = virtqueue_peek_head(&ctrl.ring, 3);
    u8 *bytes = (u8 *)&ctrl.ring.headers[head == VIRTQUEUE_NONE ? 0 : head];
    u32 length;

    if (head == VIRTQUEUE_NONE)
        return ERR_BUSY;
    memcpy(bytes, &(struct virtio_net_ctrl_hdr){class, command}, sizeof(struct virtio_net_ctrl_hdr));
    bytes[2] = value;
    ctrl.ring.statuses[head] = (u8)~VIRTIO_NET_OK;
    struct virtqueue_part part[] = {{(u64)bytes, sizeof(struct virtio_net_ctrl_hdr), false},
                                    {(u64)bytes + 2, 1, false},
                                    {(u64)&ctrl.ring.statuses[head], 1, true}};
    virtqueue_add(&ctrl.ring, head, part, ARRAY_SIZE(part), &ctrl);
    kick(&ctrl);
    while (virtqueue_pending(&ctrl.ring) == 0) {
        if (clock_us() >= deadline)
            return ERR_TIMEOUT;
        clock_wait_until(interrupt_serial(), clock_us() + 1000);
    }
    u8 answer = ctrl.ring.statuses[head];
    return pending(&ctrl.ring) == 1 && take(&ctrl.ring, &length) != NULL && answer == VIRTIO_NET_OK ? OK : ERR_IO;
}

status_t nic_set_receive_mode(bool promiscuous, bool all_multicast)
{
    if (!info.present)
        return ERR_NOT_FOUND;
    if (!has(VIRTIO_NET_F_CTRL_VQ) || !has(VIRTIO_NET_F_CTRL_RX))
        return ERR_UNSUPPORTED;
    status_t status = control(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, promiscuous);
    if (status == OK)
        status = control(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, all_multicast);
    if (status != OK)
        return status;
    info.promiscuous = promiscuous;
    info.all_multicast = all_multicast;
    return OK;
}

static void abort_all(void)
{
    for (u16 head = 0; head < tx.ring.size; head++)
        if (tx.ring.slot[head] == SLOT_BUSY)
            callbacks->sent(virtqueue_complete(&tx.ring, head));
    for (u16 head = 0; head < rx.ring.size; head++)
        if (rx.ring.slot[head] == SLOT_BUSY)
            nic_return_buffer((u16)((u64)virtqueue_complete(&rx.ring, head) - 1));
}

status_t nic_restart(void)
{
    if (!info.present)
        return ERR_NOT_FOUND;
    counters.resets++;
    /* First the device, so that nobody writes to a buffer that abort_all gives back. */
    running = false;
    status_t status = virtio_reset(&device);
    if (status != OK)
        return status;
    abort_all();
    status = start();
    if (status == OK && (info.promiscuous || info.all_multicast))
        status = nic_set_receive_mode(info.promiscuous, info.all_multicast);
    return status;
}
