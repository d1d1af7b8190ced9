/* Split virtqueues from the driver's side (VirtIO 1.2 2.7). */
#include "drivervm/drivers/virtio/virtio.h"
#include "shared/lib/string.h"

_Static_assert((VIRTQ_SIZE & (VIRTQ_SIZE - 1)) == 0 && VIRTQ_SIZE <= 32768, "2.7");

static __attribute__((noreturn)) void broken(const struct virtq *q, const char *what, u32 value)
{
    log_line("virtio: queue %u: the device answers with %s %u", q->index, what, value);
    driver_fault(DRIVER_FAULT_DEVICE, value);
}

/* 2.7.6, 2.7.8: the index at which a side wants to hear from the other lies behind that side's entries. */
static u16 *used_event(const struct virtq *q)
{
    return &q->memory->avail.ring[q->size];
}

static const u16 *avail_event(const struct virtq *q)
{
    return (const u16 *)&q->memory->used.ring[q->size];
}

/* ---- making it ---- */

static status_t choose_size(struct virtq *q, u32 slots, u32 room)
{
    u32 size = virtio_queue_size(q->index);

    if (size == 0 || (size & (size - 1)) != 0)
        return ERR_UNSUPPORTED;
    q->size = size < VIRTQ_SIZE ? size : VIRTQ_SIZE;
    q->room = room < q->size ? room : q->size; /* 2.7.5.3.1: no chain is longer than the queue, indirect or not */
    q->indirect = q->size / q->room < slots && room > 1 && virtio_has(VIRTIO_F_INDIRECT_DESC);
    q->slots = slots;
    return OK;
}

/* Memory is never given back, so the largest that a device may later ask for is taken at once. */
static status_t take_memory(struct virtq *q, u32 room)
{
    if (!q->memory)
        q->memory = dma_alloc(sizeof(*q->memory), PAGE_SIZE);
    if (q->indirect && !q->tables)
        q->tables = dma_alloc((u64)q->slots * room * sizeof(*q->tables), sizeof(*q->tables));
    return q->memory && (!q->indirect || q->tables) ? OK : ERR_NO_MEMORY;
}

static void make_empty(struct virtq *q)
{
    memset(q->memory, 0, sizeof(*q->memory));
    memset(q->chain, 0, sizeof(q->chain));
    q->added = q->told = q->seen = 0;
    q->free_head = 0;
    q->free = q->size;
    for (u32 i = 0; i < q->size; i++)
        q->next[i] = (u16)(i + 1);
    q->events = virtio_has(VIRTIO_F_EVENT_IDX);
    if (q->silent && !q->events)
        q->memory->avail.flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
    virtq_listen(q);
}

status_t virtq_start(struct virtq *q, u32 index, u32 slots, u32 room, bool silent)
{
    q->index = index;
    q->silent = silent || !driver_info->interrupts;
    status_t status = choose_size(q, slots, room);
    if (status == OK)
        status = take_memory(q, room);
    if (status != OK)
        return status;
    make_empty(q);
    return virtio_queue_enable(q);
}

/* ---- chains out ---- */

bool virtq_fits(const struct virtq *q, u32 count)
{
    return count <= q->room && q->free >= (q->indirect ? 1 : count);
}

static u16 take_descriptor(struct virtq *q)
{
    u16 at = q->free_head;

    DRIVER_CHECK(q->free > 0);
    q->free--;
    q->free_head = q->next[at];
    return at;
}

void virtq_begin(struct virtq *q, u32 slot)
{
    DRIVER_CHECK(slot < q->slots);
    q->slot = (u16)slot;
    q->count = 0;
}

