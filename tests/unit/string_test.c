/* FLAGS: -ffreestanding */
/*
 * The freestanding string functions under other names beside the C library's, over random contents, lengths, offsets
 * and overlaps. What they write beyond their range is found by comparing whole buffers.
 */
#include "tests/unit/random.h"

#define memcpy own_memcpy
#define memmove own_memmove
#define memset own_memset
#define memcmp own_memcmp
#define strlen own_strlen
#define strnlen own_strnlen
#define strcmp own_strcmp
#define strncmp own_strncmp
#define strchr own_strchr
#define str_copy own_str_copy
#define str_to_u64 own_str_to_u64
#include "shared/lib/string.c"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef strlen
#undef strnlen
#undef strcmp
#undef strncmp
#undef strchr

#define SIZE 300u

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void memory_functions_match_the_c_library(void **state)
{
    struct random random = random_start("memory");
    u8 source[SIZE], want[SIZE], got[SIZE];

    for (u32 i = 0; i < 20000; i++) {
        size_t length = random_below(&random, random_one_in(&random, 2) ? SIZE : 20);
        size_t from = random_below(&random, SIZE - length + 1);
        size_t to = random_below(&random, SIZE - length + 1);
        int byte = (int)random_bits(&random); /* only its low byte counts */

        random_fill(&random, source, SIZE);
        memcpy(want, source, SIZE);
        memcpy(got, source, SIZE);
        memmove(want + to, want + from, length);
        assert_ptr_equal(own_memmove(got + to, got + from, length), got + to);
        assert_memory_equal(got, want, SIZE);

        memcpy(want + to, source + from, length);
        assert_ptr_equal(own_memcpy(got + to, source + from, length), got + to);
        assert_memory_equal(got, want, SIZE);

        assert_int_equal(own_memcmp(got + to, source + from, length), 0);
        memset(want + from, byte, length);
        assert_ptr_equal(own_memset(got + from, byte, length), got + from);
        assert_memory_equal(got, want, SIZE);
        assert_int_equal(sign(own_memcmp(got + to, source + to, length)), sign(memcmp(want + to, source + to, length)));
    }
}

/* Few different characters, so that equal beginnings are common; 0x80 and above must compare as unsigned. */
static size_t random_text(struct random *random, char *out, size_t size)
{
    size_t length = random_below(random, size);

    for (size_t i = 0; i < length; i++)
        out[i] = "ab\x80\xff"[random_below(random, 4)];
    out[length] = '\0';
    return length;
}

static void text_functions_match_the_c_library(void **state)
{
    struct random random = random_start("text");

    for (u32 i = 0; i < 50000; i++) {
        char a[12], b[12], got[16], want[16];
        size_t length = random_text(&random, a, sizeof(a));
        size_t limit = random_below(&random, 16);
        int c = "ab\x80\xff\0z"[random_below(&random, 6)];

        random_text(&random, b, sizeof(b));
        assert_int_equal(own_strlen(a), length);
        assert_int_equal(own_strnlen(a, limit), strnlen(a, limit));
        assert_int_equal(sign(own_strcmp(a, b)), sign(strcmp(a, b)));
        assert_int_equal(sign(own_strncmp(a, b, limit)), sign(strncmp(a, b, limit)));
        assert_ptr_equal(own_strchr(a, c), strchr(a, c));

        memset(got, 0x5a, sizeof(got));
        memset(want, 0x5a, sizeof(want));
        assert_int_equal(own_str_copy(got, limit + 1, a), length <= limit);
        snprintf(want, limit + 1, "%s", a);
        assert_memory_equal(got, want, sizeof(got));
    }
}

static void numbers_match_the_c_library(void **state)
{
    struct random random = random_start("numbers");

    for (u32 i = 0; i < 50000; i++) {
        unsigned long long value = random_bits(&random);
        u64 out = 0;
        char text[32];

        snprintf(text, sizeof(text), random_one_in(&random, 2) ? "%llu" : "0x%llx", value);
        assert_true(own_str_to_u64(text, &out) && out == value);
        snprintf(text, sizeof(text), random_one_in(&random, 2) ? "000%llu" : "0X00%llX", value);
        assert_true(own_str_to_u64(text, &out) && out == value);
    }
}

static void what_is_no_number_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "0x",
        "0X",
        "x1",
        "1a",
        "0xg",
        "a",
        "1.0",
        "0x1 ",
        "1\n",
        "0b1",
        "18446744073709551616",
        "99999999999999999999",
        "184467440737095516150",
        "0x10000000000000000",
    };
    u64 out = 42;

    for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(own_str_to_u64(bad[i], &out));
    assert_true(own_str_to_u64("18446744073709551615", &out) && out == UINT64_MAX);
    assert_true(own_str_to_u64("0xffffffffffffffff", &out) && out == UINT64_MAX);
    assert_true(own_str_to_u64("0", &out) && out == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_functions_match_the_c_library),
        cmocka_unit_test(text_functions_match_the_c_library),
        cmocka_unit_test(numbers_match_the_c_library),
        cmocka_unit_test(what_is_no_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
