#include "guestos/kernel/dev/virtio_net.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"
#include "shared/lib/printf.h"
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

struct nic {
    struct virtio_device device;
    struct nic_queue rx, tx, ctrl;
    struct nic_info info;
    struct nic_counters counters;
    u8 *buffers; /* NIC_RX_BUFFERS of them */
    u16 free_buffer[NIC_RX_BUFFERS];
    u32 free_buffers;
    bool running, broken;
    volatile u64 interrupts;
    volatile bool config_changed;
};

static struct nic nics[NIC_MAX];
static u32 found;
static const struct nic_callbacks *callbacks;

static void on_queue_interrupt(void *context)
{
    struct nic *nic = context;

    nic->interrupts++;
}

static void on_config_interrupt(void *context)
{
    struct nic *nic = context;

    nic->config_changed = true;
}

static bool has(const struct nic *nic, u64 feature)
{
    return (nic->info.features & feature) != 0;
}

/* 2.5.1: what is read while the generation changes is read again. */
static void read_config(struct nic *nic)
{
    struct virtio_net_config config = {0};
    u8 *bytes = (u8 *)&config;
    u32 size = sizeof(config) < nic->device.config.length ? sizeof(config) : nic->device.config.length;

    for (u32 attempt = 0; attempt < 4; attempt++) {
        u32 generation = VIRTIO_COMMON_READ(&nic->device, config_generation);
        for (u32 i = 0; i < size; i++)
            bytes[i] = (u8)virtio_read(&nic->device.config, i, 1);
        if (generation == VIRTIO_COMMON_READ(&nic->device, config_generation))
            break;
    }
    if (has(nic, VIRTIO_NET_F_MAC))
        memcpy(nic->info.mac, config.mac, sizeof(nic->info.mac));
    /* 5.1.4.2: without STATUS the link is to be taken as up. */
    nic->info.link_up = !has(nic, VIRTIO_NET_F_STATUS) || (config.status & VIRTIO_NET_S_LINK_UP) != 0;
}

/* With fewer vectors than uses, the queues share one, or all do. */
static u16 msix_entry_of(struct nic *nic, const struct nic_queue *queue)
{
    if (nic->device.msix_vectors >= 3)
        return queue->index == VIRTIO_NET_QUEUE_TX ? 2 : 1;
    return nic->device.msix_vectors == 2 ? 1 : 0;
}

static status_t set_vector(struct nic *nic, u16 entry, void (*handler)(void *context))
{
    u8 vector = interrupt_add_handler(handler, nic);

    if (vector == 0)
        return ERR_NO_SPACE;
    virtio_set_msix(&nic->device, entry, vector);
    return OK;
}

static status_t set_vectors(struct nic *nic)
{
    u16 rx = msix_entry_of(nic, &nic->rx), tx = msix_entry_of(nic, &nic->tx);
    status_t status = set_vector(nic, rx, on_queue_interrupt);

    if (status == OK && tx != rx)
        status = set_vector(nic, tx, on_queue_interrupt);
    if (status == OK && nic->device.msix_vectors > 1)
        status = set_vector(nic, 0, on_config_interrupt);
    return status;
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

static status_t start_queue(struct nic *nic, struct nic_queue *queue)
{
    u16 entry = msix_entry_of(nic, queue);
    status_t status = OK;

    VIRTIO_COMMON_WRITE(&nic->device, queue_select, queue->index);
    VIRTIO_COMMON_WRITE(&nic->device, queue_msix_vector, entry);
    if (VIRTIO_COMMON_READ(&nic->device, queue_msix_vector) != entry)
        return ERR_NO_SPACE; /* the device has no room for the mapping (4.1.5.1.2.1) */
    u32 offered = VIRTIO_COMMON_READ(&nic->device, queue_size);
    if (queue->ring.table == NULL)
        status = allocate(queue, offered);
    else if (offered < queue->ring.size)
        status = ERR_STATE; /* a device that shrinks in a reset is not the one we knew */
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&nic->device, queue_size, queue->ring.size);
    /* A receive buffer is one descriptor: a table for it would only be one more place to look at. */
    virtqueue_start(&queue->ring,
                    queue == &nic->rx ? nic->info.features & ~VIRTIO_F_INDIRECT_DESC : nic->info.features);
    queue->notify_off = (u16)VIRTIO_COMMON_READ(&nic->device, queue_notify_off);
    virtio_enable_queue(&nic->device, (u64)queue->ring.table, (u64)queue->ring.avail, (u64)queue->ring.used);
    return OK;
}

