/* SOURCES: hv/core/frames.c */
/* INCLUDE_FAKES */
/* The frame allocator against an array with one owner a frame. */
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"

#define BASE MIB(16)
#define FRAMES 600u

/* FREE ranges with a hole, a reserved range, and what lies below 1 MiB. */
static const struct boot_memory holes[] = {
    {.base = 0x8000, .size = 0x90000, .kind = BOOT_MEMORY_FREE},
    {.base = BASE, .size = 100 * PAGE_SIZE, .kind = BOOT_MEMORY_FREE},
    {.base = BASE + 100 * PAGE_SIZE, .size = 60 * PAGE_SIZE, .kind = BOOT_MEMORY_LOADER},
    {.base = BASE + 200 * PAGE_SIZE, .size = 400 * PAGE_SIZE, .kind = BOOT_MEMORY_FREE},
};

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static bool is_free_in_holes(u64 frame)
{
    return frame < 100 || (frame >= 200 && frame < FRAMES);
}

static void every_frame_is_served_once(void **state)
{
    bool seen[FRAMES] = {false};
    hpa_t hpa;

    fake_memory_create(BASE, FRAMES * PAGE_SIZE);
    assert_int_equal(frames_init(holes, ARRAY_SIZE(holes)), OK);
    u64 total = frames_total_count;
    assert_int_equal(total, 500);
    for (u64 i = 0; i < total; i++) {
        assert_int_equal(frames_free_count, total - i);
        assert_int_equal(frame_alloc(&hpa), OK);
        u64 frame = (hpa.v - BASE) / PAGE_SIZE;
        assert_true((hpa.v & PAGE_MASK) == 0 && frame < FRAMES && is_free_in_holes(frame));
        assert_false(seen[frame]);
        seen[frame] = true;
        for (u32 j = 0; j < PAGE_SIZE; j++)
            assert_int_equal(((u8 *)hpa_to_ptr(hpa))[j], 0);
    }
    assert_int_equal(frame_alloc(&hpa), ERR_NO_MEMORY);
    assert_int_equal(frames_alloc(1, PAGE_SIZE, &hpa), ERR_NO_MEMORY);
    assert_int_equal(frames_largest_run(PAGE_SIZE), 0);
}

static void boot_needs_what_it_asks_for(void **state)
{
    fake_memory_create(BASE, FRAMES * PAGE_SIZE);
    memset(hpa_to_ptr(HPA(BASE)), 0xff, FRAMES * PAGE_SIZE);
    assert_int_equal(frames_init(holes, ARRAY_SIZE(holes)), OK);
    const u8 *frames = boot_frames(101, "tests"); /* not from the first range: it has 100 */
    assert_int_equal(ptr_to_hpa(frames).v, BASE + 200 * PAGE_SIZE);
    for (u64 i = 0; i < 101 * PAGE_SIZE; i++)
        assert_int_equal(frames[i], 0);
    assert_int_equal(frames[101 * PAGE_SIZE], 0xff);
    assert_true(PANICS(boot_frames(300, "tests")));
    assert_non_null(strstr(fake_panic_text, "no memory for tests"));
}

static void memory_below_1_mib_is_left_out(void **state)
{
    const struct boot_memory low = {.base = 0, .size = MIB(1) + 8 * PAGE_SIZE, .kind = BOOT_MEMORY_FREE};
    hpa_t hpa;

    fake_memory_create(0, MIB(1) + 8 * PAGE_SIZE);
    assert_int_equal(frames_init(&low, 1), OK);
    assert_int_equal(frames_total_count, 8);
    while (frame_alloc(&hpa) == OK)
        assert_true(hpa.v >= MIB(1));
}

static void no_memory_is_an_error(void **state)
{
    const struct boot_memory low = {.base = 0, .size = MIB(1), .kind = BOOT_MEMORY_FREE};

    assert_int_equal(frames_init(NULL, 0), ERR_NO_MEMORY);
    assert_int_equal(frames_init(&low, 1), ERR_NO_MEMORY);
    assert_int_equal(frames_init(&holes[2], 1), ERR_NO_MEMORY);
}

