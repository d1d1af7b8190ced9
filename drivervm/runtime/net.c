/* The network class as the runtime's `struct driver`: requests in, frames out, answers back (net.h has the picture). */
#include "drivervm/runtime/net.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define QUEUES 3u
#define QUEUE_SIZE 128u
#define MOST_MERGED 16u     /* receive requests for one frame */
#define BOUNCE_HEADROOM 64u /* VirtIO's header goes before the frame */
#define BOUNCE_BYTES 2048u
/* Sent packets raise no interrupt: whoever waits for the answer waits no longer than this. */
#define SENT_LOOK_US 1000u
/* Without interrupts: asked again at once for some time after the last frame, then at each tick of the hypervisor. */
#define BUSY_US 500u
#define IDLE_US 1000u
#define LINK_LOOK_US 100000u /* and as often for the link */
#define LOOKS 2u

_Static_assert(QUEUE_SIZE <= RING_TAGS && NET_BUFFERS >= QUEUE_SIZE, "a tag and a buffer for each request");
_Static_assert(BOUNCE_HEADROOM + NET_FRAME_MOST <= BOUNCE_BYTES, "a frame and its header");

struct rx_request {
    bool busy;
    u8 segments;
    u64 capacity; /* bytes in these */
    u64 direct;   /* where a frame has room in one piece; 0: nowhere */
    struct ring_segment_cell segment[NET_RX_SEGMENTS];
};

/* A receive buffer in the driver, and the requests that it serves; count 0: not in the driver. */
struct rx_buffer {
    u32 count;
    u8 tag[MOST_MERGED];
    u64 capacity;
    u64 address;
    u8 *bounce; /* BOUNCE_BYTES of our own, once it has needed any */
};

static struct net_device device;
static struct net_filter filter;
static struct virtio_net_config config;
static struct ring *rx_ring, *tx_ring;

static struct net_packet packets[RING_TAGS]; /* by tag */
static struct net_packet *queue_head;        /* of those that wait for room in the driver */
static struct net_packet **queue_tail = &queue_head;
static u32 sending; /* in the driver */

static struct rx_request rx_requests[RING_TAGS]; /* by tag */
static u8 waiting[RING_TAGS];                    /* tags of those in no buffer; free-running indices */
static u32 waiting_first, waiting_end;
static struct rx_buffer buffers[NET_BUFFERS];
static u8 free_buffer[NET_BUFFERS];
static u32 free_buffers;

static bool found; /* something, when `pump` looked last */
static u64 last_activity, next_link_look;
static struct {
    u64 sent, received, refused, dropped;
} counted;

static bool accepted(u64 feature)
{
    return __atomic_load_n(&driver_events->features, __ATOMIC_RELAXED) & feature;
}

/* ---- transmit ---- */

static void take_packet(struct ring *ring, const struct ring_header_cell *header)
{
    struct net_packet *packet = &packets[header->tag];
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];

    DRIVER_CHECK(!packet->busy);
    ring_take(ring, header, segment);
    if (net_parse_packet(packet, segment, header->readable, &device) != OK) {
        counted.refused++; /* as on a wire: there is no way to say so to the sender */
        ring_complete(ring, header->tag, 0);
        return;
    }
    packet->tag = header->tag;
    packet->busy = true;
    packet->next = NULL;
    *queue_tail = packet;
    queue_tail = &packet->next;
}

static void send_queued(void)
{
    while (queue_head && net_driver.send(queue_head)) {
        queue_head = queue_head->next;
        if (!queue_head)
            queue_tail = &queue_head;
        sending++;
    }
}

void net_sent(u16 tag)
{
    DRIVER_CHECK(tag < RING_TAGS && packets[tag].busy && sending > 0);
    packets[tag].busy = false;
    sending--;
    counted.sent++;
    ring_complete(tx_ring, tag, 0);
}

/* ---- receive ---- */