static void kick(struct nic *nic, struct nic_queue *queue)
{
    u16 before = queue->ring.kicked_idx;

    if (!nic->running)
        return;
    if (virtqueue_must_notify(&queue->ring)) {
        nic->counters.notified++;
        virtio_notify(&nic->device, queue->notify_off, queue->index);
    } else if (before != queue->ring.kicked_idx) {
        nic->counters.notify_suppressed++;
    }
}

static u8 *buffer_at(struct nic *nic, u32 index)
{
    return nic->buffers + (u64)index * NIC_RX_BUFFER_SIZE;
}

/* Owners in the receive queue are buffer numbers plus one: NULL stays nobody. */
static void refill(struct nic *nic)
{
    while (nic->free_buffers > 0) {
        u16 head = virtqueue_peek_head(&nic->rx.ring, 1);
        if (head == VIRTQUEUE_NONE)
            break;
        u16 index = nic->free_buffer[--nic->free_buffers];
        struct virtqueue_part part = {(u64)buffer_at(nic, index), NIC_RX_BUFFER_SIZE, true};
        virtqueue_add(&nic->rx.ring, head, &part, 1, (void *)(index + 1ull));
    }
    kick(nic, &nic->rx);
}

/* 5.1.3.1: some features are worth nothing, and must not be accepted, without another. */
static u64 wanted_features(struct nic *nic)
{
    u64 offered = virtio_offered_features(&nic->device), wanted = WANTED_FEATURES;

    if ((offered & VIRTIO_NET_F_CSUM) == 0)
        wanted &= ~VIRTIO_NET_F_HOST_TSO4;
    if ((offered & VIRTIO_NET_F_CTRL_VQ) == 0)
        wanted &= ~VIRTIO_NET_F_CTRL_RX;
    return wanted;
}

/* 3.1.1: the whole way from reset to DRIVER_OK. Also the way back after an error. */
static status_t start(struct nic *nic)
{
    status_t status = virtio_reset(&nic->device);
    if (status == OK)
        status = virtio_negotiate(&nic->device, wanted_features(nic), &nic->info.features);
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&nic->device, config_msix_vector, nic->device.msix_vectors > 1 ? 0 : VIRTIO_MSI_NO_VECTOR);
    status = start_queue(nic, &nic->rx);
    if (status == OK)
        status = start_queue(nic, &nic->tx);
    if (status == OK && has(nic, VIRTIO_NET_F_CTRL_VQ))
        status = start_queue(nic, &nic->ctrl);
    if (status != OK)
        return status;
    nic->info.rx_size = nic->rx.ring.size;
    nic->info.tx_size = nic->tx.ring.size;
    VIRTIO_COMMON_WRITE(&nic->device, device_status, STATUS_RUNNING);
    read_config(nic);
    nic->running = true;
    nic->broken = false;
    refill(nic);
    return OK;
}

/* 5.1.5 leaves the address to the driver where the device has none: locally administered, from the place on the bus. */
static void make_mac(struct nic *nic)
{
    const u8 mac[6] = {0x52, 0x54, 0x00, 0x42, (u8)(nic->info.bdf >> 8), (u8)nic->info.bdf};

    if (!has(nic, VIRTIO_NET_F_MAC))
        memcpy(nic->info.mac, mac, sizeof(mac));
}

