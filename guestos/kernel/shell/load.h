/*
 * The verifying load: random reads, writes and flushes on one region of a disk, each byte that is read compared with
 * what was written last. load_plan.c decides what to do and knows what the disk must hold; command_load.c does it.
 */
#pragma once

#include "guestos/kernel/dev/virtio_blk.h"
#include "shared/lib/types.h"

#define LOAD_MAX_DEPTH 128u
#define LOAD_SEGMENTS 16u
#define LOAD_MAX_SECTORS 2048u /* of one request: 1 MiB */
#define LOAD_GUARD 32u         /* bytes before and after the data that nobody may touch */

enum load_kind { LOAD_READ, LOAD_WRITE, LOAD_FLUSH };

struct load_slot {
    struct blk_request request;
    struct blk_segment segment[LOAD_SEGMENTS];
    u8 *buffer;              /* LOAD_SLOT_BYTES of the arena */
    u8 *data;                /* somewhere in it, at a multiple of 4 */
    struct load_disk *owner; /* command_load.c's */
    enum load_kind kind;
    u64 sector; /* relative to the region */
    u32 sectors;
    u64 started_us;
    bool idle, lost;
};

/* Room for a request that starts anywhere in a page, and its guards. */
#define LOAD_SLOT_BYTES(sectors) PAGE_UP((u64)(sectors)*VIRTIO_BLK_SECTOR + PAGE_SIZE + 2 * LOAD_GUARD)

struct load_region {
    const struct blk *disk;
    u64 seed, lba, sectors;
    u32 largest; /* sectors of one request at most */
    u64 random;  /* state of the generator */
    /* For each sector: generation in the low 30 bits; see load_plan.c. */
    u32 *state;
    u64 frames; /* of state, to be given back */
};

/* Allocate the table. False: no memory. The disk's contents are unknown until the first write of each sector. */
NODISCARD bool load_region_open(struct load_region *region);
void load_region_close(struct load_region *region);

/* Choose place, size, alignment and segments for the next request in *slot, fill its buffer. False: no place is free
 * right now. */
NODISCARD bool load_plan_random(struct load_region *region, struct load_slot *slot, bool can_flush);

/* A write or read of [sector, sector + sectors) of the region, for the first fill and the final check. */
void load_plan_fixed(struct load_region *region, struct load_slot *slot, enum load_kind kind, u64 sector, u32 sectors);

/* The request could not be submitted: forget it. */
void load_cancel(struct load_region *region, struct load_slot *slot);

/*
 * The request has ended: update what the disk holds, compare what was read. Returns the number of mismatches (sectors,
 * and guards that were overwritten); says the first few on the console.
 */
u64 load_finish(struct load_region *region, struct load_slot *slot);
