/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c */
/* INCLUDE_FAKES */
/* Hostile driver VMs, offers, giving up, and grants when memory or the cache runs out. */
#include "tests/unit/random.h"

#include "tests/unit/relay_world.h"

#define SIZE 32u

static int teardown(void **state)
{
    world_check();
    world_destroy();
    return 0;
}

static void start(enum manifest_grants grants, u32 pages)
{
    world_start(grants, pages, GUEST_FEATURES, SIZE);
}

/* Requests 0..count-1 at descriptors 2i, pages 20 + 2i and the next; taken by the driver. */
static void send(u32 count, struct driver_request *out)
{
    for (u16 i = 0; i < count; i++)
        guest_simple_request(0, SIZE, (u16)(2 * i), 20 + 2 * i);
    guest_kick(0);
    for (u32 i = 0; i < count; i++)
        assert_true(driver_take(0, &out[i]));
}

static void expect_violation(u32 published)
{
    relay_complete(world.relay);
    assert_int_equal(world.reports, 1);
    assert_int_equal(world.report_kind, FAULT_COMPLETION_RING);
    assert_int_equal(guest_used(0)->idx, published);
    /* From then on nothing that this driver says reaches the guest. */
    u16 tag;
    u32 max;
    if (relay_some_in_flight(world.relay, 0, &tag, &max) == OK)
        driver_complete(0, tag, 0);
    assert_int_equal(relay_complete(world.relay), 0);
    assert_false(relay_forward(world.relay));
    assert_int_equal(world.reports, 1);
    assert_int_equal(guest_used(0)->idx, published);
    world_check();
    /* Its successor serves the rest. */
    static struct driver_request request;
    u32 left = relay_in_flight(world.relay);
    world_crash();
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    for (u32 i = 0; i < left; i++) {
        assert_true(driver_take(0, &request));
        driver_complete(0, request.tag, 512);
    }
    assert_int_equal(relay_complete(world.relay), left);
    assert_int_equal(guest_used(0)->idx, published + left);
    assert_int_equal(world.first_completions, left != 0);
    world_destroy();
}

static void broken_completions(void **state)
{
    static struct driver_request r[4];

    start(MANIFEST_GRANTS_STRICT, 64); /* a tag that was never given out; what came before it counts */
    send(3, r);
    driver_complete(0, r[1].tag, 512);
    driver_complete(0, (u16)(r[2].tag + 7), 0);
    driver_complete(0, r[0].tag, 512);
    expect_violation(1);

    start(MANIFEST_GRANTS_STRICT, 64); /* beyond all tags */
    send(2, r);
    driver_complete(0, 0xffff, 0);
    expect_violation(0);

    start(MANIFEST_GRANTS_STRICT, 64); /* just beyond */
    send(2, r);
    driver_complete(0, RING_TAGS, 0);
    expect_violation(0);

    start(MANIFEST_GRANTS_STICKY, 64); /* twice, in one batch */
    send(2, r);
    driver_complete(0, r[0].tag, 1);
    driver_complete(0, r[0].tag, 1);
    expect_violation(1);

    start(MANIFEST_GRANTS_STICKY, 64); /* twice, later */
    send(2, r);
    driver_complete(0, r[0].tag, 1);
    assert_int_equal(relay_complete(world.relay), 1);
    driver_complete(0, r[0].tag, 1);
    expect_violation(1);

    start(MANIFEST_GRANTS_STRICT, 64); /* more than the request's writable bytes */
    send(2, r);
    driver_complete(0, r[0].tag, 513);
    expect_violation(0);
}

