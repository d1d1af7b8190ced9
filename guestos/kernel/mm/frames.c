#include "guestos/kernel/mm/frames.h"

#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/panic.h"
#include "shared/lib/string.h"

#define LOWEST MIB(1) /* below lie firmware data, the loader's tables and holes */
#define BOOT_MAPPED GIB(4)
#define PROGRESS_FRAMES 4096u

extern u8 kernel_start[], kernel_end[];

static u64 *used;   /* a bit for each frame below frame_limit; set: not free */
static u64 *canary; /* a bit for each frame: it is free and holds the canary pattern */
static u64 frame_limit;
static u64 total_frames, free_frames;
static u64 canary_seed;

static bool bit_test(const u64 *map, u64 bit)
{
    return (map[bit / 64] >> (bit % 64) & 1) != 0;
}

static void bit_set(u64 *map, u64 bit)
{
    map[bit / 64] |= 1ull << (bit % 64);
}

static void bit_clear(u64 *map, u64 bit)
{
    map[bit / 64] &= ~(1ull << (bit % 64));
}

static bool usable(const struct pvh_memory *memory, u64 *from, u64 *to)
{
    if (memory->type != PVH_MEMORY_RAM || memory->base + memory->size < memory->base)
        return false;
    *from = PAGE_UP(memory->base < LOWEST ? LOWEST : memory->base);
    *to = PAGE_DOWN(memory->base + memory->size);
    return *from < *to;
}

/* A place for both bitmaps that the boot map shows and that is not the kernel's. */
static u64 place_bitmaps(const struct pvh_boot *boot, u64 size)
{
    for (u32 i = 0; i < boot->memory_count; i++) {
        u64 from, to;
        if (!usable(&boot->memory[i], &from, &to))
            continue;
        if (from < PAGE_UP((u64)kernel_end) && to > (u64)kernel_start)
            from = PAGE_UP((u64)kernel_end);
        if (to > BOOT_MAPPED)
            to = BOOT_MAPPED;
        if (from < to && to - from >= size)
            return from;
    }
    panic("no room for the frame bitmap");
}

static void mark_used(u64 from, u64 to)
{
    for (u64 frame = from / PAGE_SIZE; frame < PAGE_UP(to) / PAGE_SIZE; frame++) {
        if (!bit_test(used, frame)) {
            bit_set(used, frame);
            free_frames--;
        }
    }
}

void frames_init(const struct pvh_boot *boot)
{
    u64 from, to;

    for (u32 i = 0; i < boot->memory_count; i++)
        if (usable(&boot->memory[i], &from, &to) && to / PAGE_SIZE > frame_limit)
            frame_limit = to / PAGE_SIZE;
    u64 words = (frame_limit + 63) / 64;
    u64 size = PAGE_UP(2 * words * sizeof(u64));
    used = (u64 *)place_bitmaps(boot, size);
    canary = used + words;
    memset(used, 0xff, words * sizeof(u64));
    memset(canary, 0, words * sizeof(u64));
    for (u32 i = 0; i < boot->memory_count; i++) {
        if (!usable(&boot->memory[i], &from, &to))
            continue;
        for (u64 frame = from / PAGE_SIZE; frame < to / PAGE_SIZE; frame++)
            bit_clear(used, frame);
        total_frames += (to - from) / PAGE_SIZE;
    }
    free_frames = total_frames;
    mark_used((u64)kernel_start, (u64)kernel_end);
    mark_used((u64)used, (u64)used + size);
}

u64 frames_alloc(u64 count, u64 align)
{
    u64 step = align / PAGE_SIZE;
    u64 run = 0;

    /* A run must begin at a multiple of step; after a used frame the search goes on behind it. */
    for (u64 frame = 0; frame < frame_limit; frame++) {
        if (bit_test(used, frame) || (run == 0 && frame % step != 0)) {
            run = 0;
            continue;
        }
        if (++run < count)
            continue;
        u64 first = frame + 1 - count;
        for (u64 i = first; i <= frame; i++) {
            bit_set(used, i);
            bit_clear(canary, i);
        }
        free_frames -= count;
        return first * PAGE_SIZE;
    }
    return 0;
}

void frames_free(u64 address, u64 count)
{
    for (u64 i = 0; i < count; i++)
        bit_clear(used, address / PAGE_SIZE + i);
    free_frames += count;
}

struct frames_info frames_get_info(void)
{
    return (struct frames_info){total_frames * PAGE_SIZE, free_frames * PAGE_SIZE, frame_limit * PAGE_SIZE};
}

u64 frames_set_canaries(u64 seed, bool (*progress)(u64 bytes))
{
    u64 done = 0;

    canary_seed = seed;
    for (u64 frame = 0; frame < frame_limit; frame++) {
        if (bit_test(used, frame))
            continue;
        u64 *word = (u64 *)(frame * PAGE_SIZE);
        u64 state = mix64(seed ^ frame);
        for (u32 i = 0; i < PAGE_SIZE / 8; i++)
            word[i] = state += MIX_STEP;
        bit_set(canary, frame);
        if (++done % PROGRESS_FRAMES == 0 && !progress(done * PAGE_SIZE))
            break;
    }
    return done * PAGE_SIZE;
}

u64 frames_check_canaries(u64 *changed_words, bool (*progress)(u64 bytes))
{
    u64 done = 0;

    *changed_words = 0;
    for (u64 frame = 0; frame < frame_limit; frame++) {
        if (!bit_test(canary, frame))
            continue;
        const volatile u64 *word = (const volatile u64 *)(frame * PAGE_SIZE);
        u64 state = mix64(canary_seed ^ frame);
        for (u32 i = 0; i < PAGE_SIZE / 8; i++)
            *changed_words += word[i] != (state += MIX_STEP);
        if (++done % PROGRESS_FRAMES == 0 && !progress(done * PAGE_SIZE))
            break;
    }
    return done * PAGE_SIZE;
}

u64 frames_get_canary_seed(void)
{
    return canary_seed;
}
