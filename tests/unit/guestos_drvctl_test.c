/* SOURCES: guestos/kernel/shell/drvctl_text.c */
/* What guestos' drvctl reads out of the control port's lines. */
#include "tests/unit/random.h"

#include <string.h>

#include "guestos/kernel/shell/drvctl_text.h"

#define LINE                                                                                                           \
    "vm name=blk0 kind=driver state=running isolation=\"no DMA\" restarts=12 at=0x1f last_fault=\"exception: x=1 y\" " \
    "z="

static void fields_by_name(void **state)
{
    char value[32];

    assert_true(drvctl_is(LINE, "vm"));
    assert_false(drvctl_is(LINE, "v"));
    assert_true(drvctl_is("ok", "ok"));
    assert_false(drvctl_is("okay", "ok"));
    assert_true(drvctl_text(LINE, "name", value, sizeof(value)));
    assert_string_equal(value, "blk0");
    assert_true(drvctl_text(LINE, "isolation", value, sizeof(value)));
    assert_string_equal(value, "no DMA");
    assert_true(drvctl_text(LINE, "last_fault", value, sizeof(value)));
    assert_string_equal(value, "exception: x=1 y");
    assert_true(drvctl_text(LINE, "last_fault", value, 5));
    assert_string_equal(value, "exce");
    assert_true(drvctl_text(LINE, "z", value, sizeof(value)));
    assert_string_equal(value, "");
    assert_false(drvctl_text(LINE, "x", value, sizeof(value))); /* it stands in a text */
    assert_false(drvctl_text(LINE, "fault", value, sizeof(value)));
    assert_false(drvctl_text("", "name", value, sizeof(value)));
    assert_int_equal(drvctl_number(LINE, "restarts"), 12);
    assert_int_equal(drvctl_number(LINE, "at"), 0x1f);
    assert_int_equal(drvctl_number(LINE, "name"), 0);
    assert_int_equal(drvctl_number(LINE, "none"), 0);
}

static void all_fields_in_order(void **state)
{
    static const char *const keys[] = {"name", "kind", "state", "isolation", "restarts", "at", "last_fault", "z"};
    const char *at = LINE;
    char key[16], value[64];
    u32 count = 0;

    for (; drvctl_next(&at, key, sizeof(key), value, sizeof(value)); count++)
        assert_string_equal(key, keys[count]);
    assert_int_equal(count, 8);
}

static void damaged_lines_end(void **state)
{
    struct random random = random_start("drvctl");
    static const char signs[] = "ab =\"";
    char key[4], value[4];

    for (u32 round = 0; round < 20000; round++) {
        u32 length = (u32)random_below(&random, 24), steps = 0;
        char *line = malloc(length + 1); /* exactly: ASan watches its end */
        for (u32 i = 0; i < length; i++)
            line[i] = signs[random_below(&random, 5)];
        line[length] = '\0';
        for (const char *at = line; drvctl_next(&at, key, sizeof(key), value, sizeof(value)); steps++)
            assert_true(at > line && at <= line + length && strlen(key) < 4 && strlen(value) < 4);
        assert_true(steps <= length);
        free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_by_name),
        cmocka_unit_test(all_fields_in_order),
        cmocka_unit_test(damaged_lines_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
