/*
 * The in-flight log: the hypervisor's own copy of every chain that a driver VM holds, by tag, in submission order. It
 * is the truth about what the guest is still owed; nothing in it was ever writable by a guest or a driver.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "shared/lib/string.h"

_Static_assert(RING_TAGS <= UINT8_MAX + 1, "a tag fits a byte");
_Static_assert(RING_COMPLETIONS >= RING_TAGS, "a correct driver cannot overrun its completion ring");

void inflight_init(struct inflight *log)
{
    log->free_cells = RING_CELLS;
    /*@ loop invariant tag <= RING_TAGS && \forall integer i; 0 <= i < tag ==> log->order[i] == i;
        loop assigns tag, log->order[0 .. RING_TAGS - 1];
        loop variant RING_TAGS - tag; */
    for (u32 tag = 0; tag < RING_TAGS; tag++)
        log->order[tag] = (u8)tag;
}

struct chain *inflight_draft(struct inflight *log)
{
    return log->count == RING_TAGS ? NULL : &log->slot[log->order[log->count]].chain;
}

u8 inflight_add(struct inflight *log, u64 id, u64 now)
{
    ASSERT_HV(log->count < RING_TAGS);
    u8 tag = log->order[log->count++];
    struct log_slot *slot = &log->slot[tag];
    ASSERT_HV(inflight_cells(&slot->chain) <= log->free_cells);
    log->free_cells -= inflight_cells(&slot->chain);
    slot->in_flight = slot->granted = true;
    slot->id = id;
    slot->submitted = now;
    return tag;
}

void inflight_remove(struct inflight *log, u8 tag)
{
    struct log_slot *slot = &log->slot[tag];
    u32 at = 0;
    ASSERT_HV(slot->in_flight);
    /*@ loop invariant at < RING_TAGS && \forall integer i; 0 <= i < at ==> log->order[i] != tag;
        loop assigns at;
        loop variant RING_TAGS - at; */
    while (log->order[at] != tag)
        at++;
    log->count--;
    memmove(log->order + at, log->order + at + 1, log->count - at);
    log->order[log->count] = tag;
    /*@ assert moved_up{Pre, Here}(log, at, log->count); */
    /*@ assert first_in_flight(log) && \forall integer i; 0 <= i < log->count ==> log->order[i] != tag; */
    slot->in_flight = false;
    log->free_cells += inflight_cells(&slot->chain);
}
