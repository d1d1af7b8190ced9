#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

#define LOWEST_ADDRESS MIB(1)
#define WORD_BITS 64u

/* In frame numbers (address / 4 KiB), [first, end). */
struct range {
    u64 first;
    u64 end;
};

static struct {
    struct range managed[BOOT_MAX_MEMORY]; /* what may ever be allocated, ascending */
    u32 managed_count;
    struct range span; /* from the lowest to the highest managed frame: what the bitmap covers */
    u64 *used;         /* one bit a frame, from span.first; holes between managed ranges are set for good */
    u64 hint;          /* no frame below it is free */
    u64 free;
    u64 total;
} frames;

/* The first frame of [from, to) whose bit is `used`, a word at a time; `to` when there is none. */
static u64 find(u64 from, u64 to, bool used)
{
    while (from < to) {
        u64 bit = from - frames.span.first;
        u64 word = frames.used[bit / WORD_BITS];
        u64 match = (used ? word : ~word) >> bit % WORD_BITS;
        if (match != 0) {
            from += (u64)__builtin_ctzll(match);
            return from < to ? from : to;
        }
        from += WORD_BITS - bit % WORD_BITS;
    }
    return to;
}

static void mark(u64 first, u64 count, bool used)
{
    for (u64 bit = first - frames.span.first; count > 0; bit++, count--) {
        u64 mask = 1ull << bit % WORD_BITS;
        if (used)
            frames.used[bit / WORD_BITS] |= mask;
        else
            frames.used[bit / WORD_BITS] &= ~mask;
    }
}

static void take_free_ranges(const struct boot_memory *map, u32 count)
{
    for (u32 i = 0; i < count && frames.managed_count < BOOT_MAX_MEMORY; i++) {
        u64 low = map[i].base < LOWEST_ADDRESS ? LOWEST_ADDRESS : map[i].base;
        u64 high = map[i].base + map[i].size;
        if (map[i].kind == BOOT_MEMORY_FREE && high > low)
            frames.managed[frames.managed_count++] = (struct range){PAGE_UP(low) / PAGE_SIZE, high / PAGE_SIZE};
    }
}

/* Cut the bitmap's own frames off the first range that holds them, so that nobody can ever free them. */
static status_t place_bitmap(u64 size)
{
    u64 bitmap_frames = PAGE_UP(size) / PAGE_SIZE;

    for (struct range *range = frames.managed; range < frames.managed + frames.managed_count; range++) {
        if (range->end - range->first < bitmap_frames)
            continue;
        frames.used = memset(hpa_to_ptr(HPA(range->first * PAGE_SIZE)), 0xff, size);
        range->first += bitmap_frames;
        return OK;
    }
    return ERR_NO_MEMORY;
}

status_t frames_init(const struct boot_memory *map, u32 count)
{
    memset(&frames, 0, sizeof(frames));
    take_free_ranges(map, count);
    if (frames.managed_count == 0)
        return ERR_NO_MEMORY;
    frames.span = (struct range){frames.managed[0].first, frames.managed[frames.managed_count - 1].end};
    frames.hint = frames.span.first;

    u64 words = (frames.span.end - frames.span.first + WORD_BITS - 1) / WORD_BITS;
    status_t status = place_bitmap(words * sizeof(u64));
    for (u32 i = 0; status == OK && i < frames.managed_count; i++) {
        u64 size = frames.managed[i].end - frames.managed[i].first;
        mark(frames.managed[i].first, size, false);
        frames.free += size;
    }
    frames.total = frames.free;
    return status;
}

/*
 * The next run of free frames behind *run, cut so that it starts at a multiple of align (in frames) and is not longer
 * than `max`. False when there is none.
 */
static bool next_run(struct range *run, u64 align, u64 max)
{
    u64 end = frames.span.end;
    u64 from = run->end;

    while ((from = find(from, end, false)) < end) {
        u64 first = (from + align - 1) & ~(align - 1);
        if (first >= end)
            break;
        u64 stop = find(from, max < end - first ? first + max : end, true);
        if (stop > first) {
            *run = (struct range){first, stop};
            return true;
        }
        from = stop;
    }
    return false;
}

static bool is_good_align(u64 align)
{
    return align >= PAGE_SIZE && (align & (align - 1)) == 0;
}

status_t frames_alloc(u64 count, u64 align, hpa_t *out)
{
    struct range run = {.end = frames.hint};

    if (count == 0 || !is_good_align(align))
        return ERR_INVALID;
    while (next_run(&run, align / PAGE_SIZE, count)) {
        if (run.end - run.first < count)
            continue;
        mark(run.first, count, true);
        frames.free -= count;
        frames.hint = find(frames.hint, frames.span.end, false);
        *out = HPA(run.first * PAGE_SIZE);
        return OK;
    }
    return ERR_NO_MEMORY;
}

status_t frame_alloc(hpa_t *out)
{
    status_t status = frames_alloc(1, PAGE_SIZE, out);

    if (status == OK)
        memset(hpa_to_ptr(*out), 0, PAGE_SIZE);
    return status;
}

void frames_free(hpa_t first, u64 count)
{
    u64 at = first.v / PAGE_SIZE;
    u32 i = 0;

    /* The holes between ranges look allocated in the bitmap, so the range is looked up, too. */
    while (i < frames.managed_count && frames.managed[i].end <= at)
        i++;
    if ((first.v & PAGE_MASK) != 0 || i == frames.managed_count || at < frames.managed[i].first ||
        count > frames.managed[i].end - at || find(at, at + count, false) != at + count)
        panic("freed frames that are not allocated: 0x%lx, %lu", first.v, count);
    mark(at, count, false);
    frames.free += count;
    if (at < frames.hint)
        frames.hint = at;
}

u64 frames_free_count(void)
{
    return frames.free;
}

u64 frames_total_count(void)
{
    return frames.total;
}

u64 frames_largest_run(u64 align)
{
    struct range run = {.end = frames.hint};
    u64 best = 0;

    while (is_good_align(align) && next_run(&run, align / PAGE_SIZE, ~0ull))
        best = run.end - run.first > best ? run.end - run.first : best;
    return best;
}
