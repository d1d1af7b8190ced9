#include "guestos/kernel/shell/load.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/shell/pattern.h"
#include "shared/lib/string.h"

/*
 * What is known of a sector. While BUSY, no other request may name it: so what a read must find is never in doubt. A
 * write that failed leaves a sector UNKNOWN (old, new or torn) until the next write.
 *
 *   UNKNOWN --write--> UNKNOWN|BUSY --ok--> generation --write, read--> generation|BUSY --ok--> generation (+1 after a
 * write)
 *                                   --failed--> UNKNOWN             <--write failed--
 */
#define SECTOR_BUSY 0x80000000u
#define SECTOR_UNKNOWN 0x40000000u
#define SECTOR_GENERATION 0x3fffffffu
#define GUARD_BYTE 0xa5
#define ATTEMPTS 16u
#define SHOW_MISMATCHES 16u

static u64 shown; /* mismatches that were printed */

static u64 random_below(struct load_region *region, u64 limit)
{
    return mix_next(&region->random) % limit;
}

bool load_region_open(struct load_region *region)
{
    region->frames = PAGE_UP(region->sectors * sizeof(u32)) / PAGE_SIZE;
    region->state = (u32 *)frames_alloc(region->frames, PAGE_SIZE);
    if (region->state == NULL)
        return false;
    for (u64 i = 0; i < region->sectors; i++)
        region->state[i] = SECTOR_UNKNOWN;
    shown = 0;
    return true;
}

void load_region_close(struct load_region *region)
{
    frames_free((u64)region->state, region->frames);
}

static bool is_free(const struct load_region *region, u64 sector, u32 sectors)
{
    for (u32 i = 0; i < sectors; i++)
        if ((region->state[sector + i] & SECTOR_BUSY) != 0)
            return false;
    return true;
}

/* 1 sector to `largest`, each power of two about as likely as the next, with all sizes in between. */
static u32 random_size(struct load_region *region)
{
    u32 top = 32 - (u32)__builtin_clz(region->largest);
    u32 limit = 1u << random_below(region, top);
    u32 sectors = limit + (u32)random_below(region, limit);

    return sectors < region->largest ? sectors : region->largest;
}

/*
 * Data starts page-aligned, at a multiple of 512, or at any multiple of 4 (a third each). It is cut into up to
 * LOAD_SEGMENTS pieces at multiples of 4: AHCI takes even addresses only (1.3.1, 4.2.3.3), and other devices want 4.
 */
static void place_data(struct load_region *region, struct load_slot *slot)
{
    static const u32 step[3] = {PAGE_SIZE, 512, 4};
    const struct blk_info *info = blk_get_info(region->disk);
    u32 unit = step[random_below(region, 3)];
    u32 offset = (u32)random_below(region, PAGE_SIZE / unit) * unit;
    u32 bytes = slot->sectors * VIRTIO_BLK_SECTOR, at = 0, count = 0;
    u32 most = info->max_segments < LOAD_SEGMENTS ? info->max_segments : LOAD_SEGMENTS;
    u32 pieces = 1 + (u32)random_below(region, most), limit = info->max_segment_bytes & ~3u;

    /* The guard before the data needs room too: the buffer's first page gives it when the offset is small. */
    slot->data = slot->buffer + (offset < LOAD_GUARD ? PAGE_SIZE + offset : offset);
    while (at < bytes) {
        u32 left = bytes - at, length = left;
        if (count + 1 < pieces && left > 4)
            length = 4 + (u32)random_below(region, left / 4) * 4;
        /* Not so short that the segments which remain cannot hold the rest. */
        u64 later = (u64)(most - count - 1) * limit;
        if (left > later && length < left - later)
            length = (u32)(left - later);
        if (length > limit)
            length = limit;
        slot->segment[count++] = (struct blk_segment){(u64)slot->data + at, length};
        at += length;
    }
    slot->request.segments = count;
    memset(slot->data - LOAD_GUARD, GUARD_BYTE, LOAD_GUARD);
    memset(slot->data + bytes, GUARD_BYTE, LOAD_GUARD);
}

/* Take the sectors, and put into the buffer what belongs there. */
static void claim(struct load_region *region, struct load_slot *slot)
{
    for (u32 i = 0; i < slot->sectors; i++) {
        u32 *state = &region->state[slot->sector + i];
        u8 *data = slot->data + (u64)i * VIRTIO_BLK_SECTOR;
        u64 next = (*state & SECTOR_GENERATION) + 1;
        *state |= SECTOR_BUSY;
        if (slot->kind == LOAD_WRITE)
            pattern_fill(data, region->seed, region->lba + slot->sector + i, next);
        else
            memset(data, GUARD_BYTE, 8); /* a sector that the device leaves out must not look right by chance */
    }
}

