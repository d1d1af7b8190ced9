/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c */
/* INCLUDE_FAKES */
/* The virtio-pci device: registers in every width and order, the status machine, MSI-X, resets with requests in flight.
 */
#include "tests/unit/random.h"

#include "tests/unit/relay_world.h"

#define SIZE 8u
#define COMMON_END 56u

static int setup(void **state)
{
    world_create(MANIFEST_GRANTS_STICKY, 64, true);
    world.offer.queues = 2;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    return 0;
}

static int setup_live(void **state)
{
    world_start(MANIFEST_GRANTS_STICKY, 64, GUEST_FEATURES, SIZE);
    return 0;
}

static int teardown(void **state)
{
    world_check();
    world_destroy();
    return 0;
}

static u32 config(u32 offset, u32 width)
{
    return guest_config_read(offset, width);
}

static u32 in(u32 offset, u32 width)
{
    return guest_in(offset, width);
}

static void out(u32 offset, u32 width, u32 value)
{
    guest_out(offset, width, value);
}

static u64 driver_features(void)
{
    return ((struct driver_events *)hpa_to_ptr(world.driver.events_page))->features;
}

static void configuration_space(void **state)
{
    bool seen[6] = {false}, msix = false;

    assert_ptr_equal(relays[1], world.relay);
    assert_int_equal(config(0, 4), 0x10421af4);
    assert_int_equal(config(8, 1), 1);
    for (u32 at = config(0x34, 1), hops = 0; at != 0; at = config(at + 1, 1), hops++) {
        assert_true(hops < 16);
        if (config(at, 1) == 0x11) {
            msix = true;
            assert_int_equal(config(at + 2, 2) & 0x7ff, MSIX_ENTRIES - 1);
            continue;
        }
        assert_int_equal(config(at, 1), 9);
        u32 type = config(at + 3, 1);
        assert_in_range(type, 1, 4);
        assert_int_equal(config(at + 4, 1), 0); /* BAR 0 */
        assert_true(config(at + 8, 4) + config(at + 12, 4) <= 256);
        seen[type] = true;
    }
    assert_true(msix && seen[1] && seen[2] && seen[3] && seen[4]);
    /* Read-only parts stay; a narrow write changes its bytes only. */
    guest_config_write(0, 4, 0);
    assert_int_equal(config(0, 4), 0x10421af4);
    guest_config_write(0x3c, 4, 0xffffffff);
    assert_int_equal(config(0x3c, 4), 0xff);
    guest_config_write(4, 1, 0xff);
    guest_config_write(5, 1, 0xff);
    guest_config_write(6, 2, 0xffff);
    assert_int_equal(config(4, 4), 0x00100407);
    assert_int_equal(config(5, 1), 4);
    assert_int_equal(config(6, 2), 0x10);
}

static bool claims_port(u16 port, u32 *value)
{
    return relay_port(world.relay, port, 1, false, value);
}

static bool claims_memory(u64 address, u64 *value)
{
    return relay_memory(world.relay, GPA(address), 4, false, value);
}

static void bars_are_sized_and_moved(void **state)
{
    u32 byte;
    u64 word;

    guest_config_write(0x10, 4, 0xffffffff);
    assert_int_equal(config(0x10, 4), 0xffffff01);
    assert_false(claims_port(0xff00, &byte)); /* port 0xff00 is not where an all-ones BAR lies */
    guest_config_write(0x10, 4, 0x1234);
    assert_int_equal(config(0x10, 4), 0x1201);
    assert_true(claims_port(0x12ff, &byte) && claims_port(0x1200, &byte));
    assert_false(claims_port(0x1300, &byte) || claims_port(0x11ff, &byte));
    assert_true(claims_port(0x1283, &byte) && byte == 4); /* a byte of the device's configuration */
    guest_config_write(0x14, 4, 0xffffffff);
    assert_int_equal(config(0x14, 4), 0xfffff000);
    guest_config_write(0x15, 1, 0x5f);
    guest_config_write(0x16, 2, 0xe123);
    assert_true(claims_memory(0xe1235ffc, &word) && word == 0);
    assert_true(claims_memory(0xe123500c, &word) && word == 1); /* the first entry, masked */
    assert_false(claims_memory(0x1e1235ffcull, &word) || claims_memory(0xe1236000, &word));
    for (u32 bar = 0x18; bar <= 0x30; bar += 4) {
        guest_config_write(bar, 4, 0xffffffff);
        assert_true(bar == 0x2c || config(bar, 4) == 0);
    }
    guest_config_write(4, 2, 0);
    assert_false(claims_port(0x1200, &byte) || claims_memory(0xe1235000, &word));
}

