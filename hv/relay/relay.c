/* The life of a relay: created at boot, opened by the driver's offer, closed and opened again by recovery, or given up.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "shared/lib/string.h"

#define OFFER_FEATURES 0xfffc000000ffffffull /* device-type bits: 0..23 and 50..63 (VirtIO 1.2 section 6) */
#define VIRTIO_TYPE_MAX 63u                  /* PCI device ids end at 0x107f (4.1.2) */

_Static_assert(RING_REQUEST_BYTES <= DRIVER_RING_COMPLETION_OFFSET, "the two rings of a queue do not overlap");
_Static_assert(DRIVER_RING_COMPLETION_OFFSET + RING_COMPLETION_BYTES <= DRIVER_RING_STRIDE, "nor those of two queues");
_Static_assert(RING_MAX_QUEUES *RING_CELLS <= UINT16_MAX, "users of one page fit struct grant");

struct relay *relays[VM_MAX];

/* The request ring is read-only to the driver: what it was asked cannot be rewritten by it. */
static status_t queue_create(struct relay_queue *queue, struct vm *vm, u64 at)
{
    queue->requests = boot_frames(RING_REQUEST_BYTES / PAGE_SIZE, "request rings");
    queue->cells = (union ring_cell *)(queue->requests + 1);
    queue->completions = boot_frames(RING_COMPLETION_BYTES / PAGE_SIZE, "completion rings");
    inflight_init(&queue->log);
    status_t status = page_table_map(&vm->npt, at, ptr_to_hpa(queue->requests), RING_REQUEST_BYTES, PAGE_READ);
    if (status == OK)
        status = page_table_map(&vm->npt, at + DRIVER_RING_COMPLETION_OFFSET, ptr_to_hpa(queue->completions),
                                RING_COMPLETION_BYTES, PAGE_READ | PAGE_WRITE);
    return status;
}

/* An error ends the boot, so nothing is given back here. */
status_t relay_create(struct driver *driver, struct relay **out)
{
    status_t status = OK;
    struct relay *relay = boot_frames(PAGE_UP(sizeof(*relay)) / PAGE_SIZE, "a relay");
    relay->owner = driver->vm;
    relay->driver = driver;
    grants_create(relay);
    for (u32 q = 0; q < RING_MAX_QUEUES && status == OK; q++)
        status = queue_create(&relay->queue[q], driver->vm, DRIVER_RINGS_ADDRESS + q * DRIVER_RING_STRIDE);
    *out = relay;
    return status;
}

/* Unsigned: 0 less 1 is too many. */
static bool offer_is_valid(const struct driver_offer *offer)
{
    return offer->virtio_type - 1 < VIRTIO_TYPE_MAX && offer->queues - 1 < RING_MAX_QUEUES &&
           (offer->features & ~OFFER_FEATURES) == 0 && offer->queue_size - 1 < RING_TAGS &&
           (offer->queue_size & (offer->queue_size - 1)) == 0 && offer->config_length <= DRIVER_CONFIG_SIZE &&
           offer->error_length <= DRIVER_ERROR_SIZE && offer->patient_queues >> offer->queues == 0;
}

/* The guest negotiated with the predecessor: its successor must be able to keep those promises. */
static bool offer_matches(const struct driver_offer *a, const struct driver_offer *b)
{
    return a->virtio_type == b->virtio_type && a->queues == b->queues && a->features == b->features &&
           a->queue_size == b->queue_size && a->patient_queues == b->patient_queues;
}

status_t relay_offer(struct relay *relay, const struct driver_offer *offer)
{
    if (relay->state == RELAY_OPEN)
        return ERR_STATE;
    bool first = relays[relay->driver->vm->id] == NULL;
    if (!offer_is_valid(offer) || (!first && !offer_matches(&relay->offer, offer)))
        return ERR_INVALID;
    relay->offer = *offer;
    if (first) {
        relay->state = RELAY_OPEN;
        device_create(relay);
        relays[relay->driver->vm->id] = relay;
        return OK;
    }
    relay_revoke_all(relay); /* done in quiesce already; whatever order the stages have, a replay starts from nothing */
    relay->awaits_completion = true;
    relay_replay(relay);
    relay->state = RELAY_OPEN;
    ASSERT_HV(relay_config(relay, offer->config, offer->config_length) == OK);
    device_announce_features(relay);
    /* Kicks that came while nobody listened, and the replay. */
    if (relay_forward(relay) || relay_driver_has_work(relay))
        driver_signal(relay->driver, DRIVER_EVENT_REQUEST);
    return OK;
}

void relay_close(struct relay *relay)
{
    if (relay->state == RELAY_OPEN)
        relay->state = RELAY_CLOSED;
}

void relay_revoke_all(struct relay *relay)
{
    grants_revoke_all(relay);
    device_finish_reset(relay);
}

void relay_reset_rings(struct relay *relay)
{
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        struct relay_queue *queue = &relay->queue[q];
        memset(queue->requests, 0, RING_REQUEST_BYTES);
        memset(queue->completions, 0, RING_COMPLETION_BYTES);
        queue->produced = queue->consumed = queue->completed = 0;
    }
}

void relay_give_up(struct relay *relay, bool answer)
{
    relay->state = answer ? RELAY_DEAD : RELAY_CLOSED;
    relay_revoke_all(relay);
    relay_reset_rings(relay);
    if (!answer)
        return;
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        struct relay_queue *queue = &relay->queue[q];
        while (queue->log.count != 0 && !queue_is_patient(relay, queue)) {
            u8 tag = queue->log.order[0];
            inflight_remove(&queue->log, tag);
            answer_with_error(relay, queue, &queue->log.slot[tag].chain);
        }
        relay_publish(relay, queue);
    }
    relay_arm_kicks(relay);
}

u64 relay_oldest(const struct relay *relay)
{
    u64 oldest = ~0ull;
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        const struct inflight *log = &relay->queue[q].log;
        if (log->count != 0 && log->slot[log->order[0]].submitted < oldest)
            oldest = log->slot[log->order[0]].submitted;
    }
    return oldest;
}

u32 relay_in_flight(const struct relay *relay)
{
    u32 count = 0;
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        count += relay->queue[q].log.count;
    return count;
}

struct relay_stats relay_stats(const struct relay *relay)
{
    struct relay_stats stats = relay->stats;
    stats.granted_pages = relay->grants.count;
    stats.in_flight = relay_in_flight(relay);
    return stats;
}

struct ring_completion_page *relay_completion_page(struct relay *relay, u32 queue)
{
    return relay->queue[queue].completions;
}

struct ring_request_page *relay_request_page(struct relay *relay, u32 queue)
{
    return relay->queue[queue].requests;
}

status_t relay_some_in_flight(struct relay *relay, u32 queue, u16 *tag, u32 *max_length)
{
    const struct inflight *log = &relay->queue[queue].log;
    if (log->count == 0)
        return ERR_NOT_FOUND;
    *tag = log->order[0];
    *max_length = log->slot[*tag].chain.writable_bytes;
    return OK;
}

bool relay_is_granted(const struct relay *relay, gpa_t page)
{
    u64 index = page.v / PAGE_SIZE;
    return index < relay->grants.page_count && relay->grants.page[index].rights != 0;
}
