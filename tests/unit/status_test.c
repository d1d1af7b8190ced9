/* Every code has a text of its own, and a value that is no code has one, too. */
#include "tests/unit/unit.h"

#include <string.h>

#include "shared/lib/status.h"

static void every_code_has_its_text(void **state)
{
    for (u32 i = 0; i < STATUS_COUNT; i++) {
        const char *text = status_text((status_t)i);
        assert_true(text != NULL && text[0] != '\0');
        for (u32 j = 0; j < i; j++)
            assert_string_not_equal(text, status_text((status_t)j));
        assert_string_not_equal(text, status_text(STATUS_COUNT));
    }
    assert_string_equal(status_text(OK), "ok");
    assert_string_equal(status_text(ERR_TIMEOUT), "timed out");
}

static void other_values_have_a_text(void **state)
{
    assert_string_equal(status_text(STATUS_COUNT), "unknown status");
    assert_string_equal(status_text((status_t)-1), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_text),
        cmocka_unit_test(other_values_have_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