static status_t open_nic(struct nic *nic, u32 index)
{
    u64 mark = arena_mark();

    nic->info = (struct nic_info){.index = index};
    bh_snprintf(nic->info.name, sizeof(nic->info.name), "net%u", index);
    nic->rx.index = VIRTIO_NET_QUEUE_RX;
    nic->tx.index = VIRTIO_NET_QUEUE_TX;
    nic->ctrl.index = VIRTIO_NET_QUEUE_CTRL;
    status_t status = virtio_find(VIRTIO_ID_NET, index, &nic->device);
    nic->info.bdf = nic->device.bdf;
    if (status != OK)
        return status;
    nic->buffers = arena_alloc(NIC_RX_BUFFERS * NIC_RX_BUFFER_SIZE, PAGE_SIZE);
    if (nic->buffers == NULL)
        return ERR_NO_MEMORY;
    for (nic->free_buffers = 0; nic->free_buffers < NIC_RX_BUFFERS; nic->free_buffers++)
        nic->free_buffer[nic->free_buffers] = (u16)nic->free_buffers;
    status = set_vectors(nic);
    if (status == OK)
        status = start(nic);
    /* A device that was reset has let go of its queues. */
    if (status != OK && virtio_reset(&nic->device) == OK)
        arena_release(mark);
    return status;
}

void nic_init(const struct nic_callbacks *functions)
{
    u32 there = virtio_count(VIRTIO_ID_NET);

    callbacks = functions;
    found = there < NIC_MAX ? there : NIC_MAX;
    for (u32 i = 0; i < found; i++) {
        struct nic *nic = &nics[i];
        nic->info.error = open_nic(nic, i);
        nic->info.present = nic->info.error == OK;
        if (nic->info.present)
            make_mac(nic);
    }
}

u32 nic_count(void)
{
    return found;
}

struct nic *nic_get(u32 index)
{
    return index < found ? &nics[index] : NULL;
}

const struct nic_info *nic_get_info(const struct nic *nic)
{
    return &nic->info;
}

struct nic_counters nic_get_counters(const struct nic *nic)
{
    struct nic_counters counters = nic->counters;

    counters.interrupts = nic->interrupts;
    return counters;
}

struct nic_counters nic_sum_counters(void)
{
    struct nic_counters sum = {0};

    for (u32 i = 0; i < found; i++) {
        struct nic_counters counters = nic_get_counters(&nics[i]);
        for (u32 at = 0; at < sizeof(sum) / sizeof(u64); at++)
            ((u64 *)&sum)[at] += ((const u64 *)&counters)[at]; /* all members are u64 */
    }
    return sum;
}

status_t nic_send(struct nic *nic, const struct nic_part *part, u32 count, void *owner)
{
    struct virtqueue_part parts[NIC_TX_PARTS];
    u64 bytes = 0;

    if (!nic->running)
        return ERR_NOT_FOUND;
    if (count == 0 || count > NIC_TX_PARTS || (!nic->tx.ring.indirect && count > nic->tx.ring.size))
        return ERR_RANGE;
    u16 head = virtqueue_peek_head(&nic->tx.ring, count);
    if (head == VIRTQUEUE_NONE) {
        nic->counters.tx_full++;
        return ERR_NO_SPACE;
    }
    for (u32 i = 0; i < count; i++) {
        parts[i] = (struct virtqueue_part){part[i].address, part[i].length, false};
        bytes += part[i].length;
    }
    virtqueue_add(&nic->tx.ring, head, parts, count, owner);
    nic->counters.tx_frames++;
    nic->counters.tx_bytes += bytes - sizeof(struct virtio_net_hdr);
    return OK;
}

bool nic_can_send(struct nic *nic, u32 parts)
{
    bool room = virtqueue_peek_head(&nic->tx.ring, parts) != VIRTQUEUE_NONE;

    nic->counters.tx_full += !room;
    return room;
}

void nic_flush(struct nic *nic)
{
    kick(nic, &nic->tx);
}

void nic_return_buffer(struct nic *nic, u16 index)
{
    nic->free_buffer[nic->free_buffers++] = index;
}

u32 nic_check_length(u32 used, bool first)
{
    u32 header = first ? (u32)sizeof(struct virtio_net_hdr) : 0;
    u32 least = first ? header + ETHERNET_HEADER : 1;

    return used < least || used > NIC_RX_BUFFER_SIZE ? 0 : used - header;
}

