/* stat, canary, sleep, reboot, poweroff. */
#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

typedef unsigned long long number; /* what %llu takes */

struct figure {
    const char *name;
    u64 value;
};

/* The members of an object, without its braces, or lines that begin with `prefix`. */
static void print_figures(const struct figure *figure, u32 count, const char *prefix, bool json)
{
    for (u32 i = 0; i < count; i++) {
        if (json)
            console_print("%s\"%s\":%llu", i == 0 ? "" : ",", figure[i].name, (number)figure[i].value);
        else
            console_print("%s%-20s %llu\n", prefix, figure[i].name, (number)figure[i].value);
    }
}

static void print_disks(bool json)
{
    for (u32 i = 0; i < blk_count(); i++) {
        const struct blk *disk = blk_get(i);
        struct blk_counters blk = blk_get_counters(disk);
        char prefix[16];
        const struct figure figures[] = {
            {"requests", blk.requests},
            {"completions", blk.completions},
            {"in_flight", blk_in_flight(disk)},
            {"interrupts", blk.interrupts},
            {"missed_interrupts", blk.missed_interrupts},
            {"notified", blk.notified},
            {"not_notified", blk.notify_suppressed},
            {"io_errors", blk.io_errors},
            {"unsupported", blk.unsupported},
            {"protocol", blk.protocol},
            {"unknown", blk.unknown},
            {"doubled", blk.doubled},
            {"resets", blk.resets},
        };
        bh_snprintf(prefix, sizeof(prefix), "%s_", blk_get_info(disk)->name);
        if (json)
            console_print("%s\"%s\":{", i == 0 ? "" : ",", blk_get_info(disk)->name);
        print_figures(figures, ARRAY_SIZE(figures), prefix, json);
        if (json)
            console_print("}");
    }
}

int command_stat(struct args *args)
{
    struct blk_counters blk = blk_sum_counters();
    struct frames_info memory = frames_get_info();
    bool json = args_take_flag(args, "--json");

    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    const struct figure figures[] = {
        {"uptime_us", clock_us()},
        {"tsc_khz", clock_tsc_khz()},
        {"memory_bytes", memory.total},
        {"memory_free_bytes", memory.free},
        {"arena_bytes", arena_size()},
        {"arena_free_bytes", arena_free()},
        {"timer_interrupts", interrupt_count(VECTOR_TIMER)},
        {"uart_interrupts", interrupt_count(VECTOR_UART)},
        {"blk_interrupts", blk.interrupts},
        {"blk_config_interrupts", blk.config_interrupts},
        {"spurious_interrupts", interrupt_count(VECTOR_SPURIOUS)},
        {"blk_missed_interrupts", blk.missed_interrupts},
        {"blk_requests", blk.requests},
        {"blk_completions", blk.completions},
        {"blk_in_flight", blk_sum_in_flight()},
        {"blk_notified", blk.notified},
        {"blk_not_notified", blk.notify_suppressed},
        {"blk_io_errors", blk.io_errors},
        {"blk_unsupported", blk.unsupported},
        {"blk_protocol", blk.protocol},
        {"blk_unknown", blk.unknown},
        {"blk_doubled", blk.doubled},
        {"blk_resets", blk.resets},
    };
    if (json)
        console_print("json {");
    print_figures(figures, ARRAY_SIZE(figures), "", json);
    if (json)
        console_print(",\"disks\":{");
    print_disks(json);
    if (json)
        console_print("}}\n");
    return SHELL_OK;
}

static bool canary_progress(u64 bytes)
{
    if (bytes % MIB(1024) == 0)
        console_print("canary: %llu MiB\n", (number)bytes >> 20);
    return !uart_interrupted();
}

static int set_canaries(u64 seed)
{
    u64 bytes = frames_set_canaries(seed, canary_progress);

    console_print("canary: %llu bytes of free memory filled, seed %llu\n", (number)bytes, (number)seed);
    return uart_interrupted() ? SHELL_INTERRUPTED : SHELL_OK;
}

static int check_canaries(bool seeded, u64 seed)
{
    u64 changed;
    u64 bytes;

    if (seeded && seed != frames_get_canary_seed()) {
        console_print("canary: was set with seed %llu\n", (number)frames_get_canary_seed());
        return SHELL_USAGE;
    }
    bytes = frames_check_canaries(&changed, canary_progress);
    if (uart_interrupted())
        return SHELL_INTERRUPTED;
    if (bytes == 0) {
        console_print("canary: none was set\n");
        return SHELL_FAILED;
    }
    console_print("canary: %llu bytes compared, %llu words changed\n", (number)bytes, (number)changed);
    return changed == 0 ? SHELL_OK : SHELL_FAILED;
}

int command_canary(struct args *args)
{
    u64 seed = 1;

    if (!args_check(args, 1, 2))
        return SHELL_USAGE;
    bool seeded = args_number(args, 1, &seed);
    if (args->count == 1 || seeded) {
        if (strcmp(args->value[0], "set") == 0)
            return set_canaries(seed);
        if (strcmp(args->value[0], "check") == 0)
            return check_canaries(seeded, seed);
    }
    console_print("usage: %s\n", args->usage);
    return SHELL_USAGE;
}

int command_sleep(struct args *args)
{
    u64 seconds;

    if (!args_check(args, 1, 1))
        return SHELL_USAGE;
    if (!args_number(args, 0, &seconds) || seconds > 1000000) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    return console_sleep(seconds * 1000000) ? SHELL_OK : SHELL_INTERRUPTED;
}

int command_reboot(struct args *args)
{
    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    console_print("guestos: reboot\n");
    acpi_reset();
    console_print("reboot: the machine goes on\n");
    return SHELL_FAILED;
}

int command_poweroff(struct args *args)
{
    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    console_print("guestos: power off\n");
    acpi_power_off();
    console_sleep(1000000); /* it may take a moment */
    console_print("poweroff: the machine goes on\n");
    return SHELL_FAILED;
}
