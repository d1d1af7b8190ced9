/* The event log: numbering, wrap, truncation. */
/* SOURCES: hv/control/events.c */
/* INCLUDE_FAKES */
#include "hv/control/control.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

static void an_empty_log_has_nothing(void **state)
{
    assert_int_equal(event_last(), 0);
    assert_null(event_get(0));
    assert_null(event_get(1));
    assert_null(event_get(EVENT_LOG_SIZE));
    assert_null(event_get(~0ull));
}

static void events_are_numbered_from_one(void **state)
{
    fake_time_us = 42;
    event_add(EVENT_INJECT, 3, "%s %u", "crash", 7u);
    const struct event *event = event_get(1);
    assert_int_equal(event->sequence, 1);
    assert_int_equal(event->vm, 3);
    assert_int_equal(event->kind, EVENT_INJECT);
    assert_int_equal(event->tsc, tsc_from_us(42));
    assert_string_equal(event->text, "crash 7");
}

static void long_texts_are_cut(void **state)
{
    char text[300];

    memset(text, 'y', sizeof(text));
    text[299] = '\0';
    event_add(EVENT_LOG, EVENT_NO_VM, "%s", text);
    assert_int_equal(strlen(event_get(event_last())->text), 95);
}

static void the_newest_are_kept(void **state)
{
    u64 first = event_last() + 1;

    for (u32 i = 0; i < 3 * EVENT_LOG_SIZE; i++)
        event_add(EVENT_LOG, EVENT_NO_VM, "%u", i);
    assert_int_equal(event_last(), first + 3 * EVENT_LOG_SIZE - 1);
    assert_null(event_get(event_last() + 1));
    assert_null(event_get(event_last() - EVENT_LOG_SIZE));
    assert_null(event_get(event_last() + EVENT_LOG_SIZE));
    for (u64 n = event_last() - EVENT_LOG_SIZE + 1; n <= event_last(); n++) {
        char expected[24];
        snprintf(expected, sizeof(expected), "%llu", (unsigned long long)(n - first));
        assert_int_equal(event_get(n)->sequence, n);
        assert_string_equal(event_get(n)->text, expected);
    }
}

static void every_kind_has_a_name(void **state)
{
    for (u32 i = 0; i < EVENT_KINDS; i++) {
        assert_non_null(event_kind_name[i]);
        for (u32 j = 0; j < i; j++)
            assert_string_not_equal(event_kind_name[i], event_kind_name[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_log_has_nothing), cmocka_unit_test(events_are_numbered_from_one),
        cmocka_unit_test(long_texts_are_cut),       cmocka_unit_test(the_newest_are_kept),
        cmocka_unit_test(every_kind_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
