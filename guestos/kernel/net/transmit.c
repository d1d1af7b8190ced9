#include "guestos/kernel/net/transmit.h"

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/net/offload.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define MAX_SEGMENTS 44u /* full ones in the 65535 bytes of an IP packet */
#define FLIGHTS 256u     /* frames in the transmit ring; its size has the same limit */
#define ROOM_SIZE 2048u  /* a whole frame of this MTU, and the device's header */

/*
 * One frame in the device's hands. Its pbufs are referred to, so that lwIP sends no segment again before. What of them
 * does not lie in the arena is copied into its room: the pages around it are the device's to look at, and a device may
 * not keep to what it was granted (docs/FAULTS.md, Limits), so nothing of lwIP's own bookkeeping may be near.
 */
struct flight {
    struct flight *next_free;
    struct pbuf *owner[MAX_SEGMENTS];
    u32 owners;
    u8 *room; /* the device's header, the frame's own, and copies */
    u32 used;
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

status_t transmit_init(struct nic *nic, bool *checksums)
{
    const struct nic_info *info = nic_get_info(nic);
    struct transmit *t = of(nic);
    u32 flights = info->tx_size < FLIGHTS ? info->tx_size : FLIGHTS;
    u8 *rooms = (u8 *)frames_alloc(PAGE_UP((u64)flights * ROOM_SIZE) / PAGE_SIZE, PAGE_SIZE);

    if (rooms == NULL)
        return ERR_NO_MEMORY;
    t->nic = nic;
    t->checksums = (info->features & VIRTIO_NET_F_CSUM) != 0;
    /* Without indirect tables a large frame would take many of the ring's few places. */
    t->cuts = t->checksums && (info->features & VIRTIO_NET_F_HOST_TSO4) != 0 &&
              (info->features & VIRTIO_F_INDIRECT_DESC) != 0;
    for (u32 i = 0; i < flights; i++) {
        t->flights[i].room = rooms + (u64)i * ROOM_SIZE;
        put_back(t, &t->flights[i]);
    }
    *checksums = t->checksums;
    return OK;
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

/* One more part, or more of the last one. */
static bool add_part(struct transmit *t, u64 at, u32 length)
{
    struct nic_part *last = t->held.count > 0 ? &t->held.part[t->held.count - 1] : NULL;

    if (last != NULL && last->address + last->length == at)
        last->length += length;
    else if (t->held.count < NIC_TX_PARTS)
        t->held.part[t->held.count++] = (struct nic_part){at, length};
    else
        return false;
    return true;
}

static bool add_copy(struct transmit *t, const void *bytes, u32 length)
{
    struct flight *flight = t->held.flight;
    u8 *at = flight->room + flight->used;

    if (length > ROOM_SIZE - flight->used || !add_part(t, (u64)at, length))
        return false;
    memcpy(at, bytes, length);
    flight->used += length;
    return true;
}

/*
 * Add the pbufs from byte `skip` of the first one on: in place where they lie in the arena. False: there are too many,
 * or there is no room for copies.
 */
static bool add_pbufs(struct transmit *t, const struct pbuf *p, u32 skip)
{
    for (const struct pbuf *q = p; q != NULL; q = q->next, skip = 0) {
        const u8 *bytes = (const u8 *)q->payload + skip;
        u32 length = q->len - skip;
        bool in_place = range_inside((u64)bytes, length, arena_base(), arena_size());
        if (length > 0 && !(in_place ? add_part(t, (u64)bytes, length) : add_copy(t, bytes, length)))
            return false;
    }
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
        offload_finish(t->held.flight->room + sizeof(header), &t->held.segment, &header);
    memcpy(t->held.flight->room, &header, sizeof(header));
    hand_over(t);
}

/* Begin a new frame with p, whose headers are all in its first pbuf. ERR_MEM: no room. ERR_VAL: no frame of this MTU.
 */
static err_t begin(struct transmit *t, struct pbuf *p)
{
    struct flight *flight = t->free_flights;

    if (flight == NULL) {
        was_full = true;
        return ERR_MEM;
    }
    t->held.flight = flight;
    t->held.segment.segments = 0;
    flight->owners = flight->used = 0;
    bool fits = add_copy(t, &(struct virtio_net_hdr){0}, sizeof(struct virtio_net_hdr)) &&
                add_copy(t, p->payload, p->len) && add_pbufs(t, p, p->len);
    if (!fits || !nic_can_send(t->nic, t->held.count)) {
        t->held.count = 0;
        was_full |= fits;
        return fits ? ERR_MEM : ERR_VAL;
    }
    t->free_flights = flight->next_free;
    own(flight, p);
    return ERR_OK;
}

static bool try_append(struct transmit *t, struct pbuf *p, const struct offload_segment *segment)
{
    if (t->held.count == 0 || t->held.segment.segments == 0 || t->held.flight->owners == MAX_SEGMENTS)
        return false;
    u8 *first = t->held.flight->room + sizeof(struct virtio_net_hdr);
    u32 count = t->held.count, used = t->held.flight->used;
    struct nic_part last = t->held.part[count - 1];
    if (!offload_follows(first, &t->held.segment, p->payload, segment))
        return false;
    if (!add_pbufs(t, p, segment->headers)) {
        t->held.part[count - 1] = last;
        t->held.count = count;
        t->held.flight->used = used;
        return false;
    }
    offload_append(first, &t->held.segment, p->payload, segment);
    own(t->held.flight, p);
    return true;
}

err_t transmit_frame(struct nic *nic, struct pbuf *p)
{
    struct transmit *t = of(nic);
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
