/*
 * The driver's side of one split virtqueue (VirtIO 1.2, 2.7) with room for requests of a header, data segments and a
 * status byte.
 *
 * In the arena: descriptor table, available ring and used ring on pages of their own; the indirect tables, which only
 * the device's front reads; a page of headers, which are device-readable; pages of status bytes, which are
 * device-writable. These never share a page, so a hypervisor that grants pages by their direction gives nobody write
 * access to a descriptor.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/virtio/blk.h"
#include "shared/virtio/virtio.h"

#define VIRTQUEUE_MAX_SIZE 256u
#define VIRTQUEUE_CHAIN 128u /* descriptors in an indirect table */
#define VIRTQUEUE_NONE 0xffffu

enum virtqueue_slot {
    SLOT_FRESH, /* never made available since the queue started */
    SLOT_BUSY,  /* available or in the device's hands */
    SLOT_DONE,  /* has completed and was not made available since */
};

struct virtqueue {
    u16 size;
    bool indirect, event_idx;
    struct virtq_desc *table;
    struct virtq_avail *avail;
    struct virtq_used *used;
    struct virtq_desc (*indirect_tables)[VIRTQUEUE_CHAIN];
    struct virtio_blk_req *headers;
    volatile u8 *statuses;
    /* Descriptors that are free, first in first out: a head is reused as late as possible, so that a doubled completion
     * is seen as one. */
    u16 free[VIRTQUEUE_MAX_SIZE];
    u32 free_head, free_tail;
    /* Our own copy of each chain's links: what the device can see is not read back. */
    u16 next[VIRTQUEUE_MAX_SIZE];
    enum virtqueue_slot slot[VIRTQUEUE_MAX_SIZE];
    void *owner[VIRTQUEUE_MAX_SIZE];
    u16 avail_idx;  /* next to be published */
    u16 kicked_idx; /* published when the device was last told */
    u16 used_idx;   /* next to be read */
    u32 busy;       /* heads in the device's hands */
};

/* One element of a chain before it becomes a descriptor. */
struct virtqueue_part {
    u64 address;
    u32 length;
    bool device_writes;
};

/* Take arena memory for a queue of at most VIRTQUEUE_MAX_SIZE. ERR_NO_MEMORY. */
NODISCARD status_t virtqueue_alloc(struct virtqueue *queue, u16 size);

/* The parts of it, for a queue whose requests have neither header nor status: the rings; then the indirect tables, only
 * where virtqueue_start will be told of INDIRECT_DESC. ERR_NO_MEMORY. */
NODISCARD status_t virtqueue_alloc_rings(struct virtqueue *queue, u16 size);
NODISCARD status_t virtqueue_alloc_indirect(struct virtqueue *queue);

/* Empty rings, all heads fresh. */
void virtqueue_start(struct virtqueue *queue, u64 features);

/* A head for a chain of `count` parts, VIRTQUEUE_NONE when there are not enough descriptors. It is not yet in use. */
u16 virtqueue_peek_head(const struct virtqueue *queue, u32 count);

/* Make the chain available under `head` (from virtqueue_peek_head with the same count). The device may start at once.
 */
void virtqueue_add(struct virtqueue *queue, u16 head, const struct virtqueue_part *part, u32 count, void *owner);

/* Whether the device wants to be told of what was added since the last call (2.7.10). */
bool virtqueue_must_notify(struct virtqueue *queue);

/* Number of used entries that wait, as the device claims. More than `busy` is impossible: the caller must check. */
u16 virtqueue_pending(const struct virtqueue *queue);

/* Copy the next used entry. Does not free anything. */
struct virtq_used_elem virtqueue_next_used(struct virtqueue *queue);

/* Return the chain of a busy head to the free list and give its owner. */
void *virtqueue_complete(struct virtqueue *queue, u16 head);

/* Ask for an interrupt at the next completion; true when completions are waiting already (look again instead of
 * sleeping). */
bool virtqueue_enable_interrupt(struct virtqueue *queue);

/* The same for when more than `completions` have come; only with EVENT_IDX does the device wait for so many. */
bool virtqueue_enable_interrupt_after(struct virtqueue *queue, u16 completions);
