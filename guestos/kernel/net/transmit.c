#include "guestos/kernel/net/transmit.h"

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/net/offload.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define MAX_SEGMENTS 44u /* full ones in the 65535 bytes of an IP packet */
#define FLIGHTS 256u     /* frames in the transmit ring; its size has the same limit */

/* The pbufs behind one frame in the device's hands. Each holds a reference, so that lwIP sends no segment again before.
 */
struct flight {
    struct flight *next_free;
    struct pbuf *owner[MAX_SEGMENTS];
    u32 owners;
};

/* The frame that is being put together; count is 0 when there is none. */
static struct {
    struct flight *flight;
    struct nic_part part[NIC_TX_PARTS];
    u32 count;
    u8 *room; /* the device's header; the frame's own headers follow */
    struct offload_segment segment;
} held;

static struct flight flights[FLIGHTS], *free_flights;
static bool was_full, checksums, cuts;

bool transmit_init(void)
{
    u64 features = nic_get_info()->features;

    checksums = (features & VIRTIO_NET_F_CSUM) != 0;
    /* Without indirect tables a large frame would take many of the ring's few places. */
    cuts = checksums && (features & VIRTIO_NET_F_HOST_TSO4) != 0 && (features & VIRTIO_F_INDIRECT_DESC) != 0;
    for (u32 i = 0; i < FLIGHTS; i++) {
        flights[i].next_free = free_flights;
        free_flights = &flights[i];
    }
    return checksums;
}

void transmit_done(void *owner)
{
    struct flight *flight = owner;

    for (u32 i = 0; i < flight->owners; i++)
        pbuf_free(flight->owner[i]);
    flight->next_free = free_flights;
    free_flights = flight;
}

static void own(struct flight *flight, struct pbuf *p)
{
    pbuf_ref(p);
    flight->owner[flight->owners++] = p;
}

/*
 * Add the pbufs from byte `skip` of the first one on as parts. False, with nothing added, when one of them lies where
 * the device may not look, or there are too many.
 */
static bool add_parts(const struct pbuf *p, u32 skip)
{
    u32 count = held.count;

    for (const struct pbuf *q = p; q != NULL; q = q->next, skip = 0) {
        if (q->len == skip)
            continue;
        u64 at = (u64)q->payload + skip;
        if (count == NIC_TX_PARTS || !range_inside(at, q->len - skip, arena_base(), arena_size()))
            return false;
        held.part[count++] = (struct nic_part){at, q->len - skip};
    }
    held.count = count;
    return true;
}

static void hand_over(void)
{
    if (held.count == 0)
        return;
    status_t status = nic_send(held.part, held.count, held.flight);
    /* There was room when it was begun, and nothing else was sent since; only a device that has stopped gets here. */
    if (status != OK)
        transmit_done(held.flight);
    held.count = 0;
}

static void finish_held(void)
{
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};

    if (held.count == 0)
        return;
    if (held.segment.segments > 0)
        offload_finish(held.room + sizeof(header), &held.segment, &header);
    memcpy(held.room, &header, sizeof(header));
    hand_over();
}

/* Begin a new frame with p. ERR_VAL: the device cannot take it as it lies in memory. */
static err_t begin(struct pbuf *p)
{
    if (pbuf_add_header(p, sizeof(struct virtio_net_hdr)) != 0)
        return ERR_VAL;
    bool fits = add_parts(p, 0);
    held.room = p->payload;
    pbuf_remove_header(p, sizeof(struct virtio_net_hdr));
    if (!fits)
        return ERR_VAL;
    if (free_flights == NULL || !nic_can_send(held.count)) {
        held.count = 0;
        was_full = true;
        return ERR_MEM;
    }
    held.flight = free_flights;
    free_flights = held.flight->next_free;
    held.flight->owners = 0;
    own(held.flight, p);
    held.segment.segments = 0;
    return ERR_OK;
}

static bool try_append(struct pbuf *p, const struct offload_segment *segment)
{
    u8 *first = held.room + sizeof(struct virtio_net_hdr);

    if (held.count == 0 || held.segment.segments == 0 || held.flight->owners == MAX_SEGMENTS ||
        !offload_follows(first, &held.segment, p->payload, segment) || !add_parts(p, segment->headers))
        return false;
    offload_append(first, &held.segment, p->payload, segment);
    own(held.flight, p);
    return true;
}

static err_t send(struct pbuf *p)
{
    struct offload_segment segment;
    bool is_tcp = checksums && offload_read(p->payload, p->len, p->tot_len, &segment);

    if (is_tcp && cuts && try_append(p, &segment))
        return ERR_OK;
    finish_held(); /* frames leave in the order in which they came */
    err_t error = begin(p);
    if (error != ERR_OK)
        return error;
    if (is_tcp)
        held.segment = segment;
    if (!is_tcp || !cuts)
        finish_held();
    return ERR_OK;
}

err_t transmit_frame(struct pbuf *p)
{
    err_t error = send(p);

    if (error != ERR_VAL)
        return error;
    /* Not in the arena, or no room in front: a frame that was made in another way. A copy is right. */
    struct pbuf *copy = pbuf_clone(PBUF_RAW_TX, PBUF_RAM, p);
    if (copy == NULL)
        return ERR_MEM;
    error = send(copy);
    pbuf_free(copy);
    return error;
}

void transmit_flush(void)
{
    finish_held();
    nic_flush();
}

bool transmit_was_full(void)
{
    bool result = was_full;

    was_full = false;
    return result;
}
