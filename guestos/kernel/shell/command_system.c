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
#include "shared/lib/string.h"

typedef unsigned long long number; /* what %llu takes */

struct figure {
    const char *name;
    u64 value;
};

static void print_figures(const struct figure *figure, u32 count, bool json)
{
    if (json)
        console_print("json {");
    for (u32 i = 0; i < count; i++) {
        if (json)
            console_print("%s\"%s\":%llu", i == 0 ? "" : ",", figure[i].name, (number)figure[i].value);
        else
            console_print("%-20s %llu\n", figure[i].name, (number)figure[i].value);
    }
    if (json)
        console_print("}\n");
}

int command_stat(struct args *args)
{
    const struct blk_counters *blk = blk_get_counters();
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
        {"blk_interrupts", interrupt_count(VECTOR_BLK_QUEUE)},
        {"blk_config_interrupts", interrupt_count(VECTOR_BLK_CONFIG)},
        {"spurious_interrupts", interrupt_count(VECTOR_SPURIOUS)},
        {"blk_missed_interrupts", blk->missed_interrupts},
        {"blk_requests", blk->requests},
        {"blk_completions", blk->completions},
        {"blk_in_flight", blk_in_flight()},
        {"blk_notified", blk->notified},
        {"blk_not_notified", blk->notify_suppressed},
        {"blk_io_errors", blk->io_errors},
        {"blk_unsupported", blk->unsupported},
        {"blk_protocol", blk->protocol},
        {"blk_unknown", blk->unknown},
        {"blk_doubled", blk->doubled},
        {"blk_resets", blk->resets},
    };
    print_figures(figures, ARRAY_SIZE(figures), json);
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
