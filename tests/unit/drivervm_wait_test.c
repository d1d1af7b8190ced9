/* SOURCES: drivervm/runtime/service.c drivervm/runtime/ring.c */
/* Waiting for a device: how long, with which signs of life, and what it adds up to for `status`. */
#include "tests/unit/unit.h"

#include "tests/unit/drivervm_services.h"

#define REGISTER 0x1000u

static struct ring_completion_page page;
static u32 looks, ready_after; /* at the register; so many do not find it ready */
static u64 away_us;            /* the VM is not scheduled for so long after the first look */

u32 mmio_read32(u64 address)
{
    assert_int_equal(address, REGISTER);
    looks++;
    if (looks == 1)
        now_us += away_us;
    return looks > ready_after ? 0x81 : 0x80;
}

static int setup(void **state)
{
    info.tsc_khz = 1000;
    now_us = 1ull << 40;
    looks = 0;
    away_us = 0;
    page = (struct ring_completion_page){0};
    driver_rings[0].completion = &page;
    return 0;
}

static void until_it_is_ready(void **state)
{
    u64 waited = device_waited_us(), began = now_us;

    ready_after = 100;
    assert_true(mmio_wait(REGISTER, 1, 1, 1000));
    assert_int_equal(looks, 101);
    assert_int_equal(page.heartbeat, 100); /* each time a sign of life */
    assert_in_range(device_waited_us() - waited, 100, now_us - began);
}

static void at_once_is_no_wait(void **state)
{
    u64 waited = device_waited_us();

    ready_after = 0;
    assert_true(mmio_wait(REGISTER, 0x80, 0x80, 0));
    assert_int_equal(looks, 1);
    assert_int_equal(device_waited_us(), waited);
}

static void for_so_long_and_not_longer(void **state)
{
    u64 waited = device_waited_us(), began = now_us;

    ready_after = ~0u;
    assert_false(mmio_wait(REGISTER, 1, 1, 1000));
    assert_in_range(now_us - began, 1000, 1003);
    assert_in_range(device_waited_us() - waited, 1000, 1003);
}

/* Whoever was not scheduled meanwhile still gets one look after the time-out, and that one decides. */
static void a_last_look_after_a_pause(void **state)
{
    away_us = 5000;
    ready_after = 1;
    assert_true(mmio_wait(REGISTER, 1, 1, 1000));
    looks = 0;
    ready_after = 2;
    assert_false(mmio_wait(REGISTER, 1, 1, 1000));
    assert_int_equal(looks, 2);
}

static void pauses_count(void **state)
{
    u64 waited = device_waited_us(), began = now_us;

    spin_us(250);
    assert_in_range(now_us - began, 250, 253);
    assert_in_range(device_waited_us() - waited, 250, 253);
    assert_true(page.heartbeat > 0);
    spin_us(0);
    assert_in_range(device_waited_us() - waited, 250, 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(until_it_is_ready, setup),
        cmocka_unit_test_setup(at_once_is_no_wait, setup),
        cmocka_unit_test_setup(for_so_long_and_not_longer, setup),
        cmocka_unit_test_setup(a_last_look_after_a_pause, setup),
        cmocka_unit_test_setup(pauses_count, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
