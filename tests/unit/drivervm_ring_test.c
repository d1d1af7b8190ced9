/* SOURCES: drivervm/runtime/ring.c */
/* The driver's end of the rings against a producer of our own: order, wrap-around, full rings, headers that lie. */
#include "drivervm/runtime/ring.h"
#include "tests/unit/random.h"

static struct {
    struct ring_request_page page;
    union ring_cell cells[RING_CELLS];
} * request;
static struct ring_completion_page *completion;
static struct ring ring;

static int setup(void **state)
{
    request = calloc(1, sizeof(*request));
    completion = calloc(1, sizeof(*completion));
    assert_non_null(request);
    assert_non_null(completion);
    ring_init(&ring, request, completion);
    return 0;
}

static int teardown(void **state)
{
    free(request);
    free(completion);
    return 0;
}

/* Let all free-running indices stand at `index`, as after that many cells. */
static void start_at(u32 index)
{
    request->page.produced = completion->consumed = completion->produced = index;
    ring_init(&ring, request, completion);
}

static void produce(u16 tag, u16 segments, u32 readable)
{
    u32 at = request->page.produced;

    request->cells[at % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = segments, .readable = readable};
    for (u32 i = 0; i < segments; i++)
        request->cells[(at + 1 + i) % RING_CELLS].segment =
            (struct ring_segment_cell){.address = (u64)tag << 32 | i, .length = i + 1};
    request->page.produced = at + 1 + segments;
}

static void an_empty_ring_has_nothing(void **state)
{
    struct ring_header_cell header;

    assert_int_equal(ring_peek(&ring, &header), ERR_NOT_FOUND);
    produce(3, 2, 1);
    assert_int_equal(ring_peek(&ring, &header), OK);
    assert_int_equal(ring_peek(&ring, &header), OK); /* looking takes nothing */
    assert_int_equal(header.tag, 3);
    assert_int_equal(completion->consumed, 0);
}

static void requests_come_whole_and_in_order_for_ever(void **state)
{
    struct random random = random_start("ring");
    struct ring_segment_cell segments[RING_MAX_SEGMENTS];
    struct ring_header_cell header;
    u16 made = 0, seen = 0;

    start_at(UINT32_MAX - 3 * RING_CELLS); /* the indices wrap on the way, and the cells many times */
    for (u32 round = 0; round < 3000; round++) {
        u16 count = (u16)random_between(&random, 1, RING_MAX_SEGMENTS);
        while (request->page.produced - completion->consumed + count + 1 <= RING_CELLS) {
            produce(made++ % RING_TAGS, count, (u32)random_below(&random, count + 1u));
            count = (u16)random_between(&random, 1, RING_MAX_SEGMENTS);
        }
        for (u64 n = random_between(&random, 1, 40); n > 0 && ring_peek(&ring, &header) == OK; n--) {
            assert_int_equal(header.tag, seen % RING_TAGS);
            ring_take(&ring, &header, segments);
            for (u32 i = 0; i < header.segments; i++) {
                assert_int_equal(segments[i].address, (u64)(seen % RING_TAGS) << 32 | i);
                assert_int_equal(segments[i].length, i + 1);
            }
            seen++;
        }
        ring_release(&ring);
        assert_int_equal(completion->consumed, ring.consumed);
    }
    assert_true(seen > 3000);
}

static void cells_are_given_back_only_by_release(void **state)
{
    struct ring_segment_cell segments[RING_MAX_SEGMENTS];
    struct ring_header_cell header;

    produce(1, 4, 4);
    assert_int_equal(ring_peek(&ring, &header), OK);
    ring_take(&ring, &header, segments);
    assert_int_equal(completion->consumed, 0);
    ring_release(&ring);
    assert_int_equal(completion->consumed, 5);
}

static void headers_outside_the_contract_are_refused(void **state)
{
    const struct ring_header_cell bad[] = {
        {.tag = RING_TAGS, .segments = 1},
        {.tag = 0xffff, .segments = 1},
        {.tag = 1, .segments = 0},
        {.tag = 1, .segments = RING_MAX_SEGMENTS + 1},
        {.tag = 1, .segments = 0xffff},
        {.tag = 1, .segments = 2, .readable = 3},
        {.tag = 1, .segments = 9} /* more than there are cells */,
    };
    struct ring_header_cell header;

    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        request->cells[0].header = bad[i];
        request->page.produced = 1 + (bad[i].segments == 9 ? 8 : bad[i].segments);
        assert_int_equal(ring_peek(&ring, &header), ERR_FORMAT);
    }
    request->cells[0].header = (struct ring_header_cell){.tag = 1, .segments = 1};
    request->page.produced = RING_CELLS + 1;
    assert_int_equal(ring_peek(&ring, &header), ERR_FORMAT);
    request->page.produced = 2;
    assert_int_equal(ring_peek(&ring, &header), OK);
}

static void completions_wrap(void **state)
{
    start_at(UINT32_MAX - 5);
    for (u32 i = 0; i < 3 * RING_COMPLETIONS; i++) {
        u32 at = completion->produced;
        ring_complete(&ring, (u16)(i % RING_TAGS), i * 7);
        assert_int_equal(completion->produced, at + 1);
        assert_int_equal(completion->entry[at % RING_COMPLETIONS].tag, i % RING_TAGS);
        assert_int_equal(completion->entry[at % RING_COMPLETIONS].length, i * 7);
        assert_int_equal(completion->entry[at % RING_COMPLETIONS].reserved, 0);
    }
}

static void each_heartbeat_changes_the_counter(void **state)
{
    completion->heartbeat = UINT32_MAX;
    ring_heartbeat(&ring);
    assert_int_equal(completion->heartbeat, 0);
    ring_heartbeat(&ring);
    assert_int_equal(completion->heartbeat, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_ring_has_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_come_whole_and_in_order_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(cells_are_given_back_only_by_release, setup, teardown),
        cmocka_unit_test_setup_teardown(headers_outside_the_contract_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(completions_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(each_heartbeat_changes_the_counter, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
