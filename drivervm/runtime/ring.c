#include "drivervm/runtime/ring.h"

_Static_assert((RING_CELLS & (RING_CELLS - 1)) == 0, "indices run free and are taken modulo");
_Static_assert((RING_COMPLETIONS & (RING_COMPLETIONS - 1)) == 0, "indices run free and are taken modulo");

void ring_init(struct ring *ring, const void *request, void *completion)
{
    ring->request = request;
    ring->cells = (const union ring_cell *)((const u8 *)request + sizeof(struct ring_request_page));
    ring->completion = completion;
    ring->consumed = ring->completion->consumed;
    ring->produced = ring->completion->produced;
    ring->delivered = ring->produced;
}

static const union ring_cell *cell_at(const struct ring *ring, u32 index)
{
    return &ring->cells[index % RING_CELLS];
}

status_t ring_peek(const struct ring *ring, struct ring_header_cell *header)
{
    /* Acquire: pairs with the hypervisor's release, so the cells below `produced` are complete. */
    u32 available = __atomic_load_n(&ring->request->produced, __ATOMIC_ACQUIRE) - ring->consumed;

    if (available == 0)
        return ERR_NOT_FOUND;
    *header = cell_at(ring, ring->consumed)->header;
    if (available > RING_CELLS || header->segments == 0 || header->segments > RING_MAX_SEGMENTS ||
        header->segments >= available || header->tag >= RING_TAGS || header->readable > header->segments)
        return ERR_FORMAT;
    return OK;
}

void ring_take(struct ring *ring, const struct ring_header_cell *header, struct ring_segment_cell *segments)
{
    for (u32 i = 0; i < header->segments; i++)
        segments[i] = cell_at(ring, ring->consumed + 1 + i)->segment;
    ring->consumed += 1u + header->segments;
}

void ring_release(struct ring *ring)
{
    /* Release: our reads of the cells are done before the hypervisor may write them again. */
    __atomic_store_n(&ring->completion->consumed, ring->consumed, __ATOMIC_RELEASE);
}

void ring_complete(struct ring *ring, u16 tag, u32 length)
{
    ring->completion->entry[ring->produced % RING_COMPLETIONS] = (struct ring_completion){.tag = tag, .length = length};
    ring->produced++;
    /* Release: the entry is whole before the index covers it, and so is the data that the answer speaks of. */
    __atomic_store_n(&ring->completion->produced, ring->produced, __ATOMIC_RELEASE);
}

void ring_heartbeat(struct ring *ring)
{
    __atomic_store_n(&ring->completion->heartbeat, ring->completion->heartbeat + 1, __ATOMIC_RELAXED);
}
