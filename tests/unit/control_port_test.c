/* The control port against a UART made of a buffer: lines in pieces, hostile lines, long answers, a slow reader. */
/* SOURCES: hv/control/events.c */
/* INCLUDE_FAKES */
#include "shared/lib/string.h"
#include "shared/x86/io.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"

static const char *input;
static size_t input_left;
static char *sent;
static size_t sent_length;
static u32 transmitter_room; /* characters that the other side takes before it stalls */

static u8 fake_in(u16 port)
{
    if (port == 0x2fd)
        return (u8)((input_left > 0 ? 1 : 0) | (transmitter_room > 0 ? 0x20 : 0));
    assert_int_equal(port, 0x2f8);
    assert_true(input_left > 0);
    input_left--;
    return (u8)*input++;
}

static bool set_up;

static void fake_out(u16 port, u8 value)
{
    assert_in_range(port, 0x2f8, 0x2ff);
    if (port != 0x2f8 || !set_up)
        return;
    assert_true(transmitter_room > 0);
    transmitter_room--;
    sent[sent_length++] = (char)value;
}

/* The file itself, with its ports bent to the ones above. */
#include "shared/x86/io.h"
#define io_in8 fake_in
#define io_out8 fake_out
#include "hv/control/port.c"

static u32 answer_lines;
static char executed[1024];

void control_execute(char *text, void (*reply)(const char *text))
{
    assert_true(strlen(text) < LINE_SIZE);
    (void)str_copy(executed, sizeof(executed), text);
    for (u32 i = 0; i < answer_lines; i++)
        reply("event 0123456789 0123456789 0123456789 0123456789 0123456789\n");
    reply("ok\n");
}

void *boot_frames(u64 count, const char *what)
{
    assert_int_equal(count * PAGE_SIZE, KIB(512));
    return hpa_to_ptr(HPA(MIB(1)));
}

static int machine(void **state)
{
    fake_memory_create(MIB(1), KIB(512));
    sent = malloc(MIB(2));
    sent_length = 0;
    answer_lines = 0;
    executed[0] = '\0';
    transmitter_room = ~0u;
    set_up = false;
    control_init();
    set_up = true;
    output_length = output_sent = line_length = 0;
    line_refused = NULL;
    return 0;
}

static int machine_end_(void **state)
{
    output = NULL;
    free(sent);
    fake_memory_destroy();
    return 0;
}

static void poll_with(const char *text, size_t length)
{
    input = text;
    input_left = length;
    for (u32 i = 0; i < 2000; i++)
        control_poll();
    assert_int_equal(input_left, 0);
    sent[sent_length] = '\0';
}

static void type(const char *text)
{
    poll_with(text, strlen(text));
}

static void lines_may_come_in_pieces(void **state)
{
    type("sta");
    assert_string_equal(executed, "");
    type("tus\r\n");
    assert_string_equal(executed, "status");
    assert_string_equal(sent, "ok\n");
}

static void empty_lines_are_nothing(void **state)
{
    type("\n\r\n\n");
    assert_string_equal(sent, "");
}

static void two_commands_get_two_answers(void **state)
{
    answer_lines = 1;
    type("a\nb\n");
    assert_string_equal(executed, "b");
    assert_int_equal(sent_length, 2 * 64);
}

static void the_longest_line_is_taken_and_a_longer_one_refused_whole(void **state)
{
    char text[600];

    memset(text, 'l', sizeof(text));
    text[255] = '\n';
    poll_with(text, 256);
    assert_int_equal(strlen(executed), 255);
    executed[0] = '\0';
    sent_length = 0;
    memset(text, 'l', sizeof(text));
    text[256] = '\n';
    poll_with(text, 257);
    assert_string_equal(sent, "error the line is too long\n");
    sent_length = 0;
    memset(text, 'l', sizeof(text));
    poll_with(text, 600);
    type("restart blk0\n"); /* the tail of a refused line is no command */
    assert_string_equal(executed, "");
    assert_string_equal(sent, "error the line is too long\n");
    type("status\n");
    assert_string_equal(executed, "status");
}

static void unprintable_bytes_refuse_the_line(void **state)
{
    static const char *const lines[] = {"status\0 x\n", "\x1b[2Jabc..\n", "st\xff\xfe abcd\n", "statu\t\x7f..\n"};

    for (u32 i = 0; i < ARRAY_SIZE(lines); i++) {
        sent_length = 0;
        poll_with(lines[i], 10);
        assert_string_equal(sent, "error the line has unprintable characters\n");
    }
    assert_string_equal(executed, "");
}

static void a_slow_reader_blocks_nobody(void **state)
{
    answer_lines = 100;
    transmitter_room = 16;
    input = "events\nstatus\n";
    input_left = 14;
    assert_true(control_poll());
    for (u32 i = 0; i < 50; i++)
        assert_false(control_poll()); /* there is no hurry while the reader stalls */
    assert_int_equal(sent_length, 16);
    assert_string_equal(executed, "events");
    assert_int_equal(input_left, 7); /* the next command waits for the end of this answer */
    transmitter_room = ~0u;
    control_poll();
    assert_int_equal(sent_length, 16 + 1024); /* no more at once */
    for (u32 i = 0; i < 50; i++)
        control_poll();
    assert_string_equal(executed, "status");
    assert_int_equal(sent_length, 2 * (100 * 61 + 3));
}

static void an_answer_beyond_the_buffer_says_so(void **state)
{
    static const char end[] = "error the answer is too long\n";

    answer_lines = 10000;
    type("events\n");
    assert_true(sent_length <= KIB(512));
    assert_string_equal(sent + sent_length - strlen(end), end);
    sent_length = 0;
    answer_lines = 0;
    type("status\n");
    assert_string_equal(sent, "ok\n");
}

static void random_bytes_are_survived(void **state)
{
    struct random random = random_start("port");
    static char text[20000];

    for (u32 round = 0; round < 20; round++) {
        for (u32 i = 0; i < sizeof(text); i++)
            text[i] = random_one_in(&random, 100) ? '\n' : (char)random_between(&random, round < 10 ? 32 : 0, 127);
        sent_length = 0;
        poll_with(text, sizeof(text));
        assert_true(line_length < LINE_SIZE);
    }
}

static void a_port_that_is_off_does_nothing(void **state)
{
    output = NULL;
    input_left = 3;
    input = "a\n\n";
    control_poll();
    assert_int_equal(input_left, 3);
    machine_end_(NULL);
    machine(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine, machine_end_)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lines_may_come_in_pieces),
        TEST(empty_lines_are_nothing),
        TEST(two_commands_get_two_answers),
        TEST(the_longest_line_is_taken_and_a_longer_one_refused_whole),
        TEST(unprintable_bytes_refuse_the_line),
        TEST(a_slow_reader_blocks_nobody),
        TEST(an_answer_beyond_the_buffer_says_so),
        TEST(random_bytes_are_survived),
        TEST(a_port_that_is_off_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
