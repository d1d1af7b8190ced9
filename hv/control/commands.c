/* The commands of the control port: one table, one function each. */
#include "hv/control/answer.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/machine.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define WORDS_MAX 4u
#define LINE_SIZE 256u
#define PIECE_SIZE 160u

static void (*sink)(const char *text);

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void say(const char *fmt, ...)
{
    char piece[PIECE_SIZE];
    va_list args;

    va_start(args, fmt);
    (void)bh_vsnprintf(piece, sizeof(piece), fmt, args);
    va_end(args);
    sink(piece);
}

void answer_begin(const char *kind)
{
    say("%s", kind);
}

void answer_number(const char *key, u64 value)
{
    say(" %s=%llu", key, (unsigned long long)value);
}

void answer_hex(const char *key, u64 value)
{
    say(" %s=0x%llx", key, (unsigned long long)value);
}

void answer_word(const char *key, const char *value)
{
    say(" %s=%s", key, value);
}

void answer_text(const char *key, const char *value)
{
    char text[PIECE_SIZE - 32]; /* room for the key */

    (void)str_copy(text, sizeof(text), value);
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '"')
            *c = '\'';
        else if (*c == '\\')
            *c = '/';
        else if (*c < ' ' || *c > '~')
            *c = '?';
    }
    say(" %s=\"%s\"", key, text);
}

void answer_end(void)
{
    sink("\n");
}

void answer_stamp(const char *key, u64 tsc)
{
    answer_number(key, tsc == 0 ? 0 : tsc_to_us(tsc - machine_start_tsc()));
}

void answer_duration(const char *key, u64 from, u64 to)
{
    if (from != 0 && to >= from)
        answer_number(key, tsc_to_us(to - from));
}

/* What a command returns: NULL for ok, or the error's text. words[0] is the command itself. */
typedef const char *(*command_function)(u32 count, char *const words[]);

static const char *parse_from(u32 count, char *const words[], u64 *from)
{
    *from = 1;
    return count > 1 && !str_to_u64(words[1], from) ? "FROM is not a number" : NULL;
}

static const char *command_status(u32 count, char *const words[])
{
    (void)count;
    (void)words;
    report_status();
    return NULL;
}

static const char *command_stats(u32 count, char *const words[])
{
    (void)count;
    (void)words;
    report_stats();
    return NULL;
}

static const char *command_events(u32 count, char *const words[])
{
    u64 from;
    const char *error = parse_from(count, words, &from);

    if (error == NULL)
        report_events(from, false);
    return error;
}

static const char *command_trace(u32 count, char *const words[])
{
    u64 from;
    const char *error = parse_from(count, words, &from);

    if (error == NULL)
        report_events(from, true);
    return error;
}

static const char *command_faults(u32 count, char *const words[])
{
    u64 from;
    const char *error = parse_from(count, words, &from);

    if (error == NULL)
        report_faults(from);
    return error;
}

static const char *find_driver(const char *name, struct driver **out)
{
    struct vm *vm = vm_find(name);

    if (vm == NULL)
        return "no such VM";
    *out = vm->driver;
    return *out == NULL ? "this VM has no driver" : NULL;
}

static const char *command_inject(u32 count, char *const words[])
{
    struct driver *driver;
    const char *error = find_driver(words[1], &driver);

    (void)count;
    if (error != NULL)
        return error;
    switch (inject_arm(driver, words[2])) {
    case OK:
        return NULL;
    case ERR_NOT_FOUND:
        return "no such fault: crash, hang, wild-write, wild-dma or garbage";
    case ERR_BUSY:
        return "another fault is armed or not yet noticed";
    default:
        return "the driver VM is not running";
    }
}

static const char *command_restart(u32 count, char *const words[])
{
    struct driver *driver;
    const char *error = find_driver(words[1], &driver);

    (void)count;
    if (error != NULL)
        return error;
    return recovery_restart(driver) == OK ? NULL : "a recovery is under way";
}

static const char *command_tsc(u32 count, char *const words[])
{
    (void)count;
    (void)words;
    answer_begin("tsc");
    answer_number("now", tsc_now());
    answer_number("khz", tsc_khz);
    answer_number("us", time_us());
    answer_end();
    return NULL;
}

static const char *command_help(u32 count, char *const words[]);

static const struct command {
    const char *name;
    u32 least, most; /* arguments */
    command_function run;
    const char *help;
} commands[] = {
    {"help", 0, 0, command_help, "this list"},
    {"status", 0, 0, command_status, "the machine and its VMs"},
    {"stats", 0, 0, command_stats, "counters of each VM"},
    {"events", 0, 1, command_events, "[FROM]: the event log, from that sequence number on"},
    {"trace", 0, 1, command_trace, "[FROM]: the same with TSC stamps, to lay beside a guest's own"},
    {"faults", 0, 1, command_faults, "[FROM]: fault records whose recovery has ended"},
    {"inject", 2, 2, command_inject, "VM FAULT: crash, hang, wild-write, wild-dma or garbage"},
    {"restart", 1, 1, command_restart, "VM: start a driver VM anew, also one that was given up on"},
    {"tsc", 0, 0, command_tsc, "the clock"},
};

static const char *command_help(u32 count, char *const words[])
{
    (void)count;
    (void)words;
    for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
        answer_begin("command");
        answer_word("name", commands[i].name);
        answer_text("help", commands[i].help);
        answer_end();
    }
    return NULL;
}

/* Cut the line at its blanks; words beyond WORDS_MAX are counted only. */
static u32 split(char *line, char *words[WORDS_MAX])
{
    u32 count = 0;

    for (char *at = line; *at != '\0';) {
        while (*at == ' ')
            *at++ = '\0';
        if (*at == '\0')
            break;
        if (count < WORDS_MAX)
            words[count] = at;
        count++;
        while (*at != '\0' && *at != ' ')
            at++;
    }
    return count;
}

static const char *run_line(const char *text)
{
    char line[LINE_SIZE];
    char *words[WORDS_MAX];

    if (!str_copy(line, sizeof(line), text))
        return "the line is too long";
    u32 count = split(line, words);
    if (count == 0)
        return "an empty line";
    for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, words[0]) != 0)
            continue;
        if (count - 1 < command->least || count - 1 > command->most)
            return "wrong number of arguments: see help";
        return command->run(count, words);
    }
    return "unknown command: see help";
}

void control_execute(const char *line, void (*put)(const char *text))
{
    sink = put;
    const char *error = run_line(line);
    if (error == NULL)
        say("ok\n");
    else
        say("error %s\n", error);
}
