/* From the guest's available rings into the driver VM's request rings: copy, check, grant, log, publish; in that order.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"

#define ARM_ROUNDS 64u /* a guest that outruns this many is not waiting for us */

static u64 last_request_id; /* ids are unique since boot, over all relays */

/* A logged and granted request into the ring; there is room. The driver sees it after relay_publish(). */
static void ring_write(struct relay_queue *queue, u8 tag)
{
    const struct log_slot *slot = &queue->log.slot[tag];
    const struct chain *chain = &slot->chain;
    queue->cells[queue->produced++ % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = chain->count, .readable = chain->readable, .id = slot->id};
    for (u32 i = 0; i < chain->count; i++)
        queue->cells[queue->produced++ % RING_CELLS].segment =
            (struct ring_segment_cell){.address = DRIVER_WINDOW_BASE + chain->segment[i].gpa,
                                       .length = chain->segment[i].length,
                                       .flags = i < chain->readable ? 0 : RING_SEGMENT_WRITABLE};
}

static u64 submission_time(const struct relay *relay, const struct relay_queue *queue)
{
    return queue_is_patient(relay, queue) ? ~0ull : tsc_now() - relay->driver->recovery.lost;
}

/*
 * Hand the chain of the log's draft to the driver. ERR_BUSY: no room in log, ring or grants before something completes.
 * ERR_RANGE: it can never be served: a request larger than the grant cache, or out of table memory with nothing in
 * flight whose completion would free some.
 */
static status_t forward_chain(struct relay *relay, struct relay_queue *queue, const struct chain *chain)
{
    u32 cells = inflight_cells(chain);
    if (relay->state == RELAY_DEAD)
        return queue_is_patient(relay, queue) ? ERR_BUSY : ERR_RANGE;
    if (cells > queue->log.free_cells || queue->produced - queue->consumed + cells > RING_CELLS)
        return ERR_BUSY;
    status_t status = grants_take(relay, chain);
    if (status != OK)
        return status == ERR_RANGE || relay_in_flight(relay) == 0 ? ERR_RANGE : ERR_BUSY;
    ring_write(queue, inflight_add(&queue->log, ++last_request_id, submission_time(relay, queue)));
    return OK;
}

static bool forward_queue(struct relay *relay, struct relay_queue *queue)
{
    struct virtqueue *vq = &queue->vq;
    u32 before = queue->produced;
    const char *why;
    /*
     * At most one ring's worth: an honest guest cannot have more outstanding before it is shown used elements, and one
     * that refills the ring from another CPU must not keep us here.
     */
    for (u32 left = vq->size; left != 0 && device_is_live(relay) && vq->enabled; left--) {
        struct chain *chain = inflight_draft(&queue->log);
        status_t status = chain == NULL ? ERR_BUSY : virtqueue_next(vq, main_guest, chain, &why);
        if (status == ERR_INVALID)
            device_break(relay, why);
        if (status != OK)
            break;
        status = forward_chain(relay, queue, chain);
        if (status == ERR_BUSY)
            break;
        if (status != OK)
            answer_with_error(relay, queue, chain);
        vq->last_avail++;
        relay->stats.requests++;
    }
    relay_publish(relay, queue);
    return queue->produced != before;
}

bool relay_forward(struct relay *relay)
{
    bool any = false;
    if (relay->state == RELAY_CLOSED)
        return false;
    for (u32 q = 0; q < relay->offer.queues; q++) {
        if (relay->state == RELAY_OPEN && !ring_take_consumed(relay, &relay->queue[q]))
            return false; /* closed now */
        any |= forward_queue(relay, &relay->queue[q]);
    }
    return any;
}

void relay_want_kicks(struct relay *relay, bool want)
{
    for (u32 q = 0; q < relay->offer.queues; q++)
        if (relay->queue[q].vq.enabled)
            virtqueue_want_kicks(&relay->queue[q].vq, want);
}

bool relay_arm_kicks(struct relay *relay)
{
    /* Again while chains were taken that no driver will work on: avail_event must end up at the last one taken. */
    for (u32 round = 0; round < ARM_ROUNDS; round++) {
        u64 before = relay->stats.requests;
        relay_want_kicks(relay, true);
        if (relay_forward(relay))
            return true;
        if (relay->stats.requests == before)
            return false;
    }
    return false;
}

void relay_kick(struct relay *relay)
{
    relay->stats.kicks++;
    if (relay_forward(relay) || relay_arm_kicks(relay))
        driver_signal(relay->driver, DRIVER_EVENT_REQUEST);
}

bool relay_driver_has_work(const struct relay *relay)
{
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        if (__atomic_load_n(&relay->queue[q].completions->consumed, __ATOMIC_RELAXED) != relay->queue[q].produced)
            return true;
    return false;
}

void relay_replay(struct relay *relay)
{
    for (u32 q = 0; q < relay->offer.queues; q++) {
        struct relay_queue *queue = &relay->queue[q];
        for (u32 i = 0; i < queue->log.count;) {
            u8 tag = queue->log.order[i];
            struct log_slot *slot = &queue->log.slot[tag];
            if (grants_take(relay, &slot->chain) != OK) {
                /* All was granted at once before; only table memory can be missing now. The guest gets an error. */
                inflight_remove(&queue->log, tag); /* its successor moves up to i */
                answer_with_error(relay, queue, &slot->chain);
                continue;
            }
            slot->granted = true;
            slot->submitted = submission_time(relay, queue);
            ring_write(queue, tag);
            relay->stats.replayed++;
            i++;
        }
        relay_publish(relay, queue);
    }
}
