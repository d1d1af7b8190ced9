/*
 * The in-flight log: the hypervisor's own copy of every chain that a driver VM holds, by tag, in submission order. It
 * is the truth about what the guest is still owed; nothing in it was ever writable by a guest or a driver.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"

_Static_assert(RING_TAGS < NO_TAG, "tags and the end mark fit a byte");
_Static_assert(RING_COMPLETIONS >= RING_TAGS, "a correct driver cannot overrun its completion ring");

void inflight_init(struct inflight *log)
{
    log->free_cells = RING_CELLS;
    log->oldest = log->newest = NO_TAG;
    log->free = 0;
    for (u32 tag = 0; tag < RING_TAGS; tag++)
        log->slot[tag].next = tag + 1 < RING_TAGS ? (u8)(tag + 1) : NO_TAG;
}

struct chain *inflight_draft(struct inflight *log)
{
    return log->free == NO_TAG ? NULL : &log->slot[log->free].chain;
}

u8 inflight_add(struct inflight *log, u64 id, u64 now)
{
    u8 tag = log->free;
    struct log_slot *slot = &log->slot[tag];
    ASSERT_HV(tag != NO_TAG && inflight_cells(&slot->chain) <= log->free_cells);
    log->free = slot->next;
    log->free_cells -= inflight_cells(&slot->chain);
    log->count++;
    slot->in_flight = true;
    slot->granted = true;
    slot->id = id;
    slot->submitted = now;
    slot->previous = log->newest;
    slot->next = NO_TAG;
    if (log->newest == NO_TAG)
        log->oldest = tag;
    else
        log->slot[log->newest].next = tag;
    log->newest = tag;
    return tag;
}

void inflight_remove(struct inflight *log, u8 tag)
{
    struct log_slot *slot = &log->slot[tag];
    ASSERT_HV(slot->in_flight);
    if (slot->previous == NO_TAG)
        log->oldest = slot->next;
    else
        log->slot[slot->previous].next = slot->next;
    if (slot->next == NO_TAG)
        log->newest = slot->previous;
    else
        log->slot[slot->next].previous = slot->previous;
    slot->in_flight = false;
    slot->next = log->free;
    log->free = tag;
    log->free_cells += inflight_cells(&slot->chain);
    log->count--;
}