/* The indices of both rings, which the driver writes. */
static void broken_indices(void **state)
{
    static struct driver_request r[1];
    struct ring_completion_page *page;

    start(MANIFEST_GRANTS_STRICT, 64); /* all answered, and one never reported as read */
    send(1, r);
    u32 first = relay_completion_page(world.relay, 0)->consumed;
    driver_complete(0, r[0].tag, 0);
    assert_int_equal(relay_complete(world.relay), 1);
    send(1, r);
    relay_completion_page(world.relay, 0)->consumed = first;
    driver_complete(0, r[0].tag, 0);
    expect_violation(2);

    start(MANIFEST_GRANTS_STRICT, 64); /* the index jumps, ahead and back */
    send(1, r);
    relay_completion_page(world.relay, 0)->produced = RING_COMPLETIONS + 1;
    expect_violation(0);
    start(MANIFEST_GRANTS_STRICT, 64);
    send(1, r);
    relay_completion_page(world.relay, 0)->produced = 0xffffffff;
    expect_violation(0);

    start(MANIFEST_GRANTS_STRICT, 64); /* it read more than there is; it unread */
    send(1, r);
    page = relay_completion_page(world.relay, 0);
    page->consumed++;
    expect_violation(0);
    start(MANIFEST_GRANTS_STRICT, 64);
    send(1, r);
    assert_int_equal(relay_complete(world.relay), 0);
    relay_completion_page(world.relay, 0)->consumed--;
    expect_violation(0);
}

static void random_completion_rings(void **state)
{
    struct random random = random_start("driver");

    start(MANIFEST_GRANTS_STRICT, 128);
    for (u32 round = 0; round < 20000; round++) {
        struct ring_completion_page *page = relay_completion_page(world.relay, 0);
        u16 before = guest_used(0)->idx;
        u32 in_flight;
        if (relay_in_flight(world.relay) < 10) {
            u16 at = (u16)(2 * random_below(&random, SIZE / 2));
            guest_simple_request(0, SIZE, at, 20 + at);
            guest_kick(0);
            relay_forward(world.relay);
        }
        page->consumed = relay_request_page(world.relay, 0)->produced;
        in_flight = relay_in_flight(world.relay);
        for (u64 n = random_below(&random, 3); n > 0; n--)
            driver_complete(0, (u16)random_below(&random, random_one_in(&random, 9) ? 65536 : 12),
                            (u32)random_bits(&random));
        if (random_one_in(&random, 50))
            page->produced = (u32)random_bits(&random);
        if (random_one_in(&random, 50))
            page->consumed = (u32)random_bits(&random);
        u32 accepted = relay_complete(world.relay);
        assert_int_equal((u16)(guest_used(0)->idx - before), accepted);
        assert_int_equal(relay_in_flight(world.relay), in_flight - accepted);
        world_check();
        if (world.reports != 0) {
            world.reports = 0;
            world_crash();
            assert_int_equal(relay_offer(world.relay, &world.offer), OK);
            assert_int_equal(relay_in_flight(world.relay), in_flight - accepted);
        }
    }
    assert_true(guest_used(0)->idx != 0 && world.first_completions > 10);
}

static void offers(void **state)
{
    struct driver_offer bad[11], *o = bad;
    world_create(MANIFEST_GRANTS_STICKY, 64, true);
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = world.offer;
    (o++)->virtio_type = 0;
    (o++)->virtio_type = 64;
    (o++)->queues = 0;
    (o++)->queues = RING_MAX_QUEUES + 1;
    (o++)->features = VIRTIO_F_EVENT_IDX; /* the transport's */
    (o++)->queue_size = 0;
    (o++)->queue_size = 24;
    (o++)->queue_size = RING_TAGS * 2;
    (o++)->config_length = DRIVER_CONFIG_SIZE + 1;
    (o++)->error_length = DRIVER_ERROR_SIZE + 1;
    (o++)->patient_queues = 1u << world.offer.queues;
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(relay_offer(world.relay, &bad[i]), ERR_INVALID);
    assert_null(relays[1]);
    assert_int_equal(relay_config(world.relay, bad[0].config, 1), ERR_STATE);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_int_equal(relay_offer(world.relay, &world.offer), ERR_STATE);
    guest_start(GUEST_FEATURES, SIZE);
    world_crash();
    for (u32 i = 0; i < 5; i++) { /* the guest negotiated with its predecessor */
        struct driver_offer other = world.offer;
        other.virtio_type += i == 0;
        other.queues += i == 1;
        other.features ^= i == 2 ? 2 : 0;
        other.queue_size /= i == 3 ? 2 : 1;
        other.patient_queues ^= i == 4;
        assert_int_equal(relay_offer(world.relay, &other), ERR_INVALID);
    }
    world.offer.config[3] = 77;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_int_equal(guest_in(0x83, 1), 77);
    assert_int_equal(world.messages[MSIX_ENTRIES - 1], 1);
}

