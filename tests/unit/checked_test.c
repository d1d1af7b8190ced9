/* Checked arithmetic against 128-bit integers, around every border where a carry may get lost. */
#include "tests/unit/random.h"

#include "shared/lib/checked.h"

typedef unsigned __int128 u128;

static const u64 borders[] = {0,
                              1,
                              2,
                              0xfff,
                              0x1000,
                              0x7fffffff,
                              0x80000000,
                              0xffffffff,
                              0x100000000,
                              0x7fffffffffffffff,
                              0x8000000000000000,
                              0xffffffffffffffff};

static void check_pair(u64 a, u64 b)
{
    u64 out = 0xa5a5;
    u128 sum = (u128)a + b;
    u128 product = (u128)a * b;

    assert_int_equal(add_u64(a, b, &out), sum >> 64 == 0);
    assert_true(out == (sum >> 64 == 0 ? (u64)sum : 0xa5a5));
    out = 0xa5a5;
    assert_int_equal(mul_u64(a, b, &out), product >> 64 == 0);
    assert_true(out == (product >> 64 == 0 ? (u64)product : 0xa5a5));

    u32 small = 0xa5a5;
    u64 small_sum = (u64)(u32)a + (u32)b;
    assert_int_equal(add_u32((u32)a, (u32)b, &small), small_sum >> 32 == 0);
    assert_true(small == (small_sum >> 32 == 0 ? (u32)small_sum : 0xa5a5));
}

static void checked_operations_match_wide_arithmetic(void **state)
{
    struct random random = random_start("checked");

    for (u32 i = 0; i < ARRAY_SIZE(borders); i++) {
        for (u32 j = 0; j < ARRAY_SIZE(borders); j++)
            check_pair(borders[i], borders[j]);
    }
    for (u32 i = 0; i < 100000; i++)
        check_pair(random_bits(&random), random_bits(&random));
}

static bool wide_inside(u64 at, u64 len, u64 base, u64 size)
{
    return at >= base && (u128)at + len <= (u128)base + size;
}

static bool wide_overlap(u64 a, u64 a_len, u64 b, u64 b_len)
{
    return a < b ? (u128)a + a_len > b : (u128)b + b_len > a;
}

static void ranges_match_wide_arithmetic(void **state)
{
    struct random random = random_start("ranges");

    for (u32 i = 0; i < 200000; i++) {
        /* Small numbers meet each other's borders often, large ones wrap. */
        u64 limit = random_below(&random, 2) == 0 ? 6 : 0;
        u64 v[4];
        for (u32 j = 0; j < 4; j++)
            v[j] = limit > 0 ? random_below(&random, limit) : random_bits(&random);
        assert_int_equal(range_inside(v[0], v[1], v[2], v[3]), wide_inside(v[0], v[1], v[2], v[3]));
        if (v[1] > 0 && v[3] > 0)
            assert_int_equal(ranges_overlap(v[0], v[1], v[2], v[3]), wide_overlap(v[0], v[1], v[2], v[3]));
    }
}

static void borders_of_ranges(void **state)
{
    assert_true(range_inside(10, 0, 10, 0));
    assert_true(range_inside(20, 0, 10, 10)); /* the end itself, with nothing in it */
    assert_false(range_inside(21, 0, 10, 10));
    assert_false(range_inside(19, 2, 10, 10));
    assert_false(range_inside(UINT64_MAX, 2, 0, UINT64_MAX)); /* would wrap to 1 */
    assert_false(ranges_overlap(0, 4096, 4096, 4096));
    assert_true(ranges_overlap(0, 4097, 4096, 4096));
    assert_true(ranges_overlap(UINT64_MAX - 1, 1, 0, UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checked_operations_match_wide_arithmetic),
        cmocka_unit_test(ranges_match_wide_arithmetic),
        cmocka_unit_test(borders_of_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