static void bad_arguments_are_refused(void **state)
{
    hpa_t hpa;

    fake_frames_create(BASE, 64 * PAGE_SIZE);
    assert_int_equal(frames_alloc(0, PAGE_SIZE, &hpa), ERR_INVALID);
    assert_int_equal(frames_alloc(1, 0, &hpa), ERR_INVALID);
    assert_int_equal(frames_alloc(1, 2048, &hpa), ERR_INVALID);
    assert_int_equal(frames_alloc(1, 3 * PAGE_SIZE, &hpa), ERR_INVALID);
    assert_int_equal(frames_alloc(UINT64_MAX, PAGE_SIZE, &hpa), ERR_NO_MEMORY);
    assert_int_equal(frames_alloc(1, 1ull << 63, &hpa), ERR_NO_MEMORY);
    assert_int_equal(frames_free_count, 64);
}

/* ---- the model: owner[frame] is 0 when free, 1 when out of reach, else the allocation's number ---- */

struct model {
    u32 owner[FRAMES];
};

static u64 model_largest_run(const struct model *model, u64 align)
{
    u64 best = 0;

    for (u64 at = 0; at < FRAMES; at++) {
        u64 run = 0;
        while ((BASE + at * PAGE_SIZE) % align == 0 && at + run < FRAMES && model->owner[at + run] == 0)
            run++;
        best = run > best ? run : best;
    }
    return best;
}

static void model_take(struct model *model, hpa_t first, u64 count, u32 number)
{
    u64 at = (first.v - BASE) / PAGE_SIZE;

    assert_true(first.v >= BASE && at + count <= FRAMES);
    for (u64 i = 0; i < count; i++) {
        assert_int_equal(model->owner[at + i], 0);
        model->owner[at + i] = number;
    }
}

static void model_alloc(struct model *model, struct random *random, u32 number)
{
    bool single = random_one_in(random, 2);
    u64 count = single ? 1 : random_between(random, 1, 40);
    u64 align = single ? PAGE_SIZE : PAGE_SIZE << random_below(random, 8);
    hpa_t hpa;
    status_t status = single ? frame_alloc(&hpa) : frames_alloc(count, align, &hpa);

    if (model_largest_run(model, align) < count) {
        assert_int_equal(status, ERR_NO_MEMORY);
        return;
    }
    assert_int_equal(status, OK);
    assert_int_equal(hpa.v % align, 0);
    model_take(model, hpa, count, number);
}

static void run_model(struct random *random)
{
    static struct model model;

    fake_memory_create(BASE, FRAMES * PAGE_SIZE);
    assert_int_equal(frames_init(holes, ARRAY_SIZE(holes)), OK);
    for (u64 frame = 0; frame < FRAMES; frame++)
        model.owner[frame] = is_free_in_holes(frame) ? 0 : 1;
    for (u32 step = 0; frames_free_count != 0; step++) {
        model_alloc(&model, random, step + 2);
        u64 free = 0;
        for (u64 frame = 0; frame < FRAMES; frame++)
            free += model.owner[frame] == 0;
        assert_int_equal(frames_free_count, free);
        u64 align = PAGE_SIZE << random_below(random, 8);
        assert_int_equal(frames_largest_run(align), model_largest_run(&model, align));
    }
    fake_memory_destroy();
}

static void random_allocations_match_the_model(void **state)
{
    struct random random = random_start("frames");

    for (u32 i = 0; i < 200; i++)
        run_model(&random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_frame_is_served_once, teardown),
        cmocka_unit_test_teardown(boot_needs_what_it_asks_for, teardown),
        cmocka_unit_test_teardown(memory_below_1_mib_is_left_out, teardown),
        cmocka_unit_test_teardown(no_memory_is_an_error, teardown),
        cmocka_unit_test_teardown(bad_arguments_are_refused, teardown),
        cmocka_unit_test(random_allocations_match_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