static void give_up_answers_with_errors(void **state)
{
    static struct driver_request r[3];
    struct relay_stats stats;
    struct virtq_desc *desc;
    u16 event;

    world_create(MANIFEST_GRANTS_STICKY, 64, true);
    world.offer.error_length = 3;
    memcpy(world.offer.error, (u8[]){0xe1, 0xe2, 0xe3}, 3);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    guest_start(GUEST_FEATURES, SIZE);
    send(3, r);
    desc = guest_desc(0); /* one more: its last bytes lie in two segments */
    desc[10] = (struct virtq_desc){.addr = 0x20000, .len = 4, .flags = VIRTQ_DESC_F_NEXT, .next = 11};
    desc[11] =
        (struct virtq_desc){.addr = 0x21000, .len = 8, .flags = VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, .next = 12};
    desc[12] = (struct virtq_desc){.addr = 0x22000, .len = 2, .flags = VIRTQ_DESC_F_WRITE};
    guest_make_available(0, SIZE, 10);
    guest_avail(0)->ring[SIZE] = 3;
    relay_close(world.relay);
    relay_revoke_all(world.relay);
    relay_give_up(world.relay, true);
    assert_int_equal(relay_in_flight(world.relay), 0);
    assert_int_equal(guest_used(0)->idx, 4);
    for (u32 i = 0; i < 3; i++) {
        assert_int_equal(guest_used(0)->ring[i].id, 2 * i);
        assert_int_equal(guest_used(0)->ring[i].len, 512);
        assert_memory_equal(world.ram + (21 + 2 * i) * PAGE_SIZE + 509, world.offer.error, 3);
        assert_int_equal(world.ram[(21 + 2 * i) * PAGE_SIZE + 508], 0);
    }
    assert_int_equal(guest_used(0)->ring[3].len, 10);
    assert_int_equal(world.ram[0x21007], 0xe1);
    assert_int_equal(world.ram[0x21006], 0);
    assert_int_equal(world.ram[0x22000], 0xe2);
    assert_int_equal(world.ram[0x22001], 0xe3);
    assert_int_equal(world.messages[0], 1);
    /* Later ones, by kick, again and again. */
    for (u32 i = 0; i < 100; i++) {
        guest_simple_request(0, SIZE, 20, 60);
        memcpy(&event, &guest_used(0)->ring[SIZE], 2);
        assert_true(virtq_need_event(event, guest_avail(0)->idx, (u16)(guest_avail(0)->idx - 1)));
        guest_kick(0);
        assert_int_equal(guest_used(0)->idx, 5 + i);
    }
    stats = relay_stats(world.relay);
    assert_int_equal(stats.errors_answered, 104);
    assert_int_equal(stats.granted_pages, 0);
    guest_set_status(0);
    assert_int_equal(guest_status(), 0);
}

static void give_up_in_silence(void **state)
{
    static struct driver_request r[2];

    start(MANIFEST_GRANTS_STRICT, 64);
    send(2, r);
    relay_close(world.relay);
    relay_revoke_all(world.relay);
    relay_give_up(world.relay, false);
    guest_simple_request(0, SIZE, 20, 60);
    guest_kick(0);
    assert_int_equal(guest_used(0)->idx, 0);
    assert_int_equal(relay_in_flight(world.relay), 2);
    guest_set_status(0); /* the guest can still reset it: nothing can arrive */
    assert_int_equal(guest_status(), 0);
    assert_int_equal(relay_in_flight(world.relay), 0);
}

