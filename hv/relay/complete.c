/*
 * From the driver VM's completion rings into the guest's used rings. What a driver writes is a claim: which tag, how
 * many bytes. It is copied once, held against the in-flight log, and only what the log bears out reaches the guest,
 * once.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"

/* Nothing more is taken from this driver, nor given to it, until its successor offers. */
/*@ requires \valid(relay) && queue_of(relay, queue);
    assigns relay->state; */
static void violation(struct relay *relay, struct relay_queue *queue, const char *what, u64 detail)
{
    u32 index = (u32)(queue - relay->queue);
    relay_close(relay);
    recovery_report(relay->driver, FAULT_COMPLETION_RING, detail, index, "queue %u: %s (%lu)", index, what, detail);
}

bool ring_take_consumed(struct relay *relay, struct relay_queue *queue)
{
    /* Acquire: the driver's reads of the cells come before this store of its; the cells may be written again. */
    u32 consumed = __atomic_load_n(&queue->completions->consumed, __ATOMIC_ACQUIRE);
    if (consumed - queue->consumed > queue->produced - queue->consumed) {
        violation(relay, queue, "consumed index jumps", consumed);
        return false;
    }
    queue->consumed = consumed;
    return true;
}

void relay_publish(struct relay *relay, struct relay_queue *queue)
{
    grants_settle(relay); /* strict: the pages are out of reach before the guest hears of it */
    __atomic_store_n(&queue->requests->produced, queue->produced, __ATOMIC_RELEASE);
    if (!queue->vq.enabled || queue->vq.published == queue->vq.used_idx)
        return;
    if (virtqueue_publish(&queue->vq))
        device_interrupt(relay, queue->vq.vector, ISR_QUEUE);
    relay->stats.last_completion = tsc_now();
    if (relay->awaits_completion) {
        relay->awaits_completion = false;
        recovery_first_completion(relay->driver);
    }
}

/* The error bytes are the last of the device-writable part, which may be split over segments (VirtIO 1.2 2.7.4). */
/*@ requires \valid_read(offer) && \valid_read(chain) && \valid_read(main_guest);
    requires offer->error_length <= DRIVER_ERROR_SIZE && chain_holds(chain, main_guest);
    assigns \nothing; */
static void write_error(const struct driver_offer *offer, const struct chain *chain)
{
    u32 left = offer->error_length;
    if (left > chain->writable_bytes)
        return;
    /*@ loop invariant i <= chain->count && left <= offer->error_length;
        loop assigns i, left;
        loop variant i; */
    for (u32 i = chain->count; left != 0 && i-- > chain->readable;) {
        const struct chain_segment *segment = &chain->segment[i];
        //@ assert segment_holds(chain, main_guest, i);
        u32 part = segment->length < left ? segment->length : left;
        left -= part;
        status_t status = vm_write(main_guest, GPA(segment->gpa + segment->length - part), offer->error + left, part);
        ASSERT_HV(status == OK); /* the segment was checked against RAM when it was copied */
    }
}

void answer_with_error(struct relay *relay, struct relay_queue *queue, const struct chain *chain)
{
    write_error(&relay->offer, chain);
    virtqueue_fill(&queue->vq, chain->head, chain->writable_bytes);
    relay->stats.errors_answered++;
}

/* One completion, copied. NULL, or what is wrong with it. */
static const char *accept(struct relay *relay, struct relay_queue *queue, u16 tag, u32 length)
{
    struct inflight *log = &queue->log;
    if (tag >= RING_TAGS || !log->slot[tag].in_flight)
        return "tag is not in flight";
    struct log_slot *slot = &log->slot[tag];
    if (length > slot->chain.writable_bytes)
        return "impossible length";
    if (slot->granted)
        grants_release(relay, &slot->chain);
    if (!relay->device.resetting) { /* else it is withdrawn: nothing is published */
        virtqueue_fill(&queue->vq, slot->chain.head, length);
        relay->stats.completions++;
        relay->stats.bytes_read += length;
        relay->stats.bytes_written += slot->chain.readable_bytes;
    }
    inflight_remove(log, (u8)tag);
    return NULL;
}

static u32 complete_queue(struct relay *relay, struct relay_queue *queue)
{
    struct ring_completion_page *page = queue->completions;
    u32 accepted = 0;
    if (!ring_take_consumed(relay, queue))
        return 0;
    /* Acquire: the entries were written before `produced`. */
    u32 produced = __atomic_load_n(&page->produced, __ATOMIC_ACQUIRE);
    if (produced - queue->completed > RING_COMPLETIONS) {
        violation(relay, queue, "produced index jumps", produced);
        return 0;
    }
    for (; queue->completed != produced; queue->completed++) {
        const struct ring_completion *entry = &page->entry[queue->completed % RING_COMPLETIONS];
        u16 tag = __atomic_load_n(&entry->tag, __ATOMIC_RELAXED);
        u32 length = __atomic_load_n(&entry->length, __ATOMIC_RELAXED);
        const char *wrong = accept(relay, queue, tag, length);
        if (wrong != NULL) {
            violation(relay, queue, wrong, (u64)tag << 32 | length);
            break;
        }
        accepted++;
    }
    relay_publish(relay, queue);
    return accepted;
}

u32 relay_complete(struct relay *relay)
{
    u32 accepted = 0;
    for (u32 q = 0; q < relay->offer.queues && relay->state == RELAY_OPEN; q++) {
        struct relay_queue *queue = &relay->queue[q];
        accepted += complete_queue(relay, queue);
        /* Cells that stay taken fill the ring in the end, with nothing in flight: no deadline would notice. */
        if (relay->state == RELAY_OPEN && queue->log.count == 0 && queue->consumed != queue->produced)
            violation(relay, queue, "all completed, not all consumed", queue->consumed);
    }
    device_finish_reset(relay);
    return accepted;
}
