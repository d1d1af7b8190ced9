/* The control ports against a UART made of a buffer, and a console of the guest's: lines in pieces, hostile lines, long
 * answers, a slow reader. */
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
    fake_time_us += 1; /* what a character costs */
    sent[sent_length++] = (char)value;
}

/* The file itself, with its ports bent to the ones above. */
#include "shared/x86/io.h"
#define io_in8 fake_in
#define io_out8 fake_out
#include "hv/control/port.c"

static u32 answer_lines;
static char executed[1024];

static enum manifest_control asked;

void control_execute(char *text, enum manifest_control who, void (*reply)(const char *text))
{
    assert_true(strlen(text) < LINE_SIZE);
    asked = who;
    (void)str_copy(executed, sizeof(executed), text);
    for (u32 i = 0; i < answer_lines; i++)
        reply("event 0123456789 0123456789 0123456789 0123456789 0123456789\n");
    reply("ok\n");
}

void *boot_frames(u64 count, const char *what)
{
    bool guests = strcmp(what, "the guest's control port") == 0;

    assert_int_equal(count * PAGE_SIZE, KIB(512));
    return hpa_to_ptr(HPA(MIB(1) + (guests ? KIB(512) : 0)));
}

/* ---- the guest's end ---- */

static struct manifest_vm guest_config = {.control = MANIFEST_CONTROL_READ};
static struct vm the_guest = {.config = &guest_config};
struct vm *main_guest = &the_guest;
static const char *typed = "";
static u32 typed_left, console_room, console_length, consoles;
static char console[MIB(1)];

void relay_console_create(void)
{
    consoles++;
}

u32 relay_console_move(bool to_guest, char *bytes, u32 size)
{
    u32 room = to_guest ? console_room : typed_left, part = size < room ? size : room;

    if (to_guest) {
        memcpy(console + console_length, bytes, part);
        console_length += part;
        console_room -= part;
    } else {
        memcpy(bytes, typed, part);
        typed += part;
        typed_left -= part;
    }
    return part;
}

/* A millisecond later */
static bool tick(void)
{
    fake_time_us += 1000;
    return control_poll();
}

static void guest_types(const char *text, u32 polls)
{
    typed = text;
    typed_left = (u32)strlen(text);
    for (u32 i = 0; i < polls; i++)
        tick();
    console[console_length] = '\0';
}

static int machine(void **state)
{
    fake_memory_create(MIB(1), MIB(1));
    sent = malloc(MIB(2));
    sent_length = 0;
    answer_lines = 0;
    executed[0] = '\0';
    transmitter_room = ~0u;
    set_up = false;
    serial.length = serial.sent = serial.filled = 0;
    serial.too_long = false;
    control_init();
    control_init_guest();
    control_reset_guest();
    console_length = typed_left = 0;
    input_left = 0;
    console_room = ~0u;
    set_up = true;
    return 0;
}

static int machine_end_(void **state)
{
    serial.output = guest.output = NULL;
    free(sent);
    fake_memory_destroy();
    return 0;
}

static void poll_with(const char *text, size_t length)
{
    input = text;
    input_left = length;
    for (u32 i = 0; i < 2000; i++)
        tick();
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
    assert_true(tick());
    for (u32 i = 0; i < 50; i++)
        assert_true(!tick() || i < HURRY); /* there is no hurry while the reader stalls */
    assert_int_equal(sent_length, 16);
    assert_string_equal(executed, "events");
    assert_string_equal(executed, "events"); /* the next command waits for the end of this answer */
    transmitter_room = ~0u;
    tick();
    assert_in_range(sent_length, 16 + 250, 16 + 251); /* no more at once than a quarter of a millisecond takes */
    for (u32 i = 0; i < 50; i++)
        tick();
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
        assert_true(serial.filled < LINE_SIZE);
    }
}

static void a_port_that_is_off_does_nothing(void **state)
{
    serial.output = guest.output = NULL;
    input_left = 3;
    input = "a\n\n";
    tick();
    assert_int_equal(input_left, 3);
    guest_types("status\n", 100);
    assert_int_equal(typed_left, 7);
    machine_end_(NULL);
    machine(NULL);
}

static void the_guest_has_its_own_port(void **state)
{
    guest_types("sta", 20);
    type("stop blk0\n"); /* nothing of one port gets into the other's */
    assert_int_equal(asked, MANIFEST_CONTROL_NO);
    guest_types("tus\n", 20);
    assert_string_equal(executed, "status");
    assert_int_equal(asked, MANIFEST_CONTROL_READ);
    assert_string_equal(console, "ok\n");
    assert_string_equal(sent, "ok\n");
    guest_types("a\x01\n", 20);
    assert_string_equal(console, "ok\nerror the line has unprintable characters\n");
}

/* Commands without end: one in so many ticks, whatever the guest does. The operator has his answers. */
static void a_guest_that_floods_gets_its_share(void **state)
{
    static char flood[40001];

    for (u32 i = 0; i < 20000; i++)
        memcpy(flood + 2 * i, "s\n", 3);
    guest_types(flood, 4000);
    assert_in_range(console_length, 3 * 900, 3 * 1000);
    executed[0] = '\0';
    type("status\n");
    assert_string_equal(sent, "ok\n");
}

static void a_guest_that_takes_no_answer_waits(void **state)
{
    answer_lines = 10;
    console_room = 100;
    guest_types("events\nstatus\nstatus\n", 400);
    assert_string_equal(executed, "events");
    assert_int_equal(console_length, 100);
    type("restart blk0\n");
    assert_string_equal(executed, "restart blk0");
    console_room = ~0u;
    for (u32 i = 0; i < 400; i++)
        tick();
    assert_int_equal(console_length, 3 * (10 * 61 + 3));
}

static void a_reset_of_the_guest_forgets_what_was_under_way(void **state)
{
    answer_lines = 10;
    console_room = 7;
    guest_types("events\nhalf a li", 100);
    control_reset_guest();
    console_room = ~0u;
    console_length = 0;
    answer_lines = 0;
    guest_types("status\n", 100);
    assert_string_equal(executed, "status");
    assert_string_equal(console, "ok\n");
}

static void no_console_without_the_manifests_word(void **state)
{
    u32 before = consoles;

    guest.output = NULL;
    guest_config.control = MANIFEST_CONTROL_NO;
    control_init_guest();
    guest_config.control = MANIFEST_CONTROL_READ;
    assert_int_equal(consoles, before);
    guest_types("status\n", 100);
    assert_int_equal(typed_left, 7);
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
        TEST(the_guest_has_its_own_port),
        TEST(a_guest_that_floods_gets_its_share),
        TEST(a_guest_that_takes_no_answer_waits),
        TEST(a_reset_of_the_guest_forgets_what_was_under_way),
        TEST(no_console_without_the_manifests_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
