/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c hv/relay/console.c */
/* INCLUDE_FAKES */
/* The guest's console: bytes both ways through chains of any shape, from a guest that may be hostile. */
#include "tests/unit/random.h"

#include "shared/virtio/console.h"
#include "tests/unit/relay_world.h"

#define SIZE 32u
#define TABLE 0x20000ull
#define BUFFER 0x30000ull
#define RX VIRTIO_CONSOLE_RECEIVE
#define TX VIRTIO_CONSOLE_TRANSMIT
#define R 0u
#define W VIRTQ_DESC_F_WRITE
#define N VIRTQ_DESC_F_NEXT
#define I VIRTQ_DESC_F_INDIRECT

static char bytes[4096];

static void start(u64 features)
{
    guest_negotiate(features);
    guest_enable_msix();
    guest_enable_queue(RX, SIZE);
    guest_enable_queue(TX, SIZE);
    guest_driver_ok();
}

static int setup(void **state)
{
    world_create(MANIFEST_GRANTS_STRICT, 256, true);
    relay_console_create();
    world.relay = relays[0];
    start(GUEST_FEATURES);
    memset(bytes, 0, sizeof(bytes));
    return 0;
}

static int teardown(void **state)
{
    relays[0] = NULL;
    world_destroy();
    return 0;
}

