/* The commands of the control port: one table; what a command takes tells how its line is read. */
#include "hv/control/answer.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/platform/platform.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define WORDS_MAX 6u
#define PIECE_SIZE 256u
#define READ MANIFEST_CONTROL_READ
#define ORDER MANIFEST_CONTROL_YES
#define GUEST_LINES 16u /* of a list in one answer to the guest */

static void (*sink)(const char *text);
static enum manifest_control guest; /* MANIFEST_CONTROL_NO: it is the operator who asks */

void answer(const char *fmt, ...)
{
    char piece[PIECE_SIZE];

    BH_FORMAT(piece, sizeof(piece), fmt);
    sink(piece);
}

void answer_text(const char *key, const char *value)
{
    char text[PIECE_SIZE - 32]; /* room for the key */

    (void)str_copy(text, sizeof(text), value);
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '"' ? '\'' : *c == '\\' ? '/' : *c < ' ' || *c > '~' ? '?' : *c;
    answer(" %s=\"%s\"", key, text);
}

/* What the injector says to an operator. */
static const char *const why_not[] = {
    [OK] = NULL,
    [ERR_NOT_FOUND] = "no such fault: crash, hang, wild-write, wild-dma, garbage; lose, forge, hold",
    [ERR_BUSY] = "another fault is armed or not yet noticed",
    [ERR_RANGE] = "an operand is not a number, or out of range",
    [ERR_STATE] = "the driver VM is not running",
};

/* Actions on a VM, with the words behind its name: NULL, or why not. */
static const char *inject(struct vm *vm, const char *const words[])
{
    u64 count;

    if (words[1] == NULL)
        return why_not[inject_arm(vm->driver, words[0])];
    return why_not[str_to_u64(words[1], &count) ? inject_interrupts(vm->driver, words[0], count) : ERR_RANGE];
}

static const char *flip(struct vm *vm, const char *const words[])
{
    struct inject_flip flip;
    bool start = words[3] != NULL;
    u64 was;

    if (!str_to_u64(words[0], &flip.address) || !str_to_u64(words[1], &flip.bytes) ||
        !str_to_u64(words[2], &flip.mask) || (start && strcmp(words[3], "start") != 0))
        return why_not[ERR_RANGE];
    status_t status = inject_flip(vm->driver, &flip, start, &was);
    if (status == OK)
        answer("memory at=0x%lx was=0x%lx\n", flip.address, was);
    return why_not[status];
}

static const char *restart(struct vm *vm, const char *const words[])
{
    (void)words;
    if (vm->driver == NULL)
        platform_restart(vm);
    else if (recovery_restart(vm->driver) != OK)
        return "a recovery is under way";
    return NULL;
}

static const char *stop(struct vm *vm, const char *const words[])
{
    (void)words;
    status_t status = recovery_stop(vm->driver);

    return status == OK         ? NULL
           : status == ERR_BUSY ? "another VM that runs needs it"
                                : "it is stopped, or a recovery is under way";
}

static const char *start(struct vm *vm, const char *const words[])
{
    bool ends = vm->driver->state == DRIVER_STOPPED || vm->driver->state == DRIVER_FAILED;

    return ends ? restart(vm, words) : "it runs already";
}

static const char *core(struct vm *vm, const char *const words[])
{
    u64 at;

    if (vm->driver->crash.sequence == 0)
        return "this VM has had no fault";
    if (!str_to_u64(words[0], &at) || at % PAGE_SIZE != 0 || at > vm->ram_size)
        return "FROM is not the address of a page of its memory";
    report_core(vm->driver, at);
    return NULL;
}

static void tell_clock(void)
{
    answer("tsc now=%lu khz=%lu us=%lu\n", tsc_now(), tsc_khz, time_us());
}

static void tell_commands(void);