static void set_request(struct load_region *region, struct load_slot *slot)
{
    static const u32 types[] = {
        [LOAD_READ] = VIRTIO_BLK_T_IN, [LOAD_WRITE] = VIRTIO_BLK_T_OUT, [LOAD_FLUSH] = VIRTIO_BLK_T_FLUSH};

    slot->request.type = types[slot->kind];
    slot->request.device_writes = slot->kind == LOAD_READ;
    slot->request.sector = slot->kind == LOAD_FLUSH ? 0 : region->lba + slot->sector;
    slot->request.segment = slot->segment;
}

void load_plan_fixed(struct load_region *region, struct load_slot *slot, enum load_kind kind, u64 sector, u32 sectors)
{
    slot->kind = kind;
    slot->sector = sector;
    slot->sectors = sectors;
    place_data(region, slot);
    claim(region, slot);
    set_request(region, slot);
}

bool load_plan_random(struct load_region *region, struct load_slot *slot, bool can_flush)
{
    u64 dice = random_below(region, 100);

    if (can_flush && dice < 3) {
        slot->kind = LOAD_FLUSH;
        slot->sectors = 0;
        slot->request.segments = 0;
        set_request(region, slot);
        return true;
    }
    for (u32 i = 0; i < ATTEMPTS; i++) {
        u32 sectors = random_size(region);
        u64 sector = random_below(region, region->sectors - sectors + 1);
        if (!is_free(region, sector, sectors))
            continue;
        load_plan_fixed(region, slot, dice < 50 ? LOAD_WRITE : LOAD_READ, sector, sectors);
        return true;
    }
    return false;
}

void load_cancel(struct load_region *region, struct load_slot *slot)
{
    for (u32 i = 0; i < slot->sectors; i++)
        region->state[slot->sector + i] &= ~SECTOR_BUSY;
}

static void show_mismatch(const struct load_region *region, u64 sector, u64 generation, int word, const u8 *data)
{
    u64 found[PATTERN_WORDS];

    if (shown++ >= SHOW_MISMATCHES)
        return;
    memcpy(found, data, sizeof(found));
    console_print(
        "load: %s: sector %llu generation %llu: word %d is 0x%llx instead of 0x%llx; the sector calls itself %llu, "
        "generation %llu\n",
        blk_get_info(region->disk)->name, (unsigned long long)sector, (unsigned long long)generation, word,
        (unsigned long long)found[word], (unsigned long long)pattern_word(region->seed, sector, generation, (u32)word),
        (unsigned long long)found[0], (unsigned long long)found[1]);
}

static bool compare_sector(const struct load_region *region, const struct load_slot *slot, u32 index)
{
    u64 sector = slot->sector + index;
    u32 state = region->state[sector];
    const u8 *data = slot->data + (u64)index * VIRTIO_BLK_SECTOR;

    if ((state & SECTOR_UNKNOWN) != 0)
        return true; /* never written, or a write of it has failed */
    u64 generation = state & SECTOR_GENERATION;
    int word = pattern_compare(data, region->seed, region->lba + sector, generation);
    if (word >= 0)
        show_mismatch(region, region->lba + sector, generation, word, data);
    return word < 0;
}

static bool guards_hold(const struct load_slot *slot)
{
    const u8 *before = slot->data - LOAD_GUARD, *after = slot->data + (u64)slot->sectors * VIRTIO_BLK_SECTOR;

    for (u32 i = 0; i < LOAD_GUARD; i++)
        if (before[i] != GUARD_BYTE || after[i] != GUARD_BYTE)
            return false;
    return true;
}

u64 load_finish(struct load_region *region, struct load_slot *slot)
{
    bool good = slot->request.result == BLK_OK;
    u64 mismatches = 0;

    if (slot->kind == LOAD_FLUSH)
        return 0;
    if (!guards_hold(slot)) {
        mismatches++;
        if (shown++ < SHOW_MISMATCHES)
            console_print("load: %s: sector %llu: bytes outside the buffer were overwritten\n",
                          blk_get_info(region->disk)->name, (unsigned long long)slot->request.sector);
    }
    for (u32 i = 0; i < slot->sectors; i++) {
        u32 *state = &region->state[slot->sector + i];
        if (slot->kind == LOAD_READ && good)
            mismatches += !compare_sector(region, slot, i);
        *state &= ~SECTOR_BUSY;
        /* Even a write that failed uses its generation up: it may be on the disk, and must never pass for a later one.
         */
        if (slot->kind == LOAD_WRITE)
            *state = ((*state & SECTOR_GENERATION) + 1) | (good ? 0 : SECTOR_UNKNOWN);
    }
    return mismatches;
}