static void rights_follow_descriptors(void **state)
{
    static struct driver_request r[2];

    start(MANIFEST_GRANTS_STICKY, 64);
    send(1, r); /* page 20 to read, page 21 to write */
    assert_int_equal(world.io[20].rights, PAGE_READ);
    assert_int_equal(world.npt[21].rights, PAGE_READ | PAGE_WRITE);
    assert_non_null(device_reach(r[0].segment[0].address, 16, false));
    assert_null(device_reach(r[0].segment[0].address, 16, true));
    assert_null(device_reach(DRIVER_WINDOW_BASE + 22 * PAGE_SIZE, 1, false));
    guest_simple_request(0, SIZE, 2, 19); /* now page 20 to write as well: rights grow, for the flight of both */
    guest_kick(0);
    assert_int_equal(world.io[20].rights, PAGE_READ | PAGE_WRITE);
    assert_true(world.driver_vm.vcpu.flush_tlb);
    assert_true(driver_take(0, &r[1]));
    assert_non_null(device_reach(r[1].segment[1].address, 512, true)); /* no older translation is in the way */
    driver_complete(0, r[0].tag, 0);
    driver_complete(0, r[1].tag, 0);
    assert_int_equal(relay_complete(world.relay), 2);
    assert_true(relay_is_granted(world.relay, GPA(20 * PAGE_SIZE))); /* sticky */
}

static void strict_revokes_with_one_flush(void **state)
{
    static struct driver_request r[8];

    start(MANIFEST_GRANTS_STRICT, 64);
    send(8, r);
    u32 flushes = world.flushes;
    for (u32 i = 0; i < 8; i++)
        driver_complete(0, r[i].tag, 512);
    assert_int_equal(relay_complete(world.relay), 8);
    assert_int_equal(world.flushes - flushes, 2); /* nested table and IOMMU, once for the batch */
    assert_int_equal(reachable_pages(), 0);
}

/* `count` one-byte segments through an indirect table, at descriptor `at`. */
static void send_long(u16 at, u32 count)
{
    u64 table = 0x20000 + at * 0x1000ull;
    struct virtq_desc *desc = (struct virtq_desc *)(world.ram + table);

    for (u32 i = 0; i < count; i++)
        desc[i] = (struct virtq_desc){.addr = 0x60000 + i,
                                      .len = 1,
                                      .flags = VIRTQ_DESC_F_WRITE | (i + 1 < count ? VIRTQ_DESC_F_NEXT : 0),
                                      .next = (u16)(i + 1)};
    guest_desc(0)[at] = (struct virtq_desc){.addr = table, .len = count * 16, .flags = VIRTQ_DESC_F_INDIRECT};
    guest_make_available(0, SIZE, at);
    guest_kick(0);
}

/* The log takes exactly what an empty request ring holds, so a replay always fits; the ring waits for its reader. */
static void log_and_ring_are_filled_to_the_last_cell(void **state)
{
    static struct driver_request request;
    u32 full = RING_CELLS / (RING_MAX_SEGMENTS + 1), rest = RING_CELLS % (RING_MAX_SEGMENTS + 1);

    start(MANIFEST_GRANTS_STICKY, 512);
    for (u16 i = 0; i < full; i++)
        send_long(i, RING_MAX_SEGMENTS);
    assert_int_equal(relay_in_flight(world.relay), full);
    while (driver_take(0, &request))
        ;
    relay_complete(world.relay);
    send_long((u16)full, rest); /* a cell too many for the log, although the ring is empty */
    assert_int_equal(relay_in_flight(world.relay), full);
    driver_complete(0, request.tag, 0);
    relay_complete(world.relay);
    assert_true(relay_forward(world.relay));
    world_crash();
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    world_check();
    /* All but one are answered before one cell is reported as read: then the ring, not the log, is full. */
    u32 cells = relay_request_page(world.relay, 0)->produced;
    u16 tag;
    u32 max;
    while (relay_in_flight(world.relay) > 1) {
        assert_int_equal(relay_some_in_flight(world.relay, 0, &tag, &max), OK);
        driver_complete(0, tag, 0);
        assert_int_equal(relay_complete(world.relay), 1);
    }
    u32 room = RING_CELLS - cells;
    assert_in_range(room, 2, RING_MAX_SEGMENTS);
    send_long(0, room);
    assert_int_equal(relay_in_flight(world.relay), 1);
    relay_completion_page(world.relay, 0)->consumed = 1;
    assert_true(relay_forward(world.relay));
    assert_int_equal(relay_request_page(world.relay, 0)->produced, RING_CELLS + 1);
    assert_int_equal(world.reports, 0);
}