static void wrong_widths_do_nothing(void **state)
{
    struct random random = random_start("widths");
    const u32 right[COMMON_END] = {
        [0] = 4,  [4] = 4,  [8] = 4,  [12] = 4, [16] = 2, [18] = 2, [20] = 1, [21] = 1, [22] = 2, [24] = 2,
        [26] = 2, [28] = 2, [30] = 2, [32] = 4, [36] = 4, [40] = 4, [44] = 4, [48] = 4, [52] = 4};
    struct virtio_device before = world.relay->device;
    struct virtqueue vq = world.relay->queue[0].vq;

    for (u32 offset = 0; offset < 300; offset++) {
        for (u32 width = 1; width <= 4; width *= 2) {
            bool valid = offset < COMMON_END && right[offset] == width;
            bool config_byte = offset >= 0x80 && offset + width <= 0x80 + DRIVER_CONFIG_SIZE && offset % width == 0;
            if (valid || config_byte || (offset == ISR_REGISTER && width == 1) ||
                (offset == NOTIFY_REGISTER && width != 1))
                continue;
            out(offset, width, (u32)random_u64(&random));
            u32 ones = width == 4 ? ~0u : (1u << width * 8) - 1;
            assert_int_equal(in(offset, width) & ones, ones);
        }
    }
    out(0x80, 4, 0xdeadbeef); /* device configuration is read-only */
    assert_int_equal(in(0x80, 4), 0x04030201);
    assert_int_equal(in(0x84, 2), 0x0605);
    assert_memory_equal(&before, &world.relay->device, sizeof(before));
    assert_memory_equal(&vq, &world.relay->queue[0].vq, sizeof(vq));
}

static void status_machine(void **state)
{
    out(REGISTER(device_feature_select), 4, 0);
    assert_int_equal(in(REGISTER(device_feature), 4), 1u << 9 | 1u << 28 | 1u << 29);
    out(REGISTER(device_feature_select), 4, 1);
    assert_int_equal(in(REGISTER(device_feature), 4), 3);
    out(REGISTER(device_feature_select), 4, 2);
    assert_int_equal(in(REGISTER(device_feature), 4), 0);
    assert_int_equal(in(REGISTER(num_queues), 2), 2);

    guest_driver_ok(); /* straight to the end: without features neither bit sticks */
    assert_int_equal(guest_status(), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    guest_set_status(0);
    assert_int_equal(guest_status(), 0);
    guest_negotiate(VIRTIO_F_INDIRECT_DESC); /* not VERSION_1 */
    assert_false(guest_status() & VIRTIO_STATUS_FEATURES_OK);
    guest_set_status(0);
    guest_negotiate(VIRTIO_F_VERSION_1 | 1ull << 40); /* not offered */
    assert_false(guest_status() & VIRTIO_STATUS_FEATURES_OK);
    guest_set_status(0);
    guest_set_status(VIRTIO_STATUS_NEEDS_RESET); /* not the driver's to set */
    assert_int_equal(guest_status(), 0);

    guest_negotiate(GUEST_FEATURES | 1ull << 9);
    assert_true(guest_status() & VIRTIO_STATUS_FEATURES_OK);
    assert_int_equal(driver_features(), GUEST_FEATURES | 1ull << 9);
    assert_true(world.signalled);
    out(REGISTER(driver_feature_select), 4, 0);
    out(REGISTER(driver_feature), 4, 0); /* too late */
    assert_int_equal(in(REGISTER(driver_feature), 4), (u32)(GUEST_FEATURES | 1u << 9));
    guest_set_status(VIRTIO_STATUS_ACKNOWLEDGE); /* bits are not cleared one by one */
    assert_true(guest_status() & VIRTIO_STATUS_FEATURES_OK);
    guest_driver_ok();
    assert_true(guest_status() & VIRTIO_STATUS_DRIVER_OK);
    guest_set_status(0);
    assert_int_equal(driver_features(), 0);
}

static void queues_are_checked_when_enabled(void **state)
{
    const struct {
        u16 size;
        u64 desc, avail, used;
        bool good;
    } cases[] = {
        {SIZE, 0, 0x1000, 0x2000, true},
        {1, 0x10, 0x1002, 0x2004, true},
        {RING_TAGS, WORLD_RAM - RING_TAGS * 16, 0x1000, 0x2000, true},
        {SIZE, 0, 0x1000, WORLD_RAM - 6 - SIZE * 8 - 2, true},
        {0, 0, 0x1000, 0x2000, false},
        {6, 0, 0x1000, 0x2000, false},
        {RING_TAGS * 2, 0, 0x1000, 0x2000, false},
        {SIZE, 8, 0x1000, 0x2000, false},
        {SIZE, 0, 0x1001, 0x2000, false},
        {SIZE, 0, 0x1000, 0x2002, false},
        {SIZE, WORLD_RAM - SIZE * 16 + 16, 0x1000, 0x2000, false},
        {SIZE, 0, WORLD_RAM - 6 - SIZE * 2 + 2, 0x2000, false},
        {SIZE, 0, 0x1000, WORLD_RAM - 4 - SIZE * 8, false},
        {SIZE, 1ull << 63, 0x1000, 0x2000, false},
        {SIZE, 0, 0xfffffffffffffff0, 0x2000, false},
    };
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        guest_set_status(0);
        guest_negotiate(GUEST_FEATURES);
        out(REGISTER(queue_select), 2, 1);
        assert_int_equal(in(REGISTER(queue_size), 2), RING_TAGS);
        out(REGISTER(queue_size), 2, cases[i].size);
        guest_out64(REGISTER(queue_desc), cases[i].desc);
        guest_out64(REGISTER(queue_driver), cases[i].avail);
        guest_out64(REGISTER(queue_device), cases[i].used);
        assert_int_equal(in(REGISTER(queue_driver) + 4, 4), (u32)(cases[i].avail >> 32));
        out(REGISTER(queue_enable), 2, 1);
        bool good = cases[i].good && cases[i].used % 4 == 0;
        assert_int_equal(in(REGISTER(queue_enable), 2), good);
        assert_int_equal((guest_status() & VIRTIO_STATUS_NEEDS_RESET) == 0, good);
        out(REGISTER(queue_size), 2, 2); /* fixed while enabled */
        assert_true(in(REGISTER(queue_size), 2) == (good ? cases[i].size : 2));
    }
    guest_set_status(0);
    out(REGISTER(queue_select), 2, 0);
    out(REGISTER(queue_enable), 2, 1); /* before FEATURES_OK */
    assert_int_equal(in(REGISTER(queue_enable), 2), 0);
    out(REGISTER(queue_select), 2, 2); /* there are two queues */
    out(REGISTER(queue_size), 2, 4);
    assert_int_equal(in(REGISTER(queue_size), 2), 0);
    assert_int_equal(in(REGISTER(queue_msix_vector), 2), 0);
    out(REGISTER(queue_select), 2, 0xffff);
    out(REGISTER(queue_enable), 2, 1);
    out(NOTIFY_REGISTER, 2, 0xffff);
    out(NOTIFY_REGISTER, 4, 0x10000);
}

