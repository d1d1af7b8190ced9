/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c */
/* INCLUDE_FAKES */
/* Hostile guest: every rule of split virtqueues that a chain can break sets the device broken, and a reset mends it. */
#include "tests/unit/random.h"

#include "tests/unit/relay_world.h"

#define SIZE 16u
#define TABLE 0x20000ull
#define BUFFER 0x30000ull
#define R 0u
#define W VIRTQ_DESC_F_WRITE
#define N VIRTQ_DESC_F_NEXT
#define I VIRTQ_DESC_F_INDIRECT

static void start(u64 features)
{
    world_start(MANIFEST_GRANTS_STRICT, 256, features, SIZE);
}

static int teardown(void **state)
{
    world_destroy();
    return 0;
}

static void set(u16 index, u64 addr, u32 len, u16 flags, u16 next)
{
    guest_desc(0)[index] = (struct virtq_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static void set_indirect(u16 index, u64 addr, u32 len, u16 flags, u16 next)
{
    ((struct virtq_desc *)(world.ram + TABLE))[index] =
        (struct virtq_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static void submit(u16 head)
{
    guest_make_available(0, SIZE, head);
    guest_kick(0);
    world_check();
}

/* The device broke: nothing was forwarded, the guest was told, and after a reset it works. */
static void expect_broken(void)
{
    struct driver_request request;
    struct relay_stats stats;

    assert_true(guest_status() & VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(world.messages[MSIX_ENTRIES - 1], 1);
    assert_false(driver_take(0, &request));
    stats = relay_stats(world.relay);
    assert_int_equal(stats.broken, 1);
    assert_int_equal(reachable_pages(), 0);
    assert_int_equal(world.reports, 0); /* not the driver's fault */

    set(0, BUFFER, 16, R, 0);
    submit(0); /* dead until the reset */
    assert_false(driver_take(0, &request));

    guest_set_status(0);
    assert_int_equal(guest_status(), 0);
    guest_start(GUEST_FEATURES, SIZE);
    set(0, BUFFER, 16, R, 0);
    submit(0);
    assert_true(driver_take(0, &request));
    world_destroy();
}

static void expect_accepted(u32 count, u32 readable)
{
    static struct driver_request request;

    assert_false(guest_status() & VIRTIO_STATUS_NEEDS_RESET);
    assert_true(driver_take(0, &request));
    assert_int_equal(request.count, count);
    assert_int_equal(request.readable, readable);
    world_destroy();
}

static void direct_chains(void **state)
{
    struct {
        struct virtq_desc desc[3];
    } const broken[] = {
        {{{BUFFER, 16, N, 0}}},                     /* a loop of one */
        {{{BUFFER, 16, N, 1}, {BUFFER, 16, N, 0}}}, /* a loop of two */
        {{{BUFFER, 16, N, SIZE}}},                  /* successor out of range */
        {{{BUFFER, 16, N, 0xffff}}},
        {{{BUFFER, 0, R, 0}}}, /* empty */
        {{{BUFFER, 16, N, 1}, {BUFFER, 0, W, 0}}},
        {{{WORLD_RAM, 1, R, 0}}}, /* outside memory */
        {{{WORLD_RAM - 8, 9, W, 0}}},
        {{{0xfffffffffffffff8, 16, R, 0}}}, /* wraps */
        {{{0, 0xffffffff, R, 0}}},
        {{{BUFFER, 16, W | N, 1}, {BUFFER, 16, R, 0}}}, /* readable after writable */
        {{{TABLE, 24, I, 0}}},                          /* not whole descriptors */
        {{{TABLE, 0, I, 0}}},
        {{{TABLE, 16, I | N, 1}, {BUFFER, 16, R, 0}}}, /* with a successor */
        {{{WORLD_RAM - 16, 32, I, 0}}},                /* table outside memory */
        {{{0xfffffffffffffff0, 32, I, 0}}},
        {{{TABLE, 0xfffffff0, I, 0}}},
    };
    for (u32 i = 0; i < ARRAY_SIZE(broken); i++) {
        start(GUEST_FEATURES);
        set_indirect(0, BUFFER, 16, R, 0);
        memcpy(guest_desc(0), broken[i].desc, sizeof(broken[i].desc));
        submit(0);
        expect_broken();
    }
}

static void accepted_chains(void **state)
{
    start(GUEST_FEATURES);
    for (u16 i = 0; i < SIZE; i++) /* as long as the queue */
        set(i, BUFFER + i * 100, 100, (u16)((i < 5 ? R : W) | (i + 1u < SIZE ? N : 0)), (u16)(i + 1));
    submit(0);
    expect_accepted(SIZE, 5);

    start(GUEST_FEATURES);
    set(0, WORLD_RAM - 1, 1, R, 0xffff); /* the last byte; next counts only with its flag */
    submit(0);
    expect_accepted(1, 1);

    start(GUEST_FEATURES); /* 2.7.5.3.2: direct descriptors, then an indirect one, whose WRITE is ignored */
    set(3, BUFFER, 8, R | N, 7);
    set(7, TABLE, 32, I | W, 0);
    set_indirect(0, BUFFER, 8, R | N, 1);
    set_indirect(1, BUFFER, 8, W, 0);
    submit(3);
    expect_accepted(3, 2);

    start(GUEST_FEATURES); /* a table at an odd address */
    set(0, TABLE + 1, 16, I, 0);
    set_indirect(0, 0, 0, 0, 0);
    memcpy(world.ram + TABLE + 1, &(struct virtq_desc){.addr = BUFFER, .len = 7, .flags = W}, 16);
    submit(0);
    expect_accepted(1, 0);
}

static void indirect_chains(void **state)
{
    start(GUEST_FEATURES); /* indirect in indirect */
    set(0, TABLE, 32, I, 0);
    set_indirect(0, TABLE, 16, I, 0);
    submit(0);
    expect_broken();

    start(GUEST_FEATURES); /* loop inside */
    set(0, TABLE, 32, I, 0);
    set_indirect(0, BUFFER, 16, N, 1);
    set_indirect(1, BUFFER, 16, N, 0);
    submit(0);
    expect_broken();

    start(GUEST_FEATURES); /* next beyond the table, although inside the queue */
    set(0, TABLE, 32, I, 0);
    set_indirect(0, BUFFER, 16, N, 2);
    set_indirect(2, BUFFER, 16, R, 0);
    submit(0);
    expect_broken();

    start(GUEST_FEATURES); /* one segment too many, then just as many as fit */
    set(0, TABLE, (RING_MAX_SEGMENTS + 1) * 16, I, 0);
    for (u16 i = 0; i <= RING_MAX_SEGMENTS; i++)
        set_indirect(i, BUFFER, 1, i < RING_MAX_SEGMENTS ? N : 0, (u16)(i + 1));
    submit(0);
    expect_broken();

    start(GUEST_FEATURES);
    set(0, TABLE, RING_MAX_SEGMENTS * 16, I, 0);
    for (u16 i = 0; i < RING_MAX_SEGMENTS; i++)
        set_indirect(i, BUFFER, 1, i + 1u < RING_MAX_SEGMENTS ? N : 0, (u16)(i + 1));
    submit(0);
    expect_accepted(RING_MAX_SEGMENTS, RING_MAX_SEGMENTS);

    start(VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX); /* not negotiated */
    set(0, TABLE, 16, I, 0);
    set_indirect(0, BUFFER, 16, R, 0);
    submit(0);
    expect_broken();
}

static void available_ring(void **state)
{
    start(GUEST_FEATURES);
    submit(SIZE); /* head out of range */
    expect_broken();

    start(GUEST_FEATURES);
    set(0, BUFFER, 16, R, 0);
    guest_avail(0)->idx = SIZE + 1; /* the index jumps */
    guest_kick(0);
    expect_broken();

    start(GUEST_FEATURES);
    guest_avail(0)->idx = 0xffff; /* backwards */
    guest_kick(0);
    expect_broken();
}

/* A request of more pages than may ever be granted cannot wait for room: the guest gets the device's error. */
static void larger_than_the_grant_cache(void **state)
{
    struct relay_stats stats;

    world_start(MANIFEST_GRANTS_STICKY, 8, GUEST_FEATURES, SIZE);
    world.ram[BUFFER + 9 * PAGE_SIZE - 1] = 0xee;
    set(0, BUFFER, 9 * PAGE_SIZE, W, 0);
    submit(0);
    stats = relay_stats(world.relay);
    assert_int_equal(stats.errors_answered, 1);
    assert_int_equal(guest_used(0)->idx, 1);
    assert_int_equal(guest_used(0)->ring[0].len, 9 * PAGE_SIZE);
    assert_int_equal(world.ram[BUFFER + 9 * PAGE_SIZE - 1], 1);
    assert_false(guest_status() & VIRTIO_STATUS_NEEDS_RESET);
    world_check();

    /* The answer came without a driver; the next kick must still be asked for. */
    u16 event;
    memcpy(&event, &guest_used(0)->ring[SIZE], 2);
    assert_int_equal(event, 1);
}

/* Random bytes in descriptors and rings, resets in between: the relay stays consistent and in bounds. */
static void random_rings(void **state)
{
    struct random random = random_start("rings");
    static struct driver_request request;

    start(GUEST_FEATURES);
    for (u32 round = 0; round < 20000; round++) {
        struct virtq_desc *desc = &guest_desc(0)[random_below(&random, SIZE)];
        *desc = (struct virtq_desc){.addr = random_one_in(&random, 3) ? TABLE + random_below(&random, 64)
                                                                      : random_below(&random, WORLD_RAM + PAGE_SIZE),
                                    .len = (u32)random_bits(&random) & (random_one_in(&random, 9) ? ~0u : 0x1ff0),
                                    .flags = (u16)random_below(&random, 8),
                                    .next = (u16)random_below(&random, SIZE + 1)};
        if (random_one_in(&random, 4))
            memcpy(world.ram + TABLE + random_below(&random, 512), desc, sizeof(*desc));
        guest_make_available(0, SIZE, (u16)random_below(&random, SIZE + (random_one_in(&random, 20) ? 1 : 0)));
        guest_kick(0);
        while (driver_take(0, &request)) {
            for (u32 i = 0; i < request.count; i++)
                assert_non_null(device_reach(request.segment[i].address, request.segment[i].length,
                                             request.segment[i].flags & RING_SEGMENT_WRITABLE));
            if (random_one_in(&random, 2))
                driver_complete(0, request.tag, 0);
        }
        relay_complete(world.relay);
        world_check();
        if (guest_status() & VIRTIO_STATUS_NEEDS_RESET || random_one_in(&random, 50)) {
            guest_set_status(0);
            for (u32 tag = 0; guest_status() != 0; tag++) { /* drain */
                assert_true(tag < RING_TAGS);
                if (world.relay->queue[0].log.slot[tag].in_flight)
                    driver_complete(0, (u16)tag, 0);
                relay_complete(world.relay);
            }
            guest_start(GUEST_FEATURES, SIZE);
        }
    }
    assert_int_equal(world.reports, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(direct_chains),
        cmocka_unit_test(accepted_chains),
        cmocka_unit_test(indirect_chains),
        cmocka_unit_test(available_ring),
        cmocka_unit_test_teardown(larger_than_the_grant_cache, teardown),
        cmocka_unit_test_teardown(random_rings, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