/* The entries that the device says it has used; one that says more than the ring holds is not believed any more. */
static u16 pending(struct nic *nic, struct virtqueue *ring)
{
    u16 count = virtqueue_pending(ring);

    if (count <= ring->busy)
        return count;
    nic->counters.protocol++;
    nic->broken = true;
    return 0;
}

/* The next used entry's owner; NULL (and counted) when the device names a chain that it does not have. */
static void *take(struct nic *nic, struct virtqueue *ring, u32 *length)
{
    struct virtq_used_elem entry = virtqueue_next_used(ring);

    if (entry.id >= ring->size || ring->slot[entry.id] != SLOT_BUSY) {
        nic->counters.unknown++;
        return NULL;
    }
    *length = entry.len;
    return virtqueue_complete(ring, (u16)entry.id);
}

/*
 * One more buffer of a frame. Its length counts only when the whole frame does; a buffer that came back is ours in any
 * case and goes into the frame, so that it is returned with it.
 */
static bool take_part(struct nic *nic, struct nic_frame *frame)
{
    u32 used;
    void *owner = take(nic, &nic->rx.ring, &used);

    if (owner == NULL)
        return false;
    struct nic_buffer *part = &frame->part[frame->count];
    bool first = frame->count == 0;
    part->index = (u16)((u64)owner - 1);
    part->data = buffer_at(nic, part->index) + (first ? sizeof(struct virtio_net_hdr) : 0);
    part->length = nic_check_length(used, first);
    frame->count++;
    return part->length != 0;
}

static void drop(struct nic *nic, const struct nic_frame *frame)
{
    for (u32 i = 0; i < frame->count; i++)
        nic_return_buffer(nic, frame->part[i].index);
    nic->counters.protocol++;
}

