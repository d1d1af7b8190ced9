/* SOURCES: guestos/kernel/shell/latency.c */
/* Percentiles of latencies against those of a sorted list. */
#include "tests/unit/random.h"

#include <stdlib.h>
#include <string.h>

#include "guestos/kernel/shell/latency.h"

#define COUNT 10000u

static int compare(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;

    return x < y ? -1 : x > y;
}

/* At most 1/32 below the true one, and never above. */
static void check_percentile(const struct latency *latency, const u64 *sorted, u32 count, u32 thousandth)
{
    u32 index = (count * thousandth + 999) / 1000;
    u64 exact = sorted[index == 0 ? 0 : index - 1], got = latency_percentile(latency, thousandth);

    assert_true(got <= exact);
    assert_true(exact - got <= exact / 32);
}

static void percentiles_are_nearly_exact(void **state)
{
    struct random random = random_start("guestos_latency");
    static struct latency latency;
    static u64 values[COUNT];

    for (u32 round = 0; round < 20; round++) {
        u64 total = 0;
        memset(&latency, 0, sizeof(latency));
        for (u32 i = 0; i < COUNT; i++) {
            values[i] = random_u64(&random) >> (20 + random_below(&random, 44));
            latency_add(&latency, values[i]);
            total += values[i];
        }
        qsort(values, COUNT, sizeof(values[0]), compare);
        static const u32 thousandths[] = {0, 1, 500, 900, 990, 999, 1000};
        for (u32 i = 0; i < ARRAY_SIZE(thousandths); i++)
            check_percentile(&latency, values, COUNT, thousandths[i]);
        assert_int_equal(latency.max_ns, values[COUNT - 1]);
        assert_int_equal(latency_mean(&latency), total / COUNT);
    }
}

static void the_ends_of_the_range_have_buckets(void **state)
{
    static struct latency latency;

    assert_int_equal(latency_percentile(&latency, 990), 0);
    assert_int_equal(latency_mean(&latency), 0);
    latency_add(&latency, 0);
    assert_int_equal(latency_percentile(&latency, 1000), 0);
    latency_add(&latency, ~0ull);
    assert_int_equal(latency_percentile(&latency, 1000), ~0ull - (~0ull >> 6));
}

static void merged_as_if_measured_together(void **state)
{
    struct random random = random_start("guestos_latency_merge");
    static struct latency both, one, other;

    for (u32 i = 0; i < COUNT; i++) {
        u64 ns = random_below(&random, 1000000);
        latency_add(&both, ns);
        latency_add(random_one_in(&random, 3) ? &one : &other, ns);
    }
    latency_merge(&one, &other);
    assert_memory_equal(&one, &both, sizeof(one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_nearly_exact),
        cmocka_unit_test(the_ends_of_the_range_have_buckets),
        cmocka_unit_test(merged_as_if_measured_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
