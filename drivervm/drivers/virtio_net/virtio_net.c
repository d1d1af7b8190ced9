/*
 * VirtIO's own network device (VirtIO 1.2 5.1), as a hypervisor below us shows it. At each start, and whenever the
 * guest resets its device, the whole way is gone again: reset, features, queues, filter. What the guest may ask for is
 * what the device offers; the class checks its headers, and our own ones go to the device.
 *
 * Mergeable buffers are between the class and the guest. The device has no use for them: each of our buffers takes a
 * frame, and it is not asked to join frames.
 */
#include "drivervm/drivers/virtio_net/virtio_net.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define NAME "virtio_net"
#define WANTED                                                                                                         \
    (VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MAC | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_STATUS |   \
     VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX)

#define RX_CHAIN 2u                       /* header and frame */
#define TX_CHAIN (RING_MAX_SEGMENTS + 2u) /* header, and the pieces behind it */
#define CONTROL_CHAIN 2u                  /* command and answer */
#define CONTROL_US 500000u
#define FRAMES_AT_ONCE 64u /* a flood must not keep us from everything else */
#define NOT_ANSWERED 0xffu

/* What the device reads and writes beside the guest's data. */
struct memory {
    struct virtio_net_hdr rx[NET_BUFFERS]; /* by buffer */
    struct {                               /* by tag; protocol headers only when the packet is cut */
        struct virtio_net_hdr header;
        u8 headers[NET_HEADERS_MOST];
    } tx[RING_TAGS];
    u8 command[CONTROL_MOST];
    u8 answer;
};
_Static_assert(offsetof(struct memory, tx[0].headers) - offsetof(struct memory, tx[0]) == sizeof(struct virtio_net_hdr),
               "one piece");

/* 5.1.4: the width of each field of struct virtio_net_config that we read. */
static const u8 config_fields[] = {1, 1, 1, 1, 1, 1};

static struct {
    struct virtq rx, tx, control;
    struct memory *memory;
    u64 partial; /* frames that came without their checksum */
} net;

/* ---- filter (5.1.6.5.1, 5.1.6.5.2) ---- */

static bool command(u32 bytes)
{
    struct virtq *q = &net.control;
    u32 length = 0;

    net.memory->answer = NOT_ANSWERED;
    virtq_begin(q, 0);
    virtq_put(q, (u64)net.memory->command, bytes, false);
    virtq_put(q, (u64)&net.memory->answer, 1, true);
    virtq_end(q);
    status_t status = virtq_run(q, CONTROL_US, &length);
    if (status != OK) {
        log_line(NAME ": no answer on the control queue");
        driver_fault(DRIVER_FAULT_DEVICE, status);
    }
    return length == 1 && __atomic_load_n(&net.memory->answer, __ATOMIC_RELAXED) == VIRTIO_NET_OK;
}

static bool command_mode(u8 mode, bool on)
{
    net.memory->command[0] = VIRTIO_NET_CTRL_RX;
    net.memory->command[1] = mode;
    net.memory->command[2] = on;
    return command(3);
}

/* A device that cannot filter lets everything in, which it may always do; so one that refuses is told to. */
static void set_filter(const struct net_filter *filter)
{
    if (!virtio_has(VIRTIO_NET_F_CTRL_RX))
        return;
    bool done = command(frame_address_tables(net.memory->command, filter)) &&
                command_mode(VIRTIO_NET_CTRL_RX_ALLMULTI, filter->all_multicast) &&
                command_mode(VIRTIO_NET_CTRL_RX_PROMISC, filter->promiscuous);
    if (!done)
        log_line(NAME ": the device refuses the filter and %s",
                 command_mode(VIRTIO_NET_CTRL_RX_PROMISC, true) ? "lets all frames in" : "being open as well");
}

/* ---- life ---- */

/* 5.1.3.1: features that need another one which the device does not offer are not ours to accept. */
static u64 sane(u64 wanted)
{
    if (!virtio_has(VIRTIO_NET_F_CSUM))
        wanted &= ~VIRTIO_NET_F_HOST_TSO4;
    if (!virtio_has(VIRTIO_NET_F_CTRL_VQ))
        wanted &= ~VIRTIO_NET_F_CTRL_RX;
    return wanted;
}

static status_t negotiate(void)
{
    status_t status = virtio_negotiate(WANTED);

    if (status == OK && sane(WANTED) != WANTED && virtio_has(WANTED & ~sane(WANTED)))
        status = virtio_negotiate(sane(WANTED));
    if (status == OK && !virtio_has(VIRTIO_NET_F_MAC)) {
        log_line(NAME ": the device has no address");
        status = ERR_UNSUPPORTED;
    }
    return status;
}

/* The class gives us so many buffers and packets; a queue that is smaller than the longest of them is of no use. */
static status_t start_queues(void)
{
    status_t status = virtq_start(&net.rx, VIRTIO_NET_QUEUE_RX, NET_BUFFERS, RX_CHAIN, false);

    if (status == OK)
        status = virtq_start(&net.tx, VIRTIO_NET_QUEUE_TX, RING_TAGS, TX_CHAIN, true);
    if (status == OK && virtio_has(VIRTIO_NET_F_CTRL_VQ))
        status = virtq_start(&net.control, VIRTIO_NET_QUEUE_CTRL, 1, CONTROL_CHAIN, true);
    if (status != OK)
        return status;
    u32 buffers = net.rx.indirect ? net.rx.size : net.rx.size / RX_CHAIN;
    return buffers >= NET_BUFFERS && net.tx.room == TX_CHAIN ? OK : ERR_UNSUPPORTED;
}