/* While the driver is busy no honest guest has a reason to kick, however its last kick and our reading overlapped. */
static void suppressed_kicks(void **state)
{
    static struct driver_request r[3];
    u16 event;

    start(MANIFEST_GRANTS_STICKY, 64);
    send(3, r);
    relay_want_kicks(world.relay, false);
    memcpy(&event, &guest_used(0)->ring[SIZE], 2);
    for (u16 before = 0; before <= 3; before++) {
        for (u16 now = 4; now <= 3 + SIZE; now++)
            assert_false(virtq_need_event(event, now, before));
    }
    assert_false(relay_arm_kicks(world.relay));
    memcpy(&event, &guest_used(0)->ring[SIZE], 2);
    assert_true(virtq_need_event(event, 4, 3));
}

/* All pages in use: forwarding waits, without error, and goes on when something completes. */
static void a_full_cache_waits(void **state)
{
    static struct driver_request r[4], more;

    start(MANIFEST_GRANTS_STICKY, 6);
    send(3, r);
    guest_simple_request(0, SIZE, 20, 60);
    guest_kick(0);
    assert_false(driver_take(0, &more));
    assert_int_equal(guest_used(0)->idx, 0);
    driver_complete(0, r[1].tag, 0);
    relay_complete(world.relay);
    assert_true(relay_forward(world.relay));
    assert_true(driver_take(0, &more));
    assert_false(page_is_reachable(22) || page_is_reachable(23)); /* the idle ones went */
    assert_int_equal(guest_used(0)->idx, 1);
}

static void no_memory_for_tables(void **state)
{
    static struct driver_request r[2];

    start(MANIFEST_GRANTS_STRICT, 64);
    send(1, r);
    world.table_budget = 1; /* nested table succeeds, IOMMU fails */
    guest_simple_request(0, SIZE, 4, 40);
    guest_kick(0);
    assert_false(driver_take(0, &r[1])); /* waits for what is in flight */
    world_check();
    world.table_budget = 3; /* the second page fails half-way */
    relay_forward(world.relay);
    world_check();
    assert_false(driver_take(0, &r[1]));
    world.table_budget = 0;
    driver_complete(0, r[0].tag, 5);
    relay_complete(world.relay);
    relay_forward(world.relay); /* nothing in flight that could free any: the device's error */
    assert_int_equal(guest_used(0)->idx, 2);
    assert_int_equal(guest_used(0)->ring[1].len, 512);
    assert_int_equal(world.ram[41 * PAGE_SIZE + 511], 1);

    /* The same at a replay: answered, not lost. */
    world.table_budget = ~0u;
    send(2, r);
    world_crash();
    world.table_budget = 4;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_true(driver_take(0, &r[0]));
    assert_false(driver_take(0, &r[1]));
    assert_int_equal(guest_used(0)->idx, 3);
    assert_int_equal(relay_in_flight(world.relay), 1);
}

static void without_an_iommu(void **state)
{
    struct driver_request request;

    world_create(MANIFEST_GRANTS_STRICT, 64, false);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    guest_start(GUEST_FEATURES, SIZE);
    send(1, &request);
    assert_int_equal(world.npt[20].rights, PAGE_READ);
    assert_int_equal(world.io[20].rights, 0);
    driver_complete(0, request.tag, 1);
    assert_int_equal(relay_complete(world.relay), 1);
    assert_int_equal(reachable_pages(), 0);
}

