/*
 * The in-flight log: the hypervisor's own copy of every chain that a driver VM holds, by tag, in submission order. It
 * is the truth about what the guest is still owed; nothing in it was ever writable by a guest or a driver.
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "shared/lib/string.h"

_Static_assert(RING_TAGS < NO_TAG, "tags and the end mark fit a byte");
_Static_assert(RING_CELLS < NO_SEGMENT, "pool indices and the end mark fit 16 bits");
_Static_assert(RING_COMPLETIONS >= RING_TAGS, "a correct driver cannot overrun its completion ring");

void inflight_init(struct inflight *log)
{
    memset(log, 0, sizeof(*log));
    log->free_tags = RING_TAGS;
    log->free_cells = RING_CELLS;
    log->oldest = log->newest = NO_TAG;
    for (u32 i = 0; i < RING_TAGS; i++)
        log->tags[i] = (u8)(RING_TAGS - 1 - i);
    for (u32 i = 0; i < RING_CELLS; i++)
        log->pool[i].next = i + 1 < RING_CELLS ? (u16)(i + 1) : NO_SEGMENT;
}

bool inflight_fits(const struct inflight *log, u32 segments)
{
    return log->free_tags != 0 && segments + 1 <= log->free_cells;
}

u8 inflight_add(struct inflight *log, const struct chain *chain, u64 id, u64 now)
{
    ASSERT_HV(inflight_fits(log, chain->count));
    u8 tag = log->tags[--log->free_tags];
    struct log_slot *slot = &log->slot[tag];
    *slot = (struct log_slot){.state = SLOT_FORWARDED,
                              .head = chain->head,
                              .count = chain->count,
                              .readable = chain->readable,
                              .first = log->free_segment,
                              .readable_bytes = chain->readable_bytes,
                              .writable_bytes = chain->writable_bytes,
                              .id = id,
                              .submitted = now,
                              .previous = log->newest,
                              .next = NO_TAG};
    for (u32 i = 0; i < chain->count; i++) {
        struct log_segment *segment = &log->pool[log->free_segment];
        segment->gpa = chain->segment[i].gpa;
        segment->length = chain->segment[i].length;
        log->free_segment = segment->next;
    }
    log->free_cells -= chain->count + 1u;
    if (log->newest == NO_TAG)
        log->oldest = tag;
    else
        log->slot[log->newest].next = tag;
    log->newest = tag;
    return tag;
}

void inflight_load(const struct inflight *log, u8 tag, struct chain *out)
{
    const struct log_slot *slot = &log->slot[tag];
    u16 at = slot->first;
    out->head = slot->head;
    out->count = slot->count;
    out->readable = slot->readable;
    out->readable_bytes = slot->readable_bytes;
    out->writable_bytes = slot->writable_bytes;
    for (u32 i = 0; i < slot->count; i++, at = log->pool[at].next)
        out->segment[i] = (struct chain_segment){.gpa = log->pool[at].gpa, .length = log->pool[at].length};
}

void inflight_remove(struct inflight *log, u8 tag)
{
    struct log_slot *slot = &log->slot[tag];
    ASSERT_HV(slot->state != SLOT_FREE);
    u16 last = slot->first;
    for (u32 i = 1; i < slot->count; i++)
        last = log->pool[last].next;
    log->pool[last].next = log->free_segment;
    log->free_segment = slot->first;
    log->free_cells += slot->count + 1u;

    if (slot->previous == NO_TAG)
        log->oldest = slot->next;
    else
        log->slot[slot->previous].next = slot->next;
    if (slot->next == NO_TAG)
        log->newest = slot->previous;
    else
        log->slot[slot->next].previous = slot->previous;
    slot->state = SLOT_FREE;
    log->tags[log->free_tags++] = tag;
}

void inflight_withdraw(struct inflight *log)
{
    for (u8 tag = log->oldest; tag != NO_TAG; tag = log->slot[tag].next)
        log->slot[tag].state = SLOT_WITHDRAWN;
}