/* Take one frame of at most `entries` used entries; the number of entries it took. */
static u32 receive(struct nic *nic, u16 entries)
{
    struct nic_frame frame = {0};
    struct virtio_net_hdr header;

    if (!take_part(nic, &frame)) {
        drop(nic, &frame);
        return 1;
    }
    memcpy(&header, buffer_at(nic, frame.part[0].index), sizeof(header)); /* once: the device may still write there */
    u32 wanted = has(nic, VIRTIO_NET_F_MRG_RXBUF) ? header.num_buffers : 1;
    /* 5.1.6.4: all buffers of a packet become used at once. */
    bool good = wanted >= 1 && wanted <= NIC_RX_PARTS && wanted <= entries;
    while (good && frame.count < wanted)
        good = take_part(nic, &frame);
    if (!good) {
        drop(nic, &frame);
        return frame.count;
    }
    frame.verified = has(nic, VIRTIO_NET_F_GUEST_CSUM) &&
                     (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
    nic->counters.rx_frames++;
    for (u32 i = 0; i < frame.count; i++)
        nic->counters.rx_bytes += frame.part[i].length;
    callbacks->received(nic, &frame);
    return frame.count;
}

static u32 reap_sent(struct nic *nic)
{
    u32 taken = 0, length;

    for (u16 left = pending(nic, &nic->tx.ring); left > 0; left--, taken++) {
        void *owner = take(nic, &nic->tx.ring, &length);
        if (owner != NULL)
            callbacks->sent(nic, owner);
    }
    return taken;
}

static void follow_config(struct nic *nic)
{
    nic->config_changed = false;
    nic->broken = nic->broken || (VIRTIO_COMMON_READ(&nic->device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0;
    read_config(nic);
}

u32 nic_poll(struct nic *nic)
{
    u32 taken = 0;

    if (!nic->running)
        return 0;
    if (nic->config_changed)
        follow_config(nic);
    if (nic->broken && nic_restart(nic) != OK)
        return 0;
    taken = reap_sent(nic);
    for (u32 frames = 0; frames < RX_BUDGET; frames++) {
        u16 entries = pending(nic, &nic->rx.ring);
        if (entries == 0)
            break;
        taken += receive(nic, entries);
    }
    refill(nic);
    return taken;
}

bool nic_enable_interrupts(struct nic *nic)
{
    if (!nic->running)
        return false;
    /* Sent frames wait for the next poll gladly, unless soon there will be no room for others. */
    u16 ahead = nic->tx.ring.busy > nic->tx.ring.size / 2u ? (u16)(nic->tx.ring.busy * 3 / 4) : nic->tx.ring.size;
    bool work = virtqueue_enable_interrupt_after(&nic->tx.ring, ahead);
    return virtqueue_enable_interrupt(&nic->rx.ring) || work || nic->config_changed;
}

/* One command on the control queue, waited for: it happens when a person types, and seldom. */
static status_t control(struct nic *nic, u8 class, u8 command, u8 value)
{
    u64 deadline = clock_us() + CTRL_TIMEOUT_US;
    u16 head = virtqueue_peek_head(&nic->ctrl.ring, 3);
    u8 *bytes = (u8 *)&nic->ctrl.ring.headers[head == VIRTQUEUE_NONE ? 0 : head];
    u32 length;

    if (head == VIRTQUEUE_NONE)
        return ERR_BUSY;
    memcpy(bytes, &(struct virtio_net_ctrl_hdr){class, command}, sizeof(struct virtio_net_ctrl_hdr));
    bytes[2] = value;
    nic->ctrl.ring.statuses[head] = (u8)~VIRTIO_NET_OK;
    struct virtqueue_part part[] = {{(u64)bytes, sizeof(struct virtio_net_ctrl_hdr), false},
                                    {(u64)bytes + 2, 1, false},
                                    {(u64)&nic->ctrl.ring.statuses[head], 1, true}};
    virtqueue_add(&nic->ctrl.ring, head, part, ARRAY_SIZE(part), &nic->ctrl);
    kick(nic, &nic->ctrl);
    while (virtqueue_pending(&nic->ctrl.ring) == 0) {
        if (clock_us() >= deadline)
            return ERR_TIMEOUT;
        clock_wait_until(interrupt_serial(), clock_us() + 1000);
    }
    u8 answer = nic->ctrl.ring.statuses[head];
    return pending(nic, &nic->ctrl.ring) == 1 && take(nic, &nic->ctrl.ring, &length) != NULL && answer == VIRTIO_NET_OK
               ? OK
               : ERR_IO;
}

status_t nic_set_receive_mode(struct nic *nic, bool promiscuous, bool all_multicast)
{
    if (!nic->info.present)
        return ERR_NOT_FOUND;
    if (!has(nic, VIRTIO_NET_F_CTRL_VQ) || !has(nic, VIRTIO_NET_F_CTRL_RX))
        return ERR_UNSUPPORTED;
    status_t status = control(nic, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, promiscuous);
    if (status == OK)
        status = control(nic, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, all_multicast);
    if (status != OK)
        return status;
    nic->info.promiscuous = promiscuous;
    nic->info.all_multicast = all_multicast;
    return OK;
}

static void abort_all(struct nic *nic)
{
    for (u16 head = 0; head < nic->tx.ring.size; head++)
        if (nic->tx.ring.slot[head] == SLOT_BUSY)
            callbacks->sent(nic, virtqueue_complete(&nic->tx.ring, head));
    for (u16 head = 0; head < nic->rx.ring.size; head++)
        if (nic->rx.ring.slot[head] == SLOT_BUSY)
            nic_return_buffer(nic, (u16)((u64)virtqueue_complete(&nic->rx.ring, head) - 1));
}

status_t nic_restart(struct nic *nic)
{
    if (!nic->info.present)
        return ERR_NOT_FOUND;
    nic->counters.resets++;
    /* First the device, so that nobody writes to a buffer that abort_all gives back. */
    nic->running = false;
    status_t status = virtio_reset(&nic->device);
    if (status != OK)
        return status;
    abort_all(nic);
    status = start(nic);
    if (status == OK && (nic->info.promiscuous || nic->info.all_multicast))
        status = nic_set_receive_mode(nic, nic->info.promiscuous, nic->info.all_multicast);
    return status;
}