static void take_receive(struct ring *ring, const struct ring_header_cell *header)
{
    struct rx_request *request = &rx_requests[header->tag];
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
    u32 count = header->segments - header->readable; /* readable ones make no sense here, and no harm */

    DRIVER_CHECK(!request->busy);
    ring_take(ring, header, segment);
    request->busy = true;
    request->segments = (u8)(count < NET_RX_SEGMENTS ? count : NET_RX_SEGMENTS);
    request->capacity = 0;
    for (u32 i = 0; i < request->segments; i++) {
        request->segment[i] = segment[header->readable + i];
        request->capacity += request->segment[i].length;
    }
    request->direct = net_direct_place(request->segment, request->segments);
    waiting[waiting_end++ % RING_TAGS] = (u8)header->tag;
}

/* Requests that wait, as many as a frame needs. False: there are not enough yet, and nothing was taken. */
static bool gather(struct rx_buffer *buffer)
{
    u32 most = accepted(VIRTIO_NET_F_MRG_RXBUF) ? MOST_MERGED : 1;

    buffer->count = 0;
    buffer->capacity = 0;
    for (u32 at = waiting_first; at != waiting_end; at++) {
        const struct rx_request *request = &rx_requests[waiting[at % RING_TAGS]];
        buffer->tag[buffer->count++] = waiting[at % RING_TAGS];
        buffer->capacity += request->capacity;
        if (buffer->capacity >= sizeof(struct virtio_net_hdr) + NET_FRAME_MOST || buffer->count == most)
            return true;
    }
    buffer->count = 0;
    return false;
}

/* Where the controller is to put the frame; 0: we have no RAM left. */
static u64 choose_place(struct rx_buffer *buffer)
{
    const struct rx_request *first = &rx_requests[buffer->tag[0]];

    if (buffer->count == 1 && first->direct)
        return first->direct;
    if (!buffer->bounce)
        buffer->bounce = dma_alloc(BOUNCE_BYTES, BOUNCE_BYTES);
    return buffer->bounce ? (u64)buffer->bounce + BOUNCE_HEADROOM : 0;
}

static void post_buffers(void)
{
    while (free_buffers > 0) {
        u32 number = free_buffer[free_buffers - 1];
        struct rx_buffer *buffer = &buffers[number];
        if (!gather(buffer))
            return;
        buffer->address = choose_place(buffer);
        if (!buffer->address) {
            buffer->count = 0;
            return;
        }
        waiting_first += buffer->count;
        free_buffers--;
        net_driver.receive(number, buffer->address);
    }
}

/* Header and frame, one after the other in our own RAM, into as many requests as they need. Returns how many. */
static u32 deliver_copy(const struct rx_buffer *buffer, struct virtio_net_hdr *header, u32 bytes)
{
    u8 *from = buffer->bounce + BOUNCE_HEADROOM - sizeof(*header);
    u32 left = bytes + (u32)sizeof(*header), used = 0;
    u64 room = 0;

    while (room < left)
        room += rx_requests[buffer->tag[used++]].capacity;
    header->num_buffers = (u16)used;
    memcpy(from, header, sizeof(*header));
    for (u32 i = 0; i < used; i++) {
        struct rx_request *request = &rx_requests[buffer->tag[i]];
        u32 part = net_write(request->segment, request->segments, from, left);
        request->busy = false;
        ring_complete(rx_ring, buffer->tag[i], part);
        from += part;
        left -= part;
    }
    return used;
}

static void deliver_direct(const struct rx_buffer *buffer, const struct virtio_net_hdr *header, u32 bytes)
{
    struct rx_request *request = &rx_requests[buffer->tag[0]];

    net_write(request->segment, request->segments, header, sizeof(*header));
    request->busy = false;
    ring_complete(rx_ring, buffer->tag[0], bytes + (u32)sizeof(*header));
}

/*
 * VirtIO 1.2 5.1.6.4: a guest that takes partial checksums completes them where they count, or not at all; for others
 * we do it, one pass over the frame. False: the controller names a place outside it.
 */
static bool tell_checksum(struct virtio_net_hdr *header, u64 frame, u32 bytes, struct net_check check)
{
    bool told = accepted(VIRTIO_NET_F_GUEST_CSUM);

    if (check.kind == NET_CHECK_GOOD && told)
        header->flags = VIRTIO_NET_HDR_F_DATA_VALID;
    if (check.kind != NET_CHECK_PARTIAL)
        return true;
    if (!told)
        return net_complete_checksum((u8 *)frame, bytes, check);
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = check.start;
    header->csum_offset = check.offset;
    return check.start < bytes && check.offset + 2u <= bytes - check.start;
}