static void one_request(void)
{
    struct driver_request request;

    guest_simple_request(0, SIZE, 0, 20);
    guest_kick(0);
    assert_true(driver_take(0, &request));
    driver_complete(0, request.tag, 10);
    assert_int_equal(relay_complete(world.relay), 1);
}

static void msix(void **state)
{
    out(REGISTER(queue_select), 2, 0);
    out(REGISTER(queue_msix_vector), 2, MSIX_ENTRIES);
    assert_int_equal(in(REGISTER(queue_msix_vector), 2), VIRTIO_MSI_NO_VECTOR);
    out(REGISTER(queue_msix_vector), 2, 2);
    guest_avail(0)->ring[SIZE] = 0;
    guest_msix_write(2 * 16 + 12, 4, 0xffffffff); /* mask; other bits do not exist */
    assert_int_equal(guest_msix_read(2 * 16 + 12, 4), 1);
    one_request();
    assert_int_equal(world.messages[2], 0);
    assert_int_equal(guest_msix_read(0x800, 8), 4); /* pending */
    guest_msix_write(0x800, 8, ~0ull);              /* read-only */
    assert_int_equal(guest_msix_read(0x800, 4), 4);
    guest_msix_write(2 * 16 + 12, 4, 0);
    assert_int_equal(world.messages[2], 1);
    assert_int_equal(guest_msix_read(0x800, 4), 0);

    guest_config_write(0x86, 2, 0xc000); /* all masked */
    guest_avail(0)->ring[SIZE] = guest_used(0)->idx;
    one_request();
    assert_int_equal(world.messages[2], 1);
    guest_config_write(0x87, 1, 0x80);
    assert_int_equal(world.messages[2], 2);

    guest_msix_write(2 * 16, 4, 0x1000); /* an address that is no interrupt is not written to */
    guest_avail(0)->ring[SIZE] = guest_used(0)->idx;
    one_request();
    assert_int_equal(world.messages[2], 2);
    assert_true(guest_msix_read(2, 4) == ~0ull && guest_msix_read(4, 8) == ~0ull);

    guest_config_write(0x86, 2, 0); /* off: the ISR register tells, once */
    guest_avail(0)->ring[SIZE] = guest_used(0)->idx;
    one_request();
    assert_int_equal(in(ISR_REGISTER, 1), 1);
    assert_int_equal(in(ISR_REGISTER, 1), 0);
}

static void interrupt_suppression(void **state)
{
    for (u32 i = 0; i < 5; i++) { /* used_event 2: only the third completion interrupts */
        guest_avail(0)->ring[SIZE] = 2;
        one_request();
        assert_int_equal(world.messages[0], i >= 2);
    }
}

