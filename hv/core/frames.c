#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

#define LOWEST_ADDRESS MIB(1)
#define RANGES_MAX (2 * BOOT_MAX_MEMORY)

/* In frame numbers (address / 4 KiB), [first, end). */
struct range {
    u64 first;
    u64 end;
};

static struct {
    struct range range[RANGES_MAX]; /* free, ascending, with something taken between any two; some are empty */
    u32 count;
} frames;

u64 frames_free_count, frames_total_count;

static u64 align_up(u64 frame, u64 align)
{
    return (frame + align - 1) & ~(align - 1);
}

status_t frames_init(const struct boot_memory *map, u32 count)
{
    frames.count = 0;
    frames_total_count = 0;
    for (u32 i = 0; i < count && i < BOOT_MAX_MEMORY; i++) {
        u64 low = map[i].base < LOWEST_ADDRESS ? LOWEST_ADDRESS : map[i].base;
        struct range range = {PAGE_UP(low) / PAGE_SIZE, (map[i].base + map[i].size) / PAGE_SIZE};
        if (map[i].kind != BOOT_MEMORY_FREE || range.end <= range.first)
            continue;
        frames.range[frames.count++] = range;
        frames_total_count += range.end - range.first;
    }
    frames_free_count = frames_total_count;
    return frames_total_count != 0 ? OK : ERR_NO_MEMORY;
}

/* Take [first, first + count) out of range i. What lies below it, skipped for alignment, becomes a range of its own. */
static void take(u32 i, u64 first, u64 count)
{
    struct range *range = &frames.range[i];
    struct range below = {range->first, first};

    frames_free_count -= count;
    range->first = first + count;
    if (below.first == below.end)
        return;
    if (frames.count == RANGES_MAX) { /* no room to remember it: it counts as taken */
        frames_free_count -= below.end - below.first;
        return;
    }
    memmove(range + 1, range, (frames.count - i) * sizeof(*range));
    *range = below;
    frames.count++;
}

status_t frames_alloc(u64 count, u64 align, hpa_t *out)
{
    if (count == 0 || align < PAGE_SIZE || (align & (align - 1)) != 0)
        return ERR_INVALID;
    for (u32 i = 0; i < frames.count; i++) {
        u64 first = align_up(frames.range[i].first, align / PAGE_SIZE);
        if (first >= frames.range[i].end || count > frames.range[i].end - first)
            continue;
        take(i, first, count);
        *out = HPA(first * PAGE_SIZE);
        return OK;
    }
    return ERR_NO_MEMORY;
}

void *boot_frames(u64 count, const char *what)
{
    hpa_t at;

    if (frames_alloc(count, PAGE_SIZE, &at) != OK)
        boot_fail("no memory for %s", what);
    return memset(hpa_to_ptr(at), 0, count * PAGE_SIZE);
}

status_t frame_alloc(hpa_t *out)
{
    status_t status = frames_alloc(1, PAGE_SIZE, out);

    if (status == OK)
        memset(hpa_to_ptr(*out), 0, PAGE_SIZE);
    return status;
}

u64 frames_largest_run(u64 align)
{
    u64 best = 0;

    for (u32 i = 0; i < frames.count; i++) {
        u64 first = align_up(frames.range[i].first, align / PAGE_SIZE), end = frames.range[i].end;
        best = first < end && end - first > best ? end - first : best;
    }
    return best;
}
