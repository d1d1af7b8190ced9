/* The console: what the tools rely on to tell the hypervisor's lines from the guest's. */
/* SOURCES: */
#include "tests/unit/unit.h"

#include <string.h>

#include "shared/x86/io.h"

static char sent[256];
static size_t sent_length;

static u8 fake_in(u16 port)
{
    assert_int_equal(port, 0x3fd);
    return 0x20;
}

static void fake_out(u16 port, u8 value)
{
    assert_int_equal(port, 0x3f8);
    sent[sent_length++] = (char)value;
}

/* The file itself, with its ports bent to the ones above. */
#define io_in8 fake_in
#define io_out8 fake_out
#include "hv/control/console.c"

static void guest_writes(const char *text)
{
    for (; *text; text++)
        console_guest_put((u8)*text);
}

static void a_line_of_ours_stands_alone(void **state)
{
    (void)state;
    guest_writes("$ ls\r\n");
    console_line("[hv  1.000000] first");
    console_line("[hv  1.000001] second");
    assert_string_equal(sent, "$ ls\r\n[hv  1.000000] first\r\n[hv  1.000001] second\r\n");
}

/* LF CR, which no guest prints: scripts/bulkhead_lib/console.py puts the guest's line together again by it. */
static void a_broken_line_of_the_guest_can_be_mended(void **state)
{
    (void)state;
    guest_writes("[stat");
    console_line("[hv  1.000000] between");
    guest_writes("us 0]\r\n");
    assert_string_equal(sent, "[stat\n\r[hv  1.000000] between\r\nus 0]\r\n");
}

static int clear(void **state)
{
    (void)state;
    memset(sent, 0, sizeof(sent));
    sent_length = 0;
    column_zero = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_line_of_ours_stands_alone, clear),
        cmocka_unit_test_setup(a_broken_line_of_the_guest_can_be_mended, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