static const struct command {
    const char *name;
    u32 least, most;                              /* arguments */
    enum manifest_control guest;                  /* with how little the guest may give it; or not */
    void (*tell)(void);                           /* it has none */
    void (*list)(u64 from, u32 most, bool trace); /* [FROM] */
    bool trace;
    const char *(*act)(struct vm *vm, const char *const words[]); /* VM [WORD...] */
    const char *help;
} commands[] = {
    {"help", 0, 0, READ, .tell = tell_commands, .help = "this list"},
    {"status", 0, 0, READ, .tell = report_status, .help = "the machine and its VMs"},
    {"stats", 0, 0, READ, .tell = report_stats, .help = "counters of each VM"},
    {"events", 0, 1, READ, .list = report_events, .help = "[FROM]: the event log, from that sequence number on"},
    {"trace", 0, 1, .list = report_events, .trace = true,
     .help = "[FROM]: the same with TSC stamps, to lay beside a guest's"},
    {"faults", 0, 1, READ, .list = report_faults, .help = "[FROM]: fault records whose recovery has ended"},
    {"inject", 2, 3, .act = inject, .help = "VM FAULT, or VM lose|forge|hold N: interrupts, hold: those of N us"},
    {"flip", 4, 5, .act = flip, .help = "VM ADDRESS BYTES MASK [start]: bits of its memory or rings; what they were"},
    {"restart", 1, 1, ORDER, .act = restart, .help = "VM: start it anew, whatever became of it; the guest, too"},
    {"stop", 1, 1, ORDER, .act = stop, .help = "VM: end a driver VM; its device is silent, requests wait"},
    {"start", 1, 1, ORDER, .act = start, .help = "VM: start one that was stopped or given up on"},
    {"core", 2, 2, .act = core, .help = "VM FROM: what its last fault left: registers, memory from there on"},
    {"chunk", 3, 3, .act = upload_chunk, .help = "VM OFFSET BASE64: bytes of an image for replace"},
    {"replace", 3, 3, .act = upload_replace,
     .help = "VM SIZE SUM: restart it with the image in chunks, of that FNV-1a checksum"},
    {"tsc", 0, 0, READ, .tell = tell_clock, .help = "the clock"},
};

static void tell_commands(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
        if (commands[i].guest >= guest)
            answer("command name=%s help=\"%s\"\n", commands[i].name, commands[i].help);
}

/* Cut the line at its blanks; words beyond WORDS_MAX are counted only. */
static u32 split(char *line, const char *words[WORDS_MAX])
{
    u32 count = 0;

    for (bool inside = false; *line != '\0'; line++) {
        if (*line == ' ')
            *line = '\0';
        else if (!inside && count++ < WORDS_MAX)
            words[count - 1] = line;
        inside = *line != '\0';
    }
    return count;
}

/* words[0] is the command itself. */
static const char *run(const struct command *command, u32 arguments, const char *const words[])
{
    u64 from = 1;

    if (arguments < command->least || arguments > command->most)
        return "wrong number of arguments: see help";
    if (command->act != NULL) {
        struct vm *vm = vm_find(words[1]);
        if (vm == NULL)
            return "no such VM";
        if (vm->driver == NULL && (guest || command->act != restart))
            return "this VM has no driver";
        const char *why = command->act(vm, words + 2);
        if (guest && why == NULL)
            event_add(EVENT_GUEST, main_guest->id, "orders: %s %s", command->name, vm->name);
        return why;
    }
    if (arguments > 0 && !str_to_u64(words[1], &from))
        return "FROM is not a number";
    if (command->list != NULL)
        command->list(from, guest ? GUEST_LINES : ~0u, command->trace);
    else
        command->tell();
    return NULL;
}

static const char *run_line(char *line)
{
    const char *words[WORDS_MAX] = {""}; /* no command has that name */
    u32 count = split(line, words);

    for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, words[0]) == 0)
            return commands[i].guest >= guest ? run(&commands[i], count - 1, words)
                                              : "the manifest does not allow this here";
    return "unknown command: see help";
}

void control_execute(char *line, enum manifest_control who, void (*put)(const char *text))
{
    const char *error = NULL;

    sink = put;
    guest = who;
    /* Commands between semicolons happen at one moment: two faults at once, or in two VMs. The first refusal is the
     * last. */
    for (char *next; line != NULL && error == NULL; line = next) {
        next = guest ? NULL : strchr(line, ';');
        if (next != NULL)
            *next++ = '\0';
        error = run_line(line);
    }
    answer("%s%s\n", error != NULL ? "error " : "ok", error != NULL ? error : "");
}