static void config_change(void **state)
{
    u8 changed[DRIVER_CONFIG_SIZE + 1] = {9, 9};
    u8 generation = (u8)in(REGISTER(config_generation), 1);

    assert_int_equal(relay_config(world.relay, changed, DRIVER_CONFIG_SIZE + 1), ERR_RANGE);
    assert_int_equal(relay_config(world.relay, changed, 2), OK);
    assert_int_equal(in(REGISTER(config_generation), 1), (u8)(generation + 1));
    assert_int_equal(in(0x80, 4), 0x0909); /* the rest is zero */
    assert_int_equal(world.messages[MSIX_ENTRIES - 1], 1);
    assert_int_equal(relay_config(world.relay, changed, 2), OK); /* the same again: no news */
    assert_int_equal(world.messages[MSIX_ENTRIES - 1], 1);
}

/* A reset is not over while the device may still write into the guest; late completions are swallowed, not published.
 */
static void reset_with_requests_in_flight(void **state)
{
    struct driver_request first, second;

    guest_simple_request(0, SIZE, 0, 20);
    guest_simple_request(0, SIZE, 2, 24);
    guest_kick(0);
    assert_true(driver_take(0, &first) && driver_take(0, &second));
    guest_set_status(0);
    assert_int_not_equal(guest_status(), 0);
    out(REGISTER(driver_feature), 4, 5); /* nothing is accepted meanwhile */
    assert_int_equal(driver_features(), 0);
    driver_complete(0, second.tag, 512);
    assert_int_equal(relay_complete(world.relay), 1);
    assert_int_not_equal(guest_status(), 0);
    assert_true(page_is_reachable(21));
    world_check();
    driver_complete(0, first.tag, 512);
    assert_int_equal(relay_complete(world.relay), 1);
    assert_int_equal(guest_status(), 0);
    assert_int_equal(guest_used(0)->idx, 0);
    assert_int_equal(world.messages[0], 0);
    assert_int_equal(reachable_pages(), 0); /* sticky grants end with the queue */
    assert_int_equal(world.reports, 0);
    guest_start(GUEST_FEATURES, SIZE);
    one_request();
    assert_int_equal(guest_used(0)->idx, 1);
}

static void reset_while_the_driver_is_gone(void **state)
{
    struct driver_request request;

    guest_simple_request(0, SIZE, 0, 20);
    guest_kick(0);
    guest_set_status(0);
    assert_int_not_equal(guest_status(), 0);
    world_crash(); /* device blocked, grants gone: nothing can arrive any more */
    assert_int_equal(guest_status(), 0);
    guest_start(GUEST_FEATURES, SIZE);
    guest_simple_request(0, SIZE, 0, 20);
    guest_kick(0); /* nobody there */
    guest_set_status(0);
    assert_int_equal(guest_status(), 0);
    guest_start(GUEST_FEATURES, SIZE);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_false(driver_take(0, &request));
    assert_int_equal(driver_features(), GUEST_FEATURES);
    one_request();
}

/* The guest reboots: its PCI state is new at once, the old requests end in silence, and until then they count as in
 * flight. */
static void guest_reset_withdraws(void **state)
{
    struct driver_request request;

    guest_config_write(0x10, 4, 0x1000);
    guest_simple_request(0, SIZE, 0, 20);
    guest_kick(0);
    assert_true(driver_take(0, &request));
    relay_guest_reset(world.relay);
    assert_int_equal(config(0x10, 4), (PLATFORM_BAR_PORTS + 0x100) | 1);
    assert_int_equal(guest_msix_read(12, 4), 1);
    assert_int_equal(relay_in_flight(world.relay), 1);
    assert_non_null(device_reach(request.segment[1].address, 512, true)); /* no fault for an honest driver */
    guest_set_status(0);
    assert_int_not_equal(guest_status(), 0);
    driver_complete(0, request.tag, 0);
    relay_complete(world.relay);
    assert_int_equal(relay_in_flight(world.relay), 0);
    assert_int_equal(reachable_pages(), 0);
    assert_int_equal(guest_status(), 0);
    assert_int_equal(guest_used(0)->idx, 0);
    guest_start(GUEST_FEATURES, SIZE);
    one_request();
}

int main(void)
{
#define LIVE(f) cmocka_unit_test_setup_teardown(f, setup_live, teardown)
#define NEW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        NEW(configuration_space),
        NEW(bars_are_sized_and_moved),
        NEW(wrong_widths_do_nothing),
        NEW(status_machine),
        NEW(queues_are_checked_when_enabled),
        LIVE(msix),
        LIVE(interrupt_suppression),
        LIVE(config_change),
        LIVE(reset_with_requests_in_flight),
        LIVE(reset_while_the_driver_is_gone),
        LIVE(guest_reset_withdraws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
