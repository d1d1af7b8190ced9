/* drvctl: the driver VMs as the control port tells of them, and orders to them. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_console.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/drvctl.h"
#include "guestos/kernel/shell/drvctl_text.h"
#include "guestos/kernel/shell/line.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define VALUE_SIZE 160u
#define NEWEST 16u   /* of events or faults, when nobody says from which one on */
#define HISTORY 512u /* faults that are kept at most */

typedef unsigned long long number; /* what %llu takes */
typedef void take_line(const char *line, void *context);

/* An enum shell_status; says what went wrong. */
static int ask(const char *command, take_line *take, void *context)
{
    char why[VALUE_SIZE];
    status_t status = drvctl_ask(command, take, context, why, sizeof(why));

    if (status == ERR_DENIED)
        console_print("drvctl: %s: %s\n", command, why);
    else if (status == ERR_NOT_FOUND)
        console_print("drvctl: this guest has no control port: its section of the manifest does not say "
                      "'control = read' or 'control = yes'\n");
    else if (status == ERR_STATE)
        return SHELL_INTERRUPTED;
    else if (status != OK)
        console_print("drvctl: %s: the control port: %s\n", command, arena_status_text(status));
    return status == OK ? SHELL_OK : SHELL_FAILED;
}

static void print_raw(const char *line, void *context)
{
    (void)context;
    /* console_print() has less room than a line may need. */
    for (u32 at = 0, length = (u32)strlen(line); at < length; at += 256)
        console_print("%.256s", line + at);
    console_print("\n");
}

static void print_time(const char *before, u64 us, const char *behind)
{
    console_print("%s%llu.%06llu%s", before, (number)(us / 1000000), (number)(us % 1000000), behind);
}

/* ---- status, stats ---- */

struct wanted {
    const char *vm; /* NULL: all, in short */
    bool zeroes;    /* in the long form: numbers that are 0, too */
    bool found;
};

static void print_fields(const char *line, struct wanted *wanted)
{
    char key[48], value[VALUE_SIZE];

    if (!drvctl_text(line, "name", value, sizeof(value)) || strcmp(value, wanted->vm) != 0)
        return;
    wanted->found = true;
    for (const char *at = line; drvctl_next(&at, key, sizeof(key), value, sizeof(value));)
        if (wanted->zeroes || strcmp(value, "0") != 0)
            console_print("%-22s %s\n", key, value);
}

static void print_machine(const char *line)
{
    char backend[16], iommu[VALUE_SIZE], canary[16];

    (void)drvctl_text(line, "backend", backend, sizeof(backend));
    (void)drvctl_text(line, "iommu", iommu, sizeof(iommu));
    (void)drvctl_text(line, "canary", canary, sizeof(canary));
    print_time("Bulkhead: up ", drvctl_number(line, "uptime_us"), " s");
    console_print(", %llu CPUs, %s, IOMMU %s, canary %s\n", (number)drvctl_number(line, "cpus"), backend, iommu,
                  canary);
    console_print("%-15s %-10s %-8s %8s %8s %9s  %s\n", "VM", "state", "device", "restarts", "crashes", "in flight",
                  "last fault");
}

static void print_status(const char *line, void *context)
{
    struct wanted *wanted = context;
    char name[16], state[16], device[16], fault[VALUE_SIZE];

    if (wanted->vm != NULL) {
        print_fields(line, wanted);
    } else if (drvctl_is(line, "hypervisor")) {
        print_machine(line);
    } else if (drvctl_is(line, "vm")) {
        (void)drvctl_text(line, "name", name, sizeof(name));
        (void)drvctl_text(line, "state", state, sizeof(state));
        if (drvctl_text(line, "device", device, sizeof(device))) {
            (void)drvctl_text(line, "last_fault", fault, sizeof(fault));
            console_print("%-15s %-10s %-8s %8llu %8llu %9llu  %s\n", name, state, device,
                          (number)drvctl_number(line, "restarts"), (number)drvctl_number(line, "crashes"),
                          (number)drvctl_number(line, "in_flight"), fault);
        } else {
            console_print("%-15s %-10s (the main guest, %llu MiB)\n", name, state,
                          (number)drvctl_number(line, "memory") >> 20);
        }
    }
}

static void print_stats(const char *line, void *context)
{
    struct wanted *wanted = context;
    char name[16];

    if (wanted->vm != NULL) {
        print_fields(line, wanted);
    } else if (drvctl_text(line, "name", name, sizeof(name))) {
        console_print("%-15s ", name);
        print_time("ran for ", drvctl_number(line, "run_us"), " s");
        console_print(", %llu exits, %llu requests, %llu completions, %llu KiB read, %llu KiB written, %llu replayed\n",
                      (number)drvctl_number(line, "exits"), (number)drvctl_number(line, "requests"),
                      (number)drvctl_number(line, "completions"), (number)drvctl_number(line, "bytes_read") >> 10,
                      (number)drvctl_number(line, "bytes_written") >> 10, (number)drvctl_number(line, "replayed"));
    }
}

static int show(const char *command, const struct args *args, take_line *take)
{
    struct wanted wanted = {.vm = args->count > 0 ? args->value[0] : NULL, .zeroes = take == print_status};
    int status = ask(command, take, &wanted);

    if (status != SHELL_OK || wanted.vm == NULL || wanted.found)
        return status;
    console_print("drvctl: there is no VM %s\n", wanted.vm);
    return SHELL_FAILED;
}

/* ---- events, faults ---- */

