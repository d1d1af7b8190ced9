/*
 * For Eva: the completion check on a completion page of any content, for one queue (they are alike), in each state that
 * virtio_pci.c leaves a virtqueue in: enabled, of the smallest and the largest size; disabled, which it is with
 * requests in flight only while the device resets. A disabled queue's pointers are NULL here: nothing may be written
 * there. What other files do to the relay is left out, but for the flag that inflight_remove() clears: its order of the
 * tags is WP's matter.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "tests/proof/world.h"

/*@ requires \false; assigns \nothing; ensures \false; */
void proof_panic(void);
#define panic(...) proof_panic()
#define recovery_report(driver, kind, detail, address, ...) ((void)0)

/* The contracts in these files are WP's. */
/*@ predicate queue_of(struct relay *r, struct relay_queue *q) = \true;
    predicate queue_holds(struct virtqueue *vq) = \true;
    predicate in_ram(struct vm *vm, integer gpa, integer length) = \true;
    predicate segment_holds(struct chain *c, struct vm *vm, integer i) = \true;
    predicate chain_holds(struct chain *c, struct vm *vm) = \true; */

#include "hv/relay/complete.c"
#include "hv/relay/queue.c"

static struct relay relay;
static struct ring_completion_page completions;
static struct ring_request_page requests;
static u8 avail[sizeof(struct virtq_avail) + (RING_TAGS + 1) * sizeof(u16)];
static u8 used[sizeof(struct virtq_used) + RING_TAGS * sizeof(struct virtq_used_elem) + sizeof(u16)];

void inflight_remove(struct inflight *log, u8 tag)
{
    log->slot[tag].in_flight = false;
    log->count = (u32)any_u64();
}

void relay_close(struct relay *closed)
{
    closed->state = RELAY_CLOSED;
}

void grants_release(struct relay *of, const struct chain *chain)
{
}

void grants_settle(struct relay *of)
{
}

void device_interrupt(struct relay *of, u16 vector, u8 isr)
{
}

void device_finish_reset(struct relay *of)
{
}

void recovery_first_completion(struct driver *driver)
{
}

u64 tsc_now(void)
{
    return any_u64();
}

/* Everything in the relay and the queue is any value, but for pointers and what the comment above names. size 0:
 * disabled. */
static struct relay_queue *queue_in_state(u32 size, bool resetting, bool in_flight)
{
    struct relay_queue *queue = &relay.queue[RING_MAX_QUEUES - 1];
    relay.state = RELAY_OPEN;
    relay.awaits_completion = any_u64() & 1;
    relay.device.resetting = resetting;
    queue->produced = (u32)any_u64();
    queue->consumed = (u32)any_u64();
    queue->completed = (u32)any_u64();
    queue->completions = &completions;
    queue->requests = &requests;
    Frama_C_make_unknown((char *)&queue->vq, sizeof(queue->vq));
    queue->vq.enabled = size != 0;
    queue->vq.size = (u16)size;
    queue->vq.avail = size == 0 ? NULL : (void *)UNKNOWN(avail, sizeof(struct virtq_avail) + (size + 1) * sizeof(u16));
    queue->vq.used =
        size == 0
            ? NULL
            : (void *)UNKNOWN(used, sizeof(struct virtq_used) + size * sizeof(struct virtq_used_elem) + sizeof(u16));
    queue->log.count = (u32)any_u64();
    //@ loop unroll 128;
    for (u32 tag = 0; tag < RING_TAGS; tag++) {
        struct log_slot *slot = &queue->log.slot[tag];
        slot->in_flight = in_flight && (any_u64() & 1);
        slot->granted = any_u64() & 1;
        slot->chain.head = (u16)any_u64();
        slot->chain.readable_bytes = (u32)any_u64();
        slot->chain.writable_bytes = (u32)any_u64();
    }
    return queue;
}

/* A claim of each tag and each length, while in flight and not; the chain's device-writable part as long as given. */
static void claims(struct relay_queue *queue, u32 writable)
{
    //@ loop unroll 128;
    for (u32 tag = 0; tag < RING_TAGS; tag++) {
        struct log_slot *slot = &queue->log.slot[tag];
        slot->in_flight = false;
        const char *why = accept(&relay, queue, (u16)tag, (u32)any_u64());
        //@ assert not_in_flight: why != \null;
        slot->in_flight = true;
        slot->chain.writable_bytes = writable;
        why = accept(&relay, queue, (u16)tag, Frama_C_unsigned_int_interval(writable + 1, UINT32_MAX));
        //@ assert too_long: why != \null;
        why = accept(&relay, queue, (u16)tag, Frama_C_unsigned_int_interval(0, writable));
        //@ assert taken: why == \null && slot->in_flight == 0;
    }
    const char *why = accept(&relay, queue, (u16)Frama_C_unsigned_int_interval(RING_TAGS, UINT16_MAX), (u32)any_u64());
    //@ assert no_tag: why != \null;
}

int main(void)
{
    (void)complete_queue(&relay, queue_in_state(1, any_u64() & 1, true));
    (void)complete_queue(&relay, queue_in_state(RING_TAGS, any_u64() & 1, true));
    (void)complete_queue(&relay, queue_in_state(0, true, true));
    (void)complete_queue(&relay, queue_in_state(0, false, false));
    claims(queue_in_state(RING_TAGS, false, true), 4097);
    claims(queue_in_state(RING_TAGS, true, true), UINT32_MAX - 1);
    return 0;
}
