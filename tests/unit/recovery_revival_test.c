/* Given up and revived by the operator, on the real relay: what the guest asked in between is answered or kept. */
/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
   hv/relay/complete.c hv/relay/virtio_pci.c */
/* INCLUDE_FAKES */
#include "tests/unit/unit.h"

#include "tests/unit/relay_world.h"

#define SIZE 16u

/* One request in flight, a second in the available ring, then the driver is given up on. */
static void give_up(bool answer)
{
    world_start(MANIFEST_GRANTS_STICKY, 64, GUEST_FEATURES, SIZE);
    guest_simple_request(0, SIZE, 0, 32);
    guest_kick(0);
    assert_int_equal(relay_in_flight(world.relay), 1);
    world_crash();
    relay_give_up(world.relay, answer);
    guest_simple_request(0, SIZE, 2, 36);
    guest_kick(0);
}

/* As hv/recovery/restart.c and replay.c do for a driver that was FAILED. */
static void revive(void)
{
    relay_reset_rings(world.relay);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    assert_int_equal(relay_offer(world.relay, &world.offer), ERR_STATE);
    world_check();
}

static void serve(void)
{
    struct driver_request request;

    assert_true(driver_take(0, &request));
    driver_complete(0, request.tag, 1);
    assert_int_equal(relay_complete(world.relay), 1);
}

static void errors_then_service(void **state)
{
    struct driver_request request;

    give_up(true);
    assert_int_equal(guest_used(0)->idx, 2);
    assert_int_equal(world.ram[33 * PAGE_SIZE + 511], 1); /* the offer's error byte */
    assert_int_equal(world.ram[37 * PAGE_SIZE + 511], 1);
    revive();
    assert_false(driver_take(0, &request)); /* nothing that was answered comes again */
    guest_simple_request(0, SIZE, 4, 40);
    guest_kick(0);
    serve();
    assert_int_equal(guest_used(0)->idx, 3);
    assert_int_equal(world.ram[41 * PAGE_SIZE + 511], 0);
    world_destroy();
}

static void silence_then_replay(void **state)
{
    give_up(false);
    assert_int_equal(guest_used(0)->idx, 0);
    revive();
    serve(); /* what was in flight */
    serve(); /* what came in the silence */
    assert_int_equal(guest_used(0)->idx, 2);
    world_destroy();
}

static void a_revived_driver_can_be_given_up_again(void **state)
{
    give_up(false);
    relay_reset_rings(world.relay);
    world_crash(); /* it died before its offer: the relay was not open */
    relay_give_up(world.relay, true);
    assert_int_equal(relay_in_flight(world.relay), 0);
    guest_kick(0);
    assert_int_equal(guest_used(0)->idx, 2);
    world_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_then_service),
        cmocka_unit_test(silence_then_replay),
        cmocka_unit_test(a_revived_driver_can_be_given_up_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