static void print_event(const char *line, void *context)
{
    char vm[16], kind[24], text[VALUE_SIZE];

    (void)drvctl_text(line, "vm", vm, sizeof(vm));
    (void)drvctl_text(line, "kind", kind, sizeof(kind));
    (void)drvctl_text(line, "text", text, sizeof(text));
    *(u64 *)context = drvctl_number(line, "seq");
    console_print("%5llu ", (number)drvctl_number(line, "seq"));
    print_time("", drvctl_number(line, "us"), " s ");
    console_print("%-10s %-12s %s\n", vm, kind, text);
}

static void print_fault(const char *line, void *context)
{
    char vm[16], kind[24], outcome[24], text[VALUE_SIZE];

    (void)context;
    (void)drvctl_text(line, "vm", vm, sizeof(vm));
    (void)drvctl_text(line, "kind", kind, sizeof(kind));
    (void)drvctl_text(line, "outcome", outcome, sizeof(outcome));
    (void)drvctl_text(line, "text", text, sizeof(text));
    console_print("%5llu ", (number)drvctl_number(line, "seq"));
    print_time("", drvctl_number(line, "t_detect"), " s ");
    console_print("%-10s %-12s %-10s ", vm, kind, outcome);
    if (drvctl_number(line, "t_first_completion") != 0) /* else nothing was in flight */
        console_print("first completion after %llu us, ", (number)drvctl_number(line, "first_completion_us"));
    console_print("%s\n", text);
}

/* How many there were: of events the machine's line says it, of faults each VM's. */
struct totals {
    u64 events, faults;
};

static void add_totals(const char *line, void *context)
{
    struct totals *totals = context;

    totals->events += drvctl_number(line, "events");
    totals->faults += drvctl_number(line, "faults");
}

/* The port tells a few at once. */
static int list(const char *command, const struct args *args, take_line *take)
{
    struct totals totals = {0};
    char text[64];
    u64 from = 0, last = 0;
    bool events = take == print_event;
    int status = ask("status", add_totals, &totals);

    if (status != SHELL_OK)
        return status;
    u64 total = events ? totals.events : totals.faults;
    if (args->count > 0 && !args_number(args, 0, &from)) {
        console_print("drvctl: FROM is not a number\n");
        return SHELL_USAGE;
    }
    if (args->count == 0)
        from = total > NEWEST ? total - NEWEST + 1 : 1;
    else if (!events && total > HISTORY && from < total - HISTORY)
        from = total - HISTORY; /* what is older is gone, and would be asked for step by step */
    for (; from <= total && status == SHELL_OK; from = events && last >= from ? last + 1 : from + NEWEST) {
        bh_snprintf(text, sizeof(text), "%s %llu", command, (number)from);
        status = ask(text, take, &last);
    }
    return status;
}

/* ---- orders ---- */

static struct {
    char command[64];
    u64 due_us, period_us;
    u32 left;
} later;

/* While another command waits for the disk: what its driver VM does then is what one wants to see. */
static void order_in_background(void)
{
    if (later.left == 0 || clock_us() < later.due_us)
        return;
    later.left--;
    later.due_us = clock_us() + later.period_us;
    int status = ask(later.command, print_raw, NULL);
    console_print("drvctl: %s: %s\n", later.command, status == SHELL_OK ? "ok" : "failed");
}

static int order(const char *command, struct args *args, u64 after_ms, u64 times)
{
    if (!args_check(args, 1, 1))
        return SHELL_USAGE;
    bh_snprintf(later.command, sizeof(later.command), "%s %s", command, args->value[0]);
    if (after_ms == 0)
        return ask(later.command, print_raw, NULL);
    later.due_us = clock_us() + after_ms * 1000;
    later.period_us = after_ms * 1000;
    later.left = (u32)times;
    background_add(order_in_background);
    return SHELL_OK;
}

static int raw(const struct args *args)
{
    char text[2 * LINE_MAX];
    u32 at = 0;

    for (int i = 0; i < args->count; i++)
        at += (u32)bh_snprintf(text + at, sizeof(text) - at, "%s%s", i == 0 ? "" : " ", args->value[i]);
    return ask(text, print_raw, NULL);
}

static void print_help(const char *line, void *context)
{
    char name[16], help[VALUE_SIZE];

    (void)context;
    (void)drvctl_text(line, "name", name, sizeof(name));
    (void)drvctl_text(line, "help", help, sizeof(help));
    console_print("%-10s %s\n", name, help);
}

int command_drvctl(struct args *args)
{
    static const char *const orders[] = {"restart", "stop", "start"};
    u64 after_ms = 0, times = 1;

    args_take_number(args, "--after", &after_ms);
    args_take_number(args, "--times", &times);
    if (!args_check(args, 1, ARGS_MAX))
        return SHELL_USAGE;
    const char *what = args_shift(args);
    if (strcmp(what, "raw") == 0 && args->count > 0)
        return raw(args);
    for (u32 i = 0; i < ARRAY_SIZE(orders); i++)
        if (strcmp(what, orders[i]) == 0)
            return order(what, args, after_ms, times);
    if (!args_check(args, 0, 1))
        return SHELL_USAGE;
    if (strcmp(what, "status") == 0)
        return show(what, args, print_status);
    if (strcmp(what, "stats") == 0)
        return show(what, args, print_stats);
    if (strcmp(what, "events") == 0)
        return list(what, args, print_event);
    if (strcmp(what, "faults") == 0)
        return list(what, args, print_fault);
    if (strcmp(what, "help") == 0)
        return ask(what, print_help, NULL);
    console_print("usage: %s\n", args->usage);
    return SHELL_USAGE;
}
