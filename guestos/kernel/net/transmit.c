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

/* What is on its way out of one card. */
struct transmit {
    struct nic *nic;
    struct flight flights[FLIGHTS], *free_flights;
    bool checksums, cuts;
    /* The frame that is being put together; count is 0 when there is none. */
    struct {
        struct flight *flight;
        struct nic_part part[NIC_TX_PARTS];
        u32 count;
        u8 *room; /* the device's header; the frame's own headers follow */
        struct offload_segment segment;
    } held;
};

static struct transmit transmits[NIC_MAX];
static bool was_full;

static struct transmit *of(const struct nic *nic)
{
    return &transmits[nic_get_info(nic)->index];
}

static void put_back(struct transmit *t, struct flight *flight)
{
    flight->next_free = t->free_flights;
    t->free_flights = flight;
}

bool transmit_init(struct nic *nic)
{
    u64 features = nic_get_info(nic)->features;
    struct transmit *t = of(nic);

    t->nic = nic;
    t->checksums = (features & VIRTIO_NET_F_CSUM) != 0;
    /* Without indirect tables a large frame would take many of the ring's few places. */
    t->cuts = t->checksums && (features & VIRTIO_NET_F_HOST_TSO4) != 0 && (features & VIRTIO_F_INDIRECT_DESC) != 0;
    for (u32 i = 0; i < FLIGHTS; i++)
        put_back(t, &t->flights[i]);
    return t->checksums;
}

void transmit_done(struct nic *nic, void *owner)
{
    struct flight *flight = owner;

    for (u32 i = 0; i < flight->owners; i++)
        pbuf_free(flight->owner[i]);
    put_back(of(nic), flight);
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
static bool add_parts(struct transmit *t, const struct pbuf *p, u32 skip)
{
    u32 count = t->held.count;

    for (const struct pbuf *q = p; q != NULL; q = q->next, skip = 0) {
        if (q->len == skip)
            continue;
        u64 at = (u64)q->payload + skip;
        if (count == NIC_TX_PARTS || !range_inside(at, q->len - skip, arena_base(), arena_size()))
            return false;
        t->held.part[count++] = (struct nic_part){at, q->len - skip};
    }
    t->held.count = count;
    return true;
}

static void hand_over(struct transmit *t)
{
    if (t->held.count == 0)
        return;
    status_t status = nic_send(t->nic, t->held.part, t->held.count, t->held.flight);
    /* There was room when it was begun, and nothing else was sent since; only a device that has stopped gets here. */
    if (status != OK)
        transmit_done(t->nic, t->held.flight);
    t->held.count = 0;
}

static void finish_held(struct transmit *t)
{
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};

    if (t->held.count == 0)
        return;
    if (t->held.segment.segments > 0)
        offload_finish(t->held.room + sizeof(header), &t->held.segment, &header);
    memcpy(t->held.room, &header, sizeof(header));
    hand_over(t);
}

/* Begin a new frame with p. ERR_VAL: the device cannot take it as it lies in memory. */
static err_t begin(struct transmit *t, struct pbuf *p)
{
    if (pbuf_add_header(p, sizeof(struct virtio_net_hdr)) != 0)
        return ERR_VAL;
    bool fits = add_parts(t, p, 0);
    t->held.room = p->payload;
    pbuf_remove_header(p, sizeof(struct virtio_net_hdr));
    if (!fits)
        return ERR_VAL;
    if (t->free_flights == NULL || !nic_can_send(t->nic, t->held.count)) {
        t->held.count = 0;
        was_full = true;
        return ERR_MEM;
    }
    t->held.flight = t->free_flights;
    t->free_flights = t->held.flight->next_free;
    t->held.flight->owners = 0;
    own(t->held.flight, p);
    t->held.segment.segments = 0;
    return ERR_OK;
}

static bool try_append(struct transmit *t, struct pbuf *p, const struct offload_segment *segment)
{
    u8 *first = t->held.room + sizeof(struct virtio_net_hdr);

    if (t->held.count == 0 || t->held.segment.segments == 0 || t->held.flight->owners == MAX_SEGMENTS ||
        !offload_follows(first, &t->held.segment, p->payload, segment) || !add_parts(t, p, segment->headers))
        return false;
    offload_append(first, &t->held.segment, p->payload, segment);
    own(t->held.flight, p);
    return true;
}

static err_t send(struct transmit *t, struct pbuf *p)
{
    struct offload_segment segment;
    bool is_tcp = t->checksums && offload_read(p->payload, p->len, p->tot_len, &segment);

    if (is_tcp && t->cuts && try_append(t, p, &segment))
        return ERR_OK;
    finish_held(t); /* frames leave in the order in which they came */
    err_t error = begin(t, p);
    if (error != ERR_OK)
        return error;
    if (is_tcp)
        t->held.segment = segment;
    if (!is_tcp || !t->cuts)
        finish_held(t);
    return ERR_OK;
}

err_t transmit_frame(struct nic *nic, struct pbuf *p)
{
    struct transmit *t = of(nic);
    err_t error = send(t, p);

    if (error != ERR_VAL)
        return error;
    /* Not in the arena, or no room in front: a frame that was made in another way. A copy is right. */
    struct pbuf *copy = pbuf_clone(PBUF_RAW_TX, PBUF_RAM, p);
    if (copy == NULL)
        return ERR_MEM;
    error = send(t, copy);
    pbuf_free(copy);
    return error;
}

void transmit_flush(struct nic *nic)
{
    struct transmit *t = of(nic);

    finish_held(t);
    nic_flush(nic);
}

bool transmit_was_full(void)
{
    bool result = was_full;

    was_full = false;
    return result;
}