void net_received(u32 number, u32 bytes, struct net_check check)
{
    struct virtio_net_hdr header = {.num_buffers = 1};
    struct rx_buffer *buffer = &buffers[number];
    u32 used = 1;

    DRIVER_CHECK(number < NET_BUFFERS && buffer->count > 0);
    if (bytes < NET_FRAME_LEAST || bytes > NET_FRAME_MOST || bytes + sizeof(header) > buffer->capacity ||
        !tell_checksum(&header, buffer->address, bytes, check)) {
        counted.dropped++;
        net_driver.receive(number, buffer->address);
        return;
    }
    if (buffer->address == rx_requests[buffer->tag[0]].direct)
        deliver_direct(buffer, &header, bytes);
    else
        used = deliver_copy(buffer, &header, bytes);
    while (buffer->count > used) /* those that were not needed are the next ones again */
        waiting[--waiting_first % RING_TAGS] = buffer->tag[--buffer->count];
    buffer->count = 0;
    free_buffer[free_buffers++] = (u8)number;
    counted.received++;
}

/* ---- control ---- */

/* What the guest asked for outlives us: it will not ask again. */
static void keep_filter(void)
{
    if (stash_save(&filter, sizeof(filter)) != OK)
        log_line("%s: the filter cannot be kept for a successor", net_driver.name);
}

static void take_control(struct ring *ring, const struct ring_header_cell *header)
{
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];

    ring_take(ring, header, segment);
    u8 answer = net_parse_control(&filter, segment, header->readable);
    if (answer == VIRTIO_NET_OK) {
        net_driver.set_filter(&filter);
        keep_filter();
    }
    u32 writable = header->segments - header->readable;
    ring_complete(ring, header->tag, net_write(segment + header->readable, writable, &answer, sizeof(answer)));
}

/* ---- life ---- */

/* Until the guest gives a table, all multicast frames are its own. */
static void filter_reset(void)
{
    filter = (struct net_filter){.all_multicast = NET_FILTER_NO_TABLE};
}

/* What a predecessor left is checked like anything from outside. */
static void filter_restore(void)
{
    if (!stash_load(&filter, sizeof(filter)) || filter.unicasts > NET_UNICAST || filter.multicasts > NET_MULTICAST)
        filter_reset();
}

static void buffers_reset(void)
{
    for (free_buffers = 0; free_buffers < NET_BUFFERS; free_buffers++) {
        free_buffer[free_buffers] = (u8)(NET_BUFFERS - 1 - free_buffers);
        buffers[free_buffers].count = 0;
    }
    waiting_first = waiting_end = 0;
}

static void restart_device(void)
{
    status_t status = net_driver.restart(&filter);

    if (status == OK)
        return;
    log_line("%s: does not start again: %s", net_driver.name, status_text(status));
    driver_fault(DRIVER_FAULT_DEVICE, status);
}

static bool holds_requests(void)
{
    return queue_head || sending > 0 || free_buffers < NET_BUFFERS || waiting_first != waiting_end;
}

/*
 * The guest has reset its device, and that is not over before it has back what we hold. No request of its next life can
 * be among them, for the same reason.
 */
static void withdraw(void)
{
    log_line("%s: reset by the guest; %llu frames sent, %llu refused, %llu received, %llu dropped", net_driver.name,
             (unsigned long long)counted.sent, (unsigned long long)counted.refused,
             (unsigned long long)counted.received, (unsigned long long)counted.dropped);
    net_driver.log_statistics();
    filter_reset();
    keep_filter();
    restart_device();
    for (u16 tag = 0; tag < RING_TAGS; tag++) {
        if (packets[tag].busy)
            ring_complete(tx_ring, tag, 0);
        if (rx_requests[tag].busy)
            ring_complete(rx_ring, tag, 0);
        packets[tag].busy = rx_requests[tag].busy = false;
    }
    queue_head = NULL;
    queue_tail = &queue_head;
    sending = 0;
    buffers_reset();
}

