/* bh_snprintf against the C library's snprintf over generated formats, and what the C library leaves open. */
#include "tests/unit/random.h"

#include <limits.h>

#include "shared/lib/printf.h"

#define TEXT_SIZE 256u

/* Both must give the same text, the same length, and, cut short, the same beginning with nothing behind it touched. */
#define SAME(random, ...)                                                                                              \
    do {                                                                                                               \
        char want[TEXT_SIZE], got[TEXT_SIZE];                                                                          \
        size_t cut = random_below(random, TEXT_SIZE);                                                                  \
        memset(want, 0x5a, sizeof(want));                                                                              \
        memset(got, 0x5a, sizeof(got));                                                                                \
        int want_length = snprintf(want, sizeof(want), __VA_ARGS__);                                                   \
        assert_int_equal(bh_snprintf(got, sizeof(got), __VA_ARGS__), want_length);                                     \
        assert_memory_equal(got, want, sizeof(want));                                                                  \
        memset(want, 0x5a, sizeof(want));                                                                              \
        memset(got, 0x5a, sizeof(got));                                                                                \
        (void)snprintf(want, cut, __VA_ARGS__);                                                                        \
        assert_int_equal(bh_snprintf(got, cut, __VA_ARGS__), want_length);                                             \
        if (cut > 0)                                                                                                   \
            assert_string_equal(got, want);                                                                            \
        for (size_t i = cut; i < sizeof(got); i++)                                                                     \
            assert_int_equal(got[i], 0x5a);                                                                            \
    } while (0)

/* "%[-][0][width][.precision]<length><conversion>" between two words. */
static void make_format(struct random *random, char *out, const char *length, char conversion)
{
    bool number = strchr("diuxX", conversion) != NULL;
    char width[8] = "";
    char precision[8] = "";

    if (random_one_in(random, 2))
        snprintf(width, sizeof(width), "%u", (unsigned)random_between(random, 1, 30));
    if ((number || conversion == 's') && random_one_in(random, 3))
        snprintf(precision, sizeof(precision), ".%u", (unsigned)random_below(random, 30));
    snprintf(out, TEXT_SIZE, "at %%%s%s%s%s%s%c end", random_one_in(random, 3) ? "-" : "",
             number && random_one_in(random, 3) ? "0" : "", width, precision, length, conversion);
}

static void check_integer(struct random *random)
{
    static const char conversions[] = "diuxX";
    static const char *const lengths[] = {"hh", "h", "", "l", "ll", "z"};
    static const u64 borders[] = {0,        1,         9,       10,           0x7f,      0x80,
                                  0x7fff,   0x8000,    INT_MAX, (u64)INT_MIN, LLONG_MAX, (u64)LLONG_MIN,
                                  UINT_MAX, ULLONG_MAX};
    char conversion = conversions[random_below(random, sizeof(conversions) - 1)];
    u64 kind = random_below(random, ARRAY_SIZE(lengths));
    u64 value = random_one_in(random, 2) ? random_bits(random) : borders[random_below(random, ARRAY_SIZE(borders))];
    char format[TEXT_SIZE];

    make_format(random, format, lengths[kind], conversion);
    if (kind < 3)
        SAME(random, format, (int)value);
    else
        SAME(random, format, value);
}

static void integers_match_the_c_library(void **state)
{
    struct random random = random_start("integers");

    for (u32 i = 0; i < 200000; i++)
        check_integer(&random);
}

static void texts_match_the_c_library(void **state)
{
    struct random random = random_start("texts");
    char format[TEXT_SIZE];
    char text[64];

    for (u32 i = 0; i < 50000; i++) {
        size_t length = random_below(&random, sizeof(text));
        for (size_t j = 0; j < length; j++)
            text[j] = (char)random_between(&random, 1, 127);
        text[length] = '\0';
        make_format(&random, format, "", 's');
        SAME(&random, format, text);
        int character = (int)random_below(&random, 256); /* outside of SAME, which needs it several times */
        make_format(&random, format, "", 'c');
        SAME(&random, format, character);
        void *pointer = (void *)(random_bits(&random) | 1);
        make_format(&random, format, "", 'p');
        SAME(&random, format, pointer);
    }
}

static void several_arguments_stay_in_step(void **state)
{
    struct random random = random_start("arguments");

    for (u32 i = 0; i < 10000; i++) {
        u64 a = random_bits(&random);
        u32 b = (u32)random_bits(&random);
        SAME(&random, "%02x:%02x.%x %s=%s%016lx|%-8u|%d%%|%c|%zu", b & 0xff, b >> 8 & 31, b & 7, "name", "", a, b,
             (int)b, 'x', (size_t)a);
    }
}

static void a_text_without_end_is_read_to_its_precision(void **state)
{
    const char three[3] = {'a', 'b', 'c'}; /* the sanitizer reports a read beyond it */
    char out[8];

    assert_int_equal(bh_snprintf(out, sizeof(out), "%.3s", three), 3);
    assert_string_equal(out, "abc");
}

static void what_is_not_known_ends_the_formatting(void **state)
{
    char out[64];
    const char *volatile format = "%u %q %s %u"; /* no argument for what follows: fetching one would crash */

    assert_int_equal(bh_snprintf(out, sizeof(out), format, 7u), 10);
    assert_string_equal(out, "7 %q %s %u");
    format = "%d %";
    assert_int_equal(bh_snprintf(out, sizeof(out), format, -7), 4);
    assert_string_equal(out, "-7 %");
    format = "%f";
    bh_snprintf(out, sizeof(out), format);
    assert_string_equal(out, "%f");
}

static void null_is_printable(void **state)
{
    const char *volatile nothing = NULL; /* volatile: the compiler would warn of what is tested here */
    char out[16];

    bh_snprintf(out, sizeof(out), "%s", nothing);
    assert_string_equal(out, "(null)");
    bh_snprintf(out, sizeof(out), "%p", (const void *)nothing);
    assert_string_equal(out, "0x0");
    assert_int_equal(bh_snprintf(NULL, 0, "%s", "four"), 4);
}

static void silly_widths_are_bounded(void **state)
{
    const char *volatile format = "%99999999999999999999u";
    char out[8];

    assert_int_equal(bh_snprintf(out, sizeof(out), format, 1u), 4096);
    assert_string_equal(out, "       ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_match_the_c_library),
        cmocka_unit_test(texts_match_the_c_library),
        cmocka_unit_test(several_arguments_stay_in_step),
        cmocka_unit_test(a_text_without_end_is_read_to_its_precision),
        cmocka_unit_test(what_is_not_known_ends_the_formatting),
        cmocka_unit_test(null_is_printable),
        cmocka_unit_test(silly_widths_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