static void set(u16 queue, u16 index, u64 addr, u32 len, u16 flags, u16 next)
{
    guest_desc(queue)[index] = (struct virtq_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static void submit(u16 queue, u16 head)
{
    guest_make_available(queue, SIZE, head);
    guest_kick(queue);
}

static void write_ram(u64 at, const char *text)
{
    memcpy(world.ram + at, text, strlen(text));
}

static void it_is_a_console_in_the_guests_slot(void **state)
{
    assert_ptr_equal(relays[0], world.relay);
    assert_int_equal(guest_config_read(0, 4), 0x10431af4);
    assert_int_equal(guest_in(REGISTER(num_queues), 2), 2);
    assert_int_equal(guest_in(REGISTER(device_feature), 4), (u32)(VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX));
    assert_int_equal(relay_in_flight(world.relay), 0);
}

static void what_the_guest_sends_arrives_in_order(void **state)
{
    write_ram(BUFFER, "stat");
    write_ram(BUFFER + 0x1000, "us\n");
    set(TX, 0, BUFFER, 4, N, 1);
    set(TX, 1, BUFFER + 0x1000, 3, R, 0);
    submit(TX, 0);
    write_ram(BUFFER + 0x2000, "stats\n");
    *(struct virtq_desc *)(world.ram + TABLE) = (struct virtq_desc){.addr = BUFFER + 0x2000, .len = 6};
    set(TX, 2, TABLE, 16, I, 0);
    submit(TX, 2);
    assert_int_equal(world.messages[TX], 0); /* kicks move nothing */
    assert_int_equal(guest_used(TX)->idx, 0);
    assert_int_equal(relay_console_move(false, bytes, sizeof(bytes)), 13);
    assert_memory_equal(bytes, "status\nstats\n", 13);
    assert_int_equal(guest_used(TX)->idx, 2);
    assert_int_equal(guest_used(TX)->ring[0].id, 0);
    assert_int_equal(guest_used(TX)->ring[0].len, 0); /* 2.7.8.2: nothing was written into it */
    assert_int_equal(guest_used(TX)->ring[1].id, 2);
    assert_int_equal(world.messages[TX], 1);
    assert_int_equal(relay_console_move(false, bytes, sizeof(bytes)), 0);
    assert_false(world.signalled); /* there is no driver VM to wake */
}

static void a_long_buffer_is_taken_piece_by_piece(void **state)
{
    struct random random = random_start("console");
    static char sent[700], got[700];

    random_fill(&random, sent, sizeof(sent));
    memcpy(world.ram + BUFFER, sent, 500);
    memcpy(world.ram + BUFFER + 0x1000, sent + 500, 200);
    set(TX, 0, BUFFER, 500, N, 1);
    set(TX, 1, BUFFER + 0x1000, 200, R, 0);
    submit(TX, 0);
    u32 at = 0;
    while (at < sizeof(sent)) {
        assert_int_equal(guest_used(TX)->idx, 0); /* its pages are the device's until the last byte was taken */
        u32 part = (u32)random_between(&random, 1, 90), moved = relay_console_move(false, got + at, part);
        assert_int_equal(moved, at + part < sizeof(sent) ? part : sizeof(sent) - at);
        at += moved;
        if (at > sizeof(sent) - 90)
            at += relay_console_move(false, got + at, (u32)sizeof(sent) - at);
    }
    assert_memory_equal(got, sent, sizeof(sent));
    assert_int_equal(guest_used(TX)->idx, 1);
}

static void a_buffer_that_shrinks_meanwhile_is_only_the_guests_loss(void **state)
{
    set(TX, 0, BUFFER, 500, R, 0);
    submit(TX, 0);
    assert_int_equal(relay_console_move(false, bytes, 256), 256);
    guest_desc(TX)[0].len = 16;
    assert_int_equal(relay_console_move(false, bytes, 256), 0);
    assert_int_equal(guest_used(TX)->idx, 1);
    set(TX, 1, BUFFER, 500, R, 0);
    submit(TX, 1);
    assert_int_equal(relay_console_move(false, bytes, 256), 256);
    guest_desc(TX)[1].addr = WORLD_RAM - 100; /* out of memory now */
    assert_int_equal(relay_console_move(false, bytes, 256), 0);
    assert_true(guest_status() & VIRTIO_STATUS_NEEDS_RESET);
}

static void an_answer_waits_for_buffers(void **state)
{
    memcpy(bytes, "0123456789", 10);
    assert_int_equal(relay_console_move(true, bytes, 10), 0);
    assert_int_equal(world.messages[RX], 0);
    set(RX, 0, BUFFER, 3, W | N, 1); /* in two segments */
    set(RX, 1, BUFFER + 0x1000, 1, W, 0);
    submit(RX, 0);
    assert_int_equal(relay_console_move(true, bytes, 10), 4);
    assert_memory_equal(world.ram + BUFFER, "012", 4);
    assert_memory_equal(world.ram + BUFFER + 0x1000, "3", 2);
    assert_int_equal(guest_used(RX)->ring[0].len, 4);
    assert_int_equal(world.messages[RX], 1);
    set(RX, 2, BUFFER, 100, W, 0);
    submit(RX, 2);
    assert_int_equal(relay_console_move(true, bytes + 4, 6), 6);
    assert_int_equal(guest_used(RX)->ring[1].len, 6);
    assert_memory_equal(world.ram + BUFFER, "456789", 7);
    set(RX, 3, BUFFER, 100, W, 0);
    submit(RX, 3);
    assert_int_equal(relay_console_move(true, bytes, 0), 0); /* nothing to say takes no buffer */
    assert_int_equal(guest_used(RX)->idx, 2);
}

static void buffers_of_the_wrong_direction_come_back_empty(void **state)
{
    set(RX, 0, BUFFER, 100, R, 0);
    submit(RX, 0);
    set(TX, 0, BUFFER, 100, W, 0);
    submit(TX, 0);
    memset(world.ram + BUFFER, 0x55, 100);
    assert_int_equal(relay_console_move(true, bytes, 10), 0);
    assert_int_equal(relay_console_move(false, bytes, 10), 0);
    assert_int_equal(guest_used(RX)->ring[0].len, 0);
    assert_int_equal(guest_used(TX)->ring[0].len, 0);
    assert_int_equal(guest_used(RX)->idx, 1);
    assert_int_equal(guest_used(TX)->idx, 1);
    for (u32 i = 0; i < 100; i++)
        assert_int_equal(world.ram[BUFFER + i], 0x55);
}

/* However many chains there are, and whatever the size of the caller's buffer. */
static void so_many_chains_at_once(void **state)
{
    for (u16 i = 0; i < SIZE; i++) {
        set(TX, i, BUFFER, 1, R, 0);
        submit(TX, i);
    }
    assert_int_equal(relay_console_move(false, bytes, sizeof(bytes)), 16);
    assert_int_equal(relay_console_move(false, bytes, sizeof(bytes)), 16);
    assert_int_equal(relay_console_move(false, bytes, sizeof(bytes)), 0);
}

static void broken_rules_break_the_device_until_its_reset(void **state)
{
    static const struct {
        struct virtq_desc desc;
        u16 idx; /* of the available ring */
        u64 features;
    } rules[] = {
        {{.addr = BUFFER, .len = 16, .flags = N, .next = 0}, 1, GUEST_FEATURES},    /* a loop */
        {{.addr = BUFFER, .len = 16, .flags = N, .next = SIZE}, 1, GUEST_FEATURES}, /* out of the table */
        {{.addr = WORLD_RAM - 8, .len = 16}, 1, GUEST_FEATURES},                    /* over the end of memory */
        {{.addr = ~0ull - 7, .len = 16}, 1, GUEST_FEATURES},                        /* over the end of everything */
        {{.addr = BUFFER, .len = 0}, 1, GUEST_FEATURES},                            /* empty */
        {{.addr = TABLE, .len = 15, .flags = I}, 1, GUEST_FEATURES},                /* part of a descriptor */
        {{.addr = TABLE, .len = 16, .flags = I}, 1, VIRTIO_F_VERSION_1},            /* not negotiated */
        {{.addr = BUFFER, .len = 16}, SIZE + 1, GUEST_FEATURES},                    /* the index jumps */
    };

    for (u32 i = 0; i < ARRAY_SIZE(rules); i++)
        for (u16 queue = RX; queue <= TX; queue++) {
            u32 resets = world.port_resets;
            guest_set_status(0);
            assert_int_equal(guest_status(), 0);
            assert_int_equal(world.port_resets, resets + 1);
            memset(world.messages, 0, sizeof(world.messages));
            start(rules[i].features);
            guest_desc(queue)[0] = rules[i].desc;
            guest_avail(queue)->idx = rules[i].idx;
            guest_kick(queue);
            assert_int_equal(relay_console_move(queue == RX, bytes, 100), 0);
            assert_true(guest_status() & VIRTIO_STATUS_NEEDS_RESET);
            assert_int_equal(world.messages[MSIX_ENTRIES - 1], 1);
            assert_int_equal(guest_used(queue)->idx, 0);
            set(queue, 0, BUFFER, 16, queue == RX ? W : R, 0);
            guest_avail(queue)->idx = 1;
            assert_int_equal(relay_console_move(queue == RX, bytes, 100), 0); /* dead until the reset */
        }
    assert_int_equal(world.reports, 0);
    guest_set_status(0);
    start(GUEST_FEATURES);
    set(TX, 0, BUFFER, 16, R, 0);
    submit(TX, 0);
    assert_int_equal(relay_console_move(false, bytes, 100), 16);
}

static void queues_that_are_not_there_are_not_looked_at(void **state)
{
    guest_set_status(0);
    assert_int_equal(relay_console_move(false, bytes, 100) + relay_console_move(true, bytes, 100), 0);
    guest_negotiate(GUEST_FEATURES);
    guest_driver_ok(); /* live, without queues */
    assert_int_equal(relay_console_move(false, bytes, 100) + relay_console_move(true, bytes, 100), 0);
    guest_kick(TX);
    relay_guest_reset(world.relay);
    assert_int_equal(relay_console_move(false, bytes, 100), 0);
    assert_int_equal(guest_status(), 0);
}

/* Any descriptors, any index: ASan watches the ends of memory, and no more than the buffer is ever moved. */
static void random_rings_are_survived(void **state)
{
    struct random random = random_start("console rings");

    for (u32 round = 0; round < 20000; round++) {
        u16 queue = (u16)random_below(&random, 2), index = (u16)random_below(&random, SIZE);
        u64 address =
            random_one_in(&random, 4) ? WORLD_RAM - random_below(&random, 64) : random_below(&random, WORLD_RAM);
        set(queue, index, address, (u32)random_below(&random, random_one_in(&random, 8) ? 1u << 31 : 300),
            (u16)random_below(&random, 8), (u16)random_below(&random, SIZE + 1));
        guest_make_available(queue, SIZE, (u16)random_below(&random, SIZE));
        if (random_one_in(&random, 50))
            guest_avail(queue)->idx += (u16)random_below(&random, 40);
        u32 size = (u32)random_below(&random, sizeof(bytes));
        assert_true(relay_console_move(random_one_in(&random, 2), bytes, size) <= size);
        if (guest_status() & VIRTIO_STATUS_NEEDS_RESET) {
            guest_set_status(0);
            start(random_one_in(&random, 2) ? GUEST_FEATURES : VIRTIO_F_VERSION_1);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_console_in_the_guests_slot),
        TEST(what_the_guest_sends_arrives_in_order),
        TEST(a_long_buffer_is_taken_piece_by_piece),
        TEST(a_buffer_that_shrinks_meanwhile_is_only_the_guests_loss),
        TEST(an_answer_waits_for_buffers),
        TEST(buffers_of_the_wrong_direction_come_back_empty),
        TEST(so_many_chains_at_once),
        TEST(broken_rules_break_the_device_until_its_reset),
        TEST(queues_that_are_not_there_are_not_looked_at),
        TEST(random_rings_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
