/*
 * A VirtIO 1.2 device on PCI from the driver's side: the modern transport (4.1) and split virtqueues (2.7). What
 * virtio_blk and virtio_net share; each image drives one device.
 *
 *   virtio_open --> virtio_negotiate --> virtq_start, for each queue --> virtio_go --> works
 *                        ^                                                               |
 *                        +------- a device that is to forget everything -----------------+
 *
 * What the device says is hostile. It may name only chains that are out, each once, and its indices may not run ahead
 * of them; anything else ends in driver_fault(DRIVER_FAULT_DEVICE), which costs this VM a restart and nobody else
 * anything. Context: the VM's one thread.
 */
#pragma once

#include "drivervm/runtime/runtime.h"
#include "shared/virtio/virtio.h"

/* ---- access.c: registers in memory or among ports; host tests link a model of their device instead ---- */

/* A structure of the device's (4.1.4), inside one BAR. */
struct virtio_area {
    u64 address; /* or the first port */
    u32 length;  /* bytes; 0: there is none */
    bool ports;
};

/* width: 1, 2 or 4 bytes, that of the field (4.1.3.1); inside the area. */
u32 virtio_read(const struct virtio_area *area, u32 offset, u32 width);
void virtio_write(const struct virtio_area *area, u32 offset, u32 width, u32 value);

/* ---- transport.c ---- */

/*
 * Find the device's structures and switch their decoding on, bus mastering off. name: for the log; type: VIRTIO_ID_*.
 * ERR_UNSUPPORTED: another device, or a transitional one. ERR_NOT_FOUND: a structure is missing.
 */
NODISCARD status_t virtio_open(const char *name, u32 type);

/*
 * Reset, then agree on features: those of `wanted` that the device offers, and the transport's. Afterwards the device
 * may master the bus: it has forgotten all addresses. ERR_TIMEOUT: the reset does not end. ERR_UNSUPPORTED: it does not
 * offer VERSION_1, or ACCESS_PLATFORM, or does not like our choice.
 */
NODISCARD status_t virtio_negotiate(u64 wanted);
bool virtio_has(u64 feature);

/*
 * Copy the first fields of the device's configuration (2.5), all of one generation; width[i]: bytes of field i, of
 * which 8 are read as two halves. Fields that the device's structure is too short for are 0. ERR_BUSY: it does not
 * stop to change.
 */
NODISCARD status_t virtio_config(void *out, const u8 *width, u32 fields);

/* Of one field of 1, 2 or 4 bytes, at any time. */
u32 virtio_config_field(u32 offset, u32 width);

/* All queues are there: the device may work (3.1.1 step 8). */
void virtio_go(void);

/* Silence the interrupt; only a line needs that. */
void virtio_acknowledge(void);

/* A device that says that it cannot go on, or is gone, ends in a fault. */
void virtio_check(void);

/* ---- virtq.c: a split virtqueue ---- */

#define VIRTQ_SIZE 256u /* entries at most */

/* What the device reads and writes in our RAM (2.7: alignment 16, 2 and 4). */
struct virtq_memory {
    struct virtq_desc desc[VIRTQ_SIZE];
    union {
        struct virtq_avail avail;
        u8 avail_bytes[1024]; /* flags, index, entries, used_event: 6 + 2 * VIRTQ_SIZE */
    };
    union {
        struct virtq_used used;
        u8 used_bytes[3072]; /* flags, index, entries, avail_event: 6 + 8 * VIRTQ_SIZE */
    };
};
_Static_assert(6 + 2 * VIRTQ_SIZE <= 1024 && 6 + 8 * VIRTQ_SIZE <= 3072, "2.7");

struct virtq {
    struct virtq_memory *memory;
    struct virtq_desc *tables; /* slots times room descriptors, when chains are indirect (2.7.5.3) */
    struct virtio_area notify;
    u32 index;
    u32 size;  /* entries */
    u32 slots; /* chains out at most; each has a number below */
    u32 room;  /* descriptors of one chain at most */
    bool indirect;
    bool events;           /* EVENT_IDX (2.7.10) */
    bool silent;           /* no interrupts wanted */
    u16 added, told, seen; /* free-running: chains that were added, that the device knows of, that came back */
    /*
     * Free descriptors, linked by `next`. A chain takes them in that order, so its links are ready and its end becomes
     * the new beginning's predecessor when it comes back. Kept here: the device's copy may be overwritten.
     */
    u32 free;
    u16 free_head;
    u16 next[VIRTQ_SIZE];
    struct {
        bool out;
        u16 slot, last, count;
    } chain[VIRTQ_SIZE];    /* by the first descriptor */
    u16 first, last, count; /* of the chain that is being made */
    u16 slot;
};

/*
 * Make queue `index` empty and enable it, for `slots` chains of up to `room` descriptors. When the queue has not as
 * many, chains are indirect, or, if the device cannot, share what there is. The driver looks at size, room and indirect
 * then. ERR_UNSUPPORTED: the device has no such queue, or of an impossible size. ERR_NO_MEMORY. ERR_NO_SPACE: the
 * device has no interrupt to give. ERR_RANGE: its notification register is elsewhere.
 */
NODISCARD status_t virtq_start(struct virtq *q, u32 index, u32 slots, u32 room, bool silent);

/* Is there room for a chain of `count` descriptors? */
bool virtq_fits(const struct virtq *q, u32 count);

/* A chain: begin, its parts, what the device reads before what it writes, end. Each slot is out once at most. */
void virtq_begin(struct virtq *q, u32 slot);
void virtq_put(struct virtq *q, u64 address, u32 length, bool writable);
void virtq_end(struct virtq *q);

/* Show the chains that were added to the device, and wake it when it asks for that. */
void virtq_flush(struct virtq *q);

/* The next chain that came back: its slot, and how many bytes the device claims to have written. False: there is none.
 */
NODISCARD bool virtq_next(struct virtq *q, u32 *slot, u32 *length);

/* Ask for an interrupt for the next chain, unless the queue is silent. False: there is one already. */
bool virtq_listen(struct virtq *q);

/* Wait awake for the only chain that is out; its slot is free then. ERR_TIMEOUT. */
NODISCARD status_t virtq_run(struct virtq *q, u64 timeout_us, u32 *length);

/* For virtq.c, from transport.c: number of entries, 0 when there is no such queue; enable it with these rings. */
u32 virtio_queue_size(u32 index);
NODISCARD status_t virtio_queue_enable(struct virtq *q);
