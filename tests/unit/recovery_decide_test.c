/* The restart policy. */
/* SOURCES: hv/recovery/decide.c */
/* INCLUDE_FAKES */
#include "hv/recovery/stages.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"

static struct manifest_vm config;
static struct recovery recovery;

static int fresh(void **state)
{
    config = (struct manifest_vm){.restart = true, .limit = 5, .window_us = 10000000};
    recovery = (struct recovery){.current = {.kind = FAULT_EXCEPTION}};
    return 0;
}

static struct recovery_decision at_us(u64 us)
{
    struct recovery_decision decision = recovery_decide(&config, &recovery, tsc_from_us(us));
    assert_non_null(decision.why);
    return decision;
}

static void restarts_at_once_until_the_limit(void **state)
{
    for (u32 i = 0; i < 5; i++) {
        struct recovery_decision decision = at_us(1000000 + i * 1000);
        assert_true(decision.restart);
        assert_int_equal(decision.delay, 0);
        assert_int_equal(recovery.restarts_in_window, i + 1);
    }
    assert_false(at_us(1010000).restart);
}

static void a_window_that_is_over_starts_anew(void **state)
{
    for (u32 i = 0; i < 5; i++)
        assert_true(at_us(1000000 + i).restart);
    assert_false(at_us(11000000).restart); /* its last microsecond still counts */
    assert_true(at_us(11000001).restart);
    assert_int_equal(recovery.restarts_in_window, 1);
}

static void never_means_never(void **state)
{
    config.restart = false;
    assert_false(at_us(5).restart);
}

static void backoff_doubles(void **state)
{
    config.backoff_us = 3000;
    config.window_us = 1000000;
    for (u32 i = 0; i < 5; i++) {
        struct recovery_decision decision = at_us(100);
        assert_true(decision.restart);
        assert_int_equal(tsc_to_us(decision.delay), 3000ull << i);
    }
}

static void backoff_has_an_end(void **state)
{
    config.backoff_us = 10000000;
    config.limit = 1000;
    for (u32 i = 0; i < 1000; i++)
        assert_true(tsc_to_us(at_us(100).delay) <= 60000000);
    assert_int_equal(tsc_to_us(recovery_decide(&config, &recovery, 0).delay), 0); /* the limit: no restart, no delay */
}

/* A driver that dies at each start goes by its limit even when its pauses are far longer than the window. */
static void pauses_do_not_empty_the_window(void **state)
{
    u64 now = 1000000;
    u32 restarts = 0;

    config.backoff_us = 4000000;
    for (struct recovery_decision decision = at_us(now); decision.restart; decision = at_us(now)) {
        now += tsc_to_us(decision.delay) + 500;
        assert_true(++restarts <= 5);
    }
    assert_int_equal(restarts, 5);
}

static void the_operator_is_not_limited(void **state)
{
    config.restart = false;
    config.backoff_us = 1000;
    recovery.restarts_in_window = 1000;
    recovery.current.kind = FAULT_OPERATOR;
    struct recovery_decision decision = at_us(100);
    assert_true(decision.restart);
    assert_int_equal(decision.delay, 0);
    assert_int_equal(recovery.restarts_in_window, 0);
}

static void a_stop_is_no_restart(void **state)
{
    recovery.current.kind = FAULT_OPERATOR;
    recovery.current.detail = ORDER_STOP;
    struct recovery_decision decision = at_us(100);
    assert_true(decision.stop);
    assert_false(decision.restart);
    assert_false(recovery_window_open(&config, &recovery, tsc_from_us(100)));
}

/* Rejuvenation and the like: counters stay as they are. */
static void a_planned_restart_counts_for_nothing(void **state)
{
    for (u32 i = 0; i < 5; i++)
        at_us(100 + i);
    recovery.current.kind = FAULT_PLANNED;
    for (u32 i = 0; i < 3; i++) {
        assert_true(at_us(200 + i).restart);
        assert_int_equal(recovery.restarts_in_window, 5);
    }
    recovery.current.kind = FAULT_EXCEPTION;
    assert_false(at_us(300).restart);
}

static void attempts_until_the_end(u32 expected)
{
    for (u32 i = 0; i < expected; i++) {
        struct recovery_decision decision = at_us(1000 + i);
        assert_true(decision.restart);
        assert_false(decision.fallback || decision.back);
    }
}

static void the_fallback_comes_once_with_all_attempts(void **state)
{
    config.escalate = MANIFEST_ESCALATE_IMAGE;
    attempts_until_the_end(5);
    struct recovery_decision decision = at_us(2000);
    assert_true(decision.restart && decision.fallback);
    assert_false(recovery.wakes_dependents);
    attempts_until_the_end(5);
    assert_false(at_us(3000).restart);

    recovery.current.kind = FAULT_OPERATOR; /* everything anew */
    assert_true(at_us(4000).restart);
    recovery.current.kind = FAULT_EXCEPTION;
    attempts_until_the_end(5);
    assert_true(at_us(5000).fallback);
}

static void never_escalates_at_once(void **state)
{
    config.restart = false;
    config.escalate = MANIFEST_ESCALATE_DEPENDENTS;
    struct recovery_decision decision = at_us(100);
    assert_true(decision.restart && !decision.fallback);
    assert_true(recovery.wakes_dependents);
    assert_false(at_us(200).restart);
}

/* Before any limit, and before `never`: the fault says something about the new image only. */
static void a_trial_that_fails_goes_back(void **state)
{
    config.restart = false;
    config.escalate = MANIFEST_ESCALATE_IMAGE;
    recovery.trial = true;
    struct recovery_decision decision = at_us(100);
    assert_true(decision.restart && decision.back && !decision.fallback);
    assert_int_equal(decision.delay, 0);
    assert_int_equal(recovery.restarts_in_window, 0);
    assert_false(recovery.escalated);
}

/* Whatever the manifest allows: never more than `limit` restarts between two faults that are a window apart. */
static void no_window_has_more_than_its_limit(void **state)
{
    struct random random = random_start("decide");

    for (u32 round = 0; round < 200; round++) {
        fresh(NULL);
        config.limit = (u32)random_between(&random, 1, 20);
        config.window_us = random_between(&random, 1000, 1000000);
        u64 now = 1, start = 0;
        u32 count = 0;
        for (u32 i = 0; i < 100; i++) {
            now += random_below(&random, config.window_us / 4);
            struct recovery_decision decision = at_us(now);
            if (recovery.window_start != start) {
                start = recovery.window_start;
                count = 0;
            }
            count += decision.restart;
            assert_true(count <= config.limit);
            assert_true(decision.restart || count == config.limit);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(restarts_at_once_until_the_limit, fresh),
        cmocka_unit_test_setup(a_window_that_is_over_starts_anew, fresh),
        cmocka_unit_test_setup(never_means_never, fresh),
        cmocka_unit_test_setup(backoff_doubles, fresh),
        cmocka_unit_test_setup(backoff_has_an_end, fresh),
        cmocka_unit_test_setup(pauses_do_not_empty_the_window, fresh),
        cmocka_unit_test_setup(the_operator_is_not_limited, fresh),
        cmocka_unit_test_setup(a_stop_is_no_restart, fresh),
        cmocka_unit_test_setup(a_planned_restart_counts_for_nothing, fresh),
        cmocka_unit_test_setup(the_fallback_comes_once_with_all_attempts, fresh),
        cmocka_unit_test_setup(never_escalates_at_once, fresh),
        cmocka_unit_test_setup(a_trial_that_fails_goes_back, fresh),
        cmocka_unit_test_setup(no_window_has_more_than_its_limit, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