static void ages(void **state)
{
    static struct driver_request r[2];

    start(MANIFEST_GRANTS_STICKY, 64);
    assert_true(relay_oldest(world.relay) == ~0ull);
    fake_time_us = 1000;
    send(1, r);
    fake_time_us = 2000;
    guest_simple_request(0, SIZE, 4, 40);
    guest_kick(0);
    assert_true(driver_take(0, &r[1]));
    assert_true(relay_oldest(world.relay) == tsc_from_us(1000));
    driver_complete(0, r[0].tag, 0);
    fake_time_us = 3000;
    relay_complete(world.relay);
    assert_true(relay_stats(world.relay).last_completion == tsc_from_us(3000));
    assert_true(relay_oldest(world.relay) == tsc_from_us(2000));
    world_crash();
    fake_time_us = 9000;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_true(relay_oldest(world.relay) == tsc_from_us(9000)); /* a replay starts its time anew */
}

/* Queue 0 receives. Its requests have no deadline, until the guest wants them back. */
static void patience(void **state)
{
    static struct driver_request r[3];

    world_create(MANIFEST_GRANTS_STICKY, 64, true);
    world.offer.queues = 2;
    world.offer.patient_queues = 1;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    guest_start(GUEST_FEATURES, SIZE);
    fake_time_us = 1000;
    send(2, r);
    assert_int_equal(relay_in_flight(world.relay), 2);
    assert_true(relay_oldest(world.relay) == ~0ull);
    fake_time_us = 2000;
    guest_simple_request(1, SIZE, 4, 40);
    guest_kick(1);
    assert_true(driver_take(1, &r[2]));
    assert_true(relay_oldest(world.relay) == tsc_from_us(2000));
    driver_complete(1, r[2].tag, 0);
    relay_complete(world.relay);
    assert_true(relay_oldest(world.relay) == ~0ull);
    fake_time_us = 5000;
    guest_set_status(0);
    assert_true(relay_oldest(world.relay) == tsc_from_us(5000));
    driver_complete(0, r[0].tag, 0);
    driver_complete(0, r[1].tag, 0);
    relay_complete(world.relay);
    assert_int_equal(guest_status(), 0);
}

/* An answered receive buffer would be taken for a packet. */
static void give_up_does_not_answer_the_patient(void **state)
{
    static struct driver_request r[1];

    world_create(MANIFEST_GRANTS_STICKY, 64, true);
    world.offer.queues = 2;
    world.offer.patient_queues = 1;
    world.offer.error_length = 0;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    guest_start(GUEST_FEATURES, SIZE);
    send(1, r);
    guest_simple_request(1, SIZE, 4, 40);
    guest_kick(1);
    relay_close(world.relay);
    relay_revoke_all(world.relay);
    relay_give_up(world.relay, true);
    assert_int_equal(guest_used(0)->idx, 0);
    assert_int_equal(guest_used(1)->idx, 1);
    for (u16 i = 1; i < 4; i++) { /* and later ones */
        guest_simple_request(0, SIZE, 2 * i, 20 + 2 * i);
        guest_simple_request(1, SIZE, 4 + 2 * i, 40 + 2 * i);
        guest_kick(0);
        guest_kick(1);
        assert_int_equal(guest_used(0)->idx, 0);
        assert_int_equal(guest_used(1)->idx, 1 + i);
    }
    assert_int_equal(relay_in_flight(world.relay), 1);
    guest_set_status(0);
    assert_int_equal(guest_status(), 0);
    assert_int_equal(relay_in_flight(world.relay), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_completions),
        cmocka_unit_test(broken_indices),
        TEST(random_completion_rings),
        TEST(offers),
        TEST(give_up_answers_with_errors),
        TEST(give_up_in_silence),
        TEST(rights_follow_descriptors),
        TEST(strict_revokes_with_one_flush),
        TEST(log_and_ring_are_filled_to_the_last_cell),
        TEST(suppressed_kicks),
        TEST(a_full_cache_waits),
        TEST(no_memory_for_tables),
        TEST(without_an_iommu),
        TEST(ages),
        TEST(patience),
        TEST(give_up_does_not_answer_the_patient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