static void follow_link(void)
{
    u16 status = net_driver.link_is_up() ? VIRTIO_NET_S_LINK_UP : 0;

    if (status == config.status)
        return;
    log_line("%s: link %s", net_driver.name, status ? "up" : "down");
    config.status = status;
    if (hypercall(HYPERCALL_CONFIG, (u64)&config, sizeof(config), 0) < 0)
        driver_fault(DRIVER_FAULT_ASSERT, __LINE__);
}

static void take_request(struct ring *ring, const struct ring_header_cell *header)
{
    if (ring == rx_ring)
        take_receive(ring, header);
    else if (ring == tx_ring)
        take_packet(ring, header);
    else
        take_control(ring, header);
}

static bool collect(void)
{
    bool any = net_driver.collect();

    if (any)
        last_activity = tsc_read();
    return any;
}

static bool poll(void)
{
    if (driver_info->interrupts) {
        net_driver.acknowledge();
        follow_link();
    } else if (deadline_passed(next_link_look)) {
        next_link_look = deadline_after(LINK_LOOK_US);
        follow_link();
    }
    return collect();
}

static void pump(void)
{
    if (!accepted(VIRTIO_F_VERSION_1) && holds_requests())
        withdraw(); /* VERSION_1 is part of whatever a guest accepts */
    /*
     * A look that found something is followed by another one before we sleep: what it freed may let more go, and the
     * answers of both are handed over by one exit. Some controllers have even sent by the first one.
     */
    for (u32 look = 0; look < LOOKS; look++) {
        post_buffers();
        if (queue_head)
            send_queued();
        net_driver.flush();
        found = collect();
        if (!found)
            break;
    }
}

/* What the last look left over may raise no interrupt. */
static u64 timeout(void)
{
    if (found)
        return 0;
    if (driver_info->interrupts)
        return sending > 0 ? SENT_LOOK_US : WAIT_FOREVER;
    return microseconds_since(last_activity) < BUSY_US ? 0 : IDLE_US;
}

static void fill_offer(struct driver_offer *offer)
{
    config = (struct virtio_net_config){.status = net_driver.link_is_up() ? VIRTIO_NET_S_LINK_UP : 0,
                                        .max_virtqueue_pairs = 1};
    memcpy(config.mac, device.address, sizeof(config.mac));
    *offer = (struct driver_offer){.virtio_type = VIRTIO_ID_NET,
                                   .queues = QUEUES,
                                   .features = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF |
                                               VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX |
                                               (device.sends_checksums ? VIRTIO_NET_F_CSUM : 0) |
                                               (device.cuts_segments ? VIRTIO_NET_F_HOST_TSO4 : 0) |
                                               (device.checks_received ? VIRTIO_NET_F_GUEST_CSUM : 0),
                                   .queue_size = QUEUE_SIZE,
                                   .patient_queues = 1u << VIRTIO_NET_QUEUE_RX,
                                   .config_length = sizeof(config)};
    memcpy(offer->config, &config, sizeof(config));
}

static bool address_is_possible(const u8 *address)
{
    static const u8 none[NET_ADDRESS];

    return !(address[0] & 1) && memcmp(address, none, NET_ADDRESS) != 0;
}

static status_t start(struct driver_offer *offer)
{
    rx_ring = &driver_rings[VIRTIO_NET_QUEUE_RX];
    tx_ring = &driver_rings[VIRTIO_NET_QUEUE_TX];
    buffers_reset();
    filter_restore();
    status_t status = net_driver.start(&device);
    if (status == OK && !address_is_possible(device.address))
        status = ERR_FORMAT;
    if (status == OK)
        status = net_driver.restart(&filter);
    if (status != OK) {
        log_line("%s: does not start: %s", net_driver.name, status_text(status));
        return status;
    }
    last_activity = tsc_read();
    fill_offer(offer);
    return OK;
}

const struct driver driver = {
    .start = start,
    .request = take_request,
    .poll = poll,
    .pump = pump,
    .timeout = timeout,
};