void virtq_put(struct virtq *q, u64 address, u32 length, bool writable)
{
    struct virtq_desc *table = q->indirect ? q->tables + q->slot * q->room : q->memory->desc;

    DRIVER_CHECK(q->count < q->room);
    u16 at = q->indirect ? q->count : take_descriptor(q);
    table[at] =
        (struct virtq_desc){.addr = dma_address(address), .len = length, .flags = writable ? VIRTQ_DESC_F_WRITE : 0};
    if (q->count > 0) {
        table[q->last].flags |= VIRTQ_DESC_F_NEXT;
        table[q->last].next = at;
    } else {
        q->first = at;
    }
    q->last = at;
    q->count++;
}

/* 2.7.5.3: one descriptor of the queue's stands for a table. */
static void name_table(struct virtq *q)
{
    q->first = q->last = take_descriptor(q);
    q->memory->desc[q->first] = (struct virtq_desc){.addr = dma_address((u64)(q->tables + q->slot * q->room)),
                                                    .len = q->count * (u32)sizeof(struct virtq_desc),
                                                    .flags = VIRTQ_DESC_F_INDIRECT};
    q->count = 1;
}

void virtq_end(struct virtq *q)
{
    if (q->indirect)
        name_table(q);
    q->chain[q->first].out = true;
    q->chain[q->first].slot = q->slot;
    q->chain[q->first].last = q->last;
    q->chain[q->first].count = q->count;
    q->memory->avail.ring[q->added++ % q->size] = q->first;
}

void virtq_flush(struct virtq *q)
{
    u16 old = q->told;

    if (old == q->added)
        return;
    q->told = q->added;
    /* Release: descriptors and entries are there before the index covers them (2.7.13.2). */
    __atomic_store_n(&q->memory->avail.idx, q->added, __ATOMIC_RELEASE);
    /* The index is seen before we look whether the device sleeps (2.7.13.3), else both would wait for the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wake = q->events ? virtq_need_event(__atomic_load_n(avail_event(q), __ATOMIC_RELAXED), q->added, old)
                          : !(__atomic_load_n(&q->memory->used.flags, __ATOMIC_RELAXED) & VIRTQ_USED_F_NO_NOTIFY);
    if (wake)
        virtio_write(&q->notify, 0, 2, q->index);
}

/* ---- chains back ---- */

static void free_chain(struct virtq *q, u32 first)
{
    q->chain[first].out = false;
    q->next[q->chain[first].last] = q->free_head;
    q->free_head = (u16)first;
    q->free += q->chain[first].count;
}

bool virtq_next(struct virtq *q, u32 *slot, u32 *length)
{
    /* Acquire: the entry, and the data that it speaks of, were written before the index. */
    u16 ready = (u16)(__atomic_load_n(&q->memory->used.idx, __ATOMIC_ACQUIRE) - q->seen);

    if (ready == 0)
        return false;
    if (ready > (u16)(q->told - q->seen))
        broken(q, "more than it has, by index", (u16)(q->seen + ready));
    const struct virtq_used_elem *entry = &q->memory->used.ring[q->seen % q->size];
    u32 first = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
    *length = __atomic_load_n(&entry->len, __ATOMIC_RELAXED);
    if (first >= q->size || !q->chain[first].out)
        broken(q, "what it does not have, chain", first);
    *slot = q->chain[first].slot;
    free_chain(q, first);
    q->seen++;
    return true;
}

bool virtq_listen(struct virtq *q)
{
    if (q->events) /* one behind is what the device's index does not come by before it has gone all the way round */
        __atomic_store_n(used_event(q), (u16)(q->silent ? q->seen - 1 : q->seen), __ATOMIC_RELAXED);
    if (q->silent)
        return true;
    /* What came before the device saw this raised no interrupt. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&q->memory->used.idx, __ATOMIC_RELAXED) == q->seen;
}

status_t virtq_run(struct virtq *q, u64 timeout_us, u32 *length)
{
    u32 slot;

    virtq_flush(q);
    for (struct device_wait wait = device_wait_begin(timeout_us); !virtq_next(q, &slot, length);)
        if (!device_wait_more(&wait))
            return ERR_TIMEOUT;
    virtq_listen(q);
    return OK;
}
