#include "guestos/kernel/dev/virtqueue.h"

#include "guestos/kernel/mm/arena.h"
#include "shared/lib/string.h"

/* The event fields that follow the ring entries (2.7.6, 2.7.8). */
static volatile u16 *used_event(const struct virtqueue *queue)
{
    return &queue->avail->ring[queue->size];
}

static volatile u16 *avail_event(const struct virtqueue *queue)
{
    return (volatile u16 *)&queue->used->ring[queue->size];
}

status_t virtqueue_alloc_rings(struct virtqueue *queue, u16 size)
{
    queue->size = size;
    queue->table = arena_alloc(size * sizeof(struct virtq_desc), PAGE_SIZE);
    queue->avail = arena_alloc(6 + 2ull * size, PAGE_SIZE);
    queue->used = arena_alloc(6 + 8ull * size, PAGE_SIZE);
    return queue->table != NULL && queue->avail != NULL && queue->used != NULL ? OK : ERR_NO_MEMORY;
}

status_t virtqueue_alloc_indirect(struct virtqueue *queue)
{
    queue->indirect_tables = arena_alloc(queue->size * sizeof(queue->indirect_tables[0]), PAGE_SIZE);
    return queue->indirect_tables != NULL ? OK : ERR_NO_MEMORY;
}

status_t virtqueue_alloc(struct virtqueue *queue, u16 size)
{
    status_t status = virtqueue_alloc_rings(queue, size);

    if (status == OK)
        status = virtqueue_alloc_indirect(queue);
    queue->headers = arena_alloc(PAGE_UP(size * sizeof(struct virtio_blk_req)), PAGE_SIZE);
    queue->statuses = arena_alloc(PAGE_UP(size), PAGE_SIZE);
    return queue->headers != NULL && queue->statuses != NULL ? status : ERR_NO_MEMORY;
}

void virtqueue_start(struct virtqueue *queue, u64 features)
{
    queue->indirect = (features & VIRTIO_F_INDIRECT_DESC) != 0;
    queue->event_idx = (features & VIRTIO_F_EVENT_IDX) != 0;
    memset(queue->table, 0, queue->size * sizeof(struct virtq_desc));
    memset(queue->avail, 0, 6 + 2ull * queue->size);
    memset(queue->used, 0, 6 + 8ull * queue->size);
    for (u16 i = 0; i < queue->size; i++) {
        queue->free[i] = i;
        queue->slot[i] = SLOT_FRESH;
        queue->owner[i] = NULL;
    }
    queue->free_head = 0;
    queue->free_tail = queue->size;
    queue->avail_idx = queue->kicked_idx = queue->used_idx = 0;
    queue->busy = 0;
}

static u16 take_descriptor(struct virtqueue *queue)
{
    return queue->free[queue->free_head++ % queue->size];
}

u16 virtqueue_peek_head(const struct virtqueue *queue, u32 count)
{
    u32 needed = queue->indirect ? 1 : count;

    if (queue->free_tail - queue->free_head < needed)
        return VIRTQUEUE_NONE;
    return queue->free[queue->free_head % queue->size];
}

static struct virtq_desc descriptor_of(const struct virtqueue_part *part)
{
    return (struct virtq_desc){part->address, part->length, part->device_writes ? VIRTQ_DESC_F_WRITE : 0, 0};
}

static void fill_indirect(struct virtqueue *queue, const struct virtqueue_part *part, u32 count)
{
    u16 head = take_descriptor(queue);
    struct virtq_desc *table = queue->indirect_tables[head];

    for (u32 i = 0; i < count; i++) {
        table[i] = descriptor_of(&part[i]);
        if (i + 1 < count) {
            table[i].flags |= VIRTQ_DESC_F_NEXT;
            table[i].next = (u16)(i + 1);
        }
    }
    queue->table[head] =
        (struct virtq_desc){(u64)table, (u32)(count * sizeof(struct virtq_desc)), VIRTQ_DESC_F_INDIRECT, 0};
    queue->next[head] = VIRTQUEUE_NONE;
}

static void fill_chain(struct virtqueue *queue, const struct virtqueue_part *part, u32 count)
{
    u16 previous = VIRTQUEUE_NONE;

    for (u32 i = 0; i < count; i++) {
        u16 at = take_descriptor(queue);
        queue->table[at] = descriptor_of(&part[i]);
        queue->next[at] = VIRTQUEUE_NONE;
        if (previous != VIRTQUEUE_NONE) {
            queue->table[previous].flags |= VIRTQ_DESC_F_NEXT;
            queue->table[previous].next = at;
            queue->next[previous] = at;
        }
        previous = at;
    }
}

void virtqueue_add(struct virtqueue *queue, u16 head, const struct virtqueue_part *part, u32 count, void *owner)
{
    if (queue->indirect)
        fill_indirect(queue, part, count);
    else
        fill_chain(queue, part, count);
    queue->slot[head] = SLOT_BUSY;
    queue->owner[head] = owner;
    queue->busy++;
    queue->avail->ring[queue->avail_idx % queue->size] = head;
    queue->avail_idx++;
    /* Release: whoever sees the index sees the entry and the descriptors (2.7.13.3). */
    __atomic_store_n(&queue->avail->idx, queue->avail_idx, __ATOMIC_RELEASE);
}

bool virtqueue_must_notify(struct virtqueue *queue)
{
    u16 old = queue->kicked_idx;

    if (old == queue->avail_idx)
        return false;
    queue->kicked_idx = queue->avail_idx;
    /* The index must be visible before the device's wish is read, or both sides may go to sleep (2.7.13.4.1). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (queue->event_idx)
        return virtq_need_event(*avail_event(queue), queue->avail_idx, old);
    return (__atomic_load_n(&queue->used->flags, __ATOMIC_RELAXED) & VIRTQ_USED_F_NO_NOTIFY) == 0;
}

u16 virtqueue_pending(const struct virtqueue *queue)
{
    return (u16)(__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) - queue->used_idx);
}

struct virtq_used_elem virtqueue_next_used(struct virtqueue *queue)
{
    volatile struct virtq_used_elem *entry = &queue->used->ring[queue->used_idx++ % queue->size];

    return (struct virtq_used_elem){entry->id, entry->len};
}

void *virtqueue_complete(struct virtqueue *queue, u16 head)
{
    for (u16 at = head; at != VIRTQUEUE_NONE; at = queue->next[at])
        queue->free[queue->free_tail++ % queue->size] = at;
    queue->slot[head] = SLOT_DONE;
    queue->busy--;
    return queue->owner[head];
}

bool virtqueue_enable_interrupt(struct virtqueue *queue)
{
    return virtqueue_enable_interrupt_after(queue, 0);
}

bool virtqueue_enable_interrupt_after(struct virtqueue *queue, u16 completions)
{
    if (queue->event_idx)
        *used_event(queue) = (u16)(queue->used_idx + completions);
    /* The wish must be visible before the last look (2.7.7.2). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return virtqueue_pending(queue) > completions;
}