static status_t restart(const struct net_filter *filter)
{
    status_t status = negotiate();

    if (status == OK)
        status = start_queues();
    if (status != OK)
        return status;
    virtio_go();
    set_filter(filter);
    return OK;
}

static status_t start(struct net_device *device)
{
    u64 began = tsc_read();

    net.memory = dma_alloc(sizeof(*net.memory), PAGE_SIZE);
    if (!net.memory)
        return ERR_NO_MEMORY;
    status_t status = virtio_open(NAME, VIRTIO_ID_NET);
    if (status == OK)
        status = negotiate();
    if (status != OK)
        return status;
    *device = (struct net_device){.sends_checksums = virtio_has(VIRTIO_NET_F_CSUM),
                                  .cuts_segments = virtio_has(VIRTIO_NET_F_HOST_TSO4),
                                  .checks_received = virtio_has(VIRTIO_NET_F_GUEST_CSUM)};
    status = virtio_config(device->address, config_fields, ARRAY_SIZE(config_fields));
    log_line(NAME ": %02x:%02x:%02x:%02x:%02x:%02x%s%s%s, known after %llu us", device->address[0], device->address[1],
             device->address[2], device->address[3], device->address[4], device->address[5],
             device->sends_checksums ? ", checksums" : "", device->cuts_segments ? ", cuts segments" : "",
             virtio_has(VIRTIO_NET_F_CTRL_RX) ? ", filter" : "", (unsigned long long)microseconds_since(began));
    return status;
}

/* ---- frames ---- */

static bool send(const struct net_packet *packet)
{
    struct virtq *q = &net.tx;
    struct virtio_net_hdr *header = &net.memory->tx[packet->tag].header;
    u32 skip = packet->headers;

    if (!virtq_fits(q, packet->count + 1))
        return false;
    *header = frame_header(packet);
    memcpy(net.memory->tx[packet->tag].headers, packet->header, packet->headers);
    virtq_begin(q, packet->tag);
    virtq_put(q, (u64)header, (u32)sizeof(*header) + packet->headers, false);
    for (u32 i = 0; i < packet->count; i++) {
        const struct net_piece *piece = &packet->piece[i];
        u32 part = skip < piece->length ? skip : piece->length;
        skip -= part;
        if (piece->length > part)
            virtq_put(q, piece->address + part, piece->length - part, false);
    }
    virtq_end(q);
    return true;
}

static void receive(u32 buffer, u64 address)
{
    virtq_begin(&net.rx, buffer);
    virtq_put(&net.rx, (u64)&net.memory->rx[buffer], sizeof(struct virtio_net_hdr), true);
    virtq_put(&net.rx, address, NET_FRAME_MOST, true);
    virtq_end(&net.rx);
}

static void flush(void)
{
    virtq_flush(&net.rx);
    virtq_flush(&net.tx);
}

/* The header is copied once: the device may still write there. Nothing was agreed on that joins frames. */
static void take_frame(u32 buffer, u32 length)
{
    struct virtio_net_hdr header = net.memory->rx[buffer];
    u32 bytes = length > sizeof(header) && length - sizeof(header) <= NET_FRAME_MOST ? length - sizeof(header) : 0;

    asm volatile("" : : : "memory");
    struct net_check check = {.kind = NET_CHECK_NONE, header.csum_start, header.csum_offset};
    if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
        bytes = 0;
    if (virtio_has(VIRTIO_NET_F_GUEST_CSUM) && (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        check.kind = NET_CHECK_PARTIAL;
        net.partial++;
    } else if (virtio_has(VIRTIO_NET_F_GUEST_CSUM) && (header.flags & VIRTIO_NET_HDR_F_DATA_VALID)) {
        check.kind = NET_CHECK_GOOD;
    }
    net_received(buffer, bytes, check);
}

static bool collect(void)
{
    u32 slot, length, frames = 0;
    bool sent = false;

    for (; virtq_next(&net.tx, &slot, &length); sent = true)
        net_sent((u16)slot);
    for (; frames < FRAMES_AT_ONCE && virtq_next(&net.rx, &slot, &length); frames++)
        take_frame(slot, length);
    if (sent)
        virtq_listen(&net.tx);
    if (sent || frames > 0)
        return true;
    return !virtq_listen(&net.rx); /* no interrupts before we have nothing to do but wait for one */
}

/* Asked for whenever the device has news, so this is where one that needs a reset is noticed. */
static bool link_is_up(void)
{
    virtio_check();
    return !virtio_has(VIRTIO_NET_F_STATUS) ||
           (virtio_config_field(offsetof(struct virtio_net_config, status), 2) & VIRTIO_NET_S_LINK_UP);
}

static void log_statistics(void)
{
    log_line(NAME ": %llu frames came without their checksum", (unsigned long long)net.partial);
}

const struct net_driver net_driver = {.name = NAME,
                                      .start = start,
                                      .restart = restart,
                                      .set_filter = set_filter,
                                      .send = send,
                                      .receive = receive,
                                      .flush = flush,
                                      .acknowledge = virtio_acknowledge,
                                      .collect = collect,
                                      .link_is_up = link_is_up,
                                      .log_statistics = log_statistics};
