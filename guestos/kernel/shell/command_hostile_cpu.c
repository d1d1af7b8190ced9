/* hostile cpu: run cases against the CPU, say for each what came of its attempts, and in the end how many were wrong.
 */
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/hostile/case.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/string.h"

static const struct cpu_case *const tables[] = {case_sweeps, case_instructions, case_registers, case_traps, case_fatal};
static u32 passed, failed;

static void list_all(void)
{
    for (u32 t = 0; t < ARRAY_SIZE(tables); t++)
        for (const struct cpu_case *c = tables[t]; c->name != NULL; c++)
            console_print("%-24s %s%s\n", c->name, tables[t] == case_fatal ? "(alone) " : "", c->what);
}

static void print_tally(void)
{
    for (u32 outcome = 0; outcome < ATTEMPT_OUTCOMES; outcome++)
        if (attempt_tally(outcome) != 0)
            console_print(", %llu %s", (unsigned long long)attempt_tally(outcome), attempt_name(outcome));
    console_print("\n");
}

static void run_case(const struct cpu_case *c, bool alone)
{
    if (alone)
        console_print("hostile cpu %s: goes\n", c->name); /* it may be the last that this machine says */
    attempt_tally_clear();
    const char *wrong = c->run != NULL ? c->run() : case_run_code(c);
    if (wrong == NULL)
        passed++;
    else
        failed++;
    console_print("hostile cpu %s: %s%s", c->name, wrong == NULL ? "ok" : "FAILED: ", wrong == NULL ? "" : wrong);
    print_tally();
}

/* Run the cases called `name`, or all that come back. Returns how many there are. */
static u32 run_named(const char *name)
{
    u32 count = 0;

    for (u32 t = 0; t < ARRAY_SIZE(tables); t++) {
        bool alone = tables[t] == case_fatal;
        for (const struct cpu_case *c = tables[t]; c->name != NULL && !uart_interrupted(); c++) {
            if (strcmp(name, c->name) != 0 && (alone || strcmp(name, "all") != 0))
                continue;
            run_case(c, alone);
            count++;
        }
    }
    return count;
}

int command_hostile_cpu(struct args *args)
{
    args_take_number(args, "seed", &case_seed);
    if (!args_check(args, 1, ARGS_MAX))
        return SHELL_USAGE;
    if (strcmp(args->value[0], "list") == 0) {
        list_all();
        return SHELL_OK;
    }
    attempt_init();
    passed = failed = 0;
    for (int i = 0; i < args->count && !uart_interrupted(); i++) {
        if (run_named(args->value[i]) != 0 || uart_interrupted())
            continue;
        console_print("hostile cpu: no case '%s'; try hostile cpu list\n", args->value[i]);
        return SHELL_USAGE;
    }
    console_print("hostile cpu: %u passed, %u failed\n", passed, failed);
    return uart_interrupted() ? SHELL_INTERRUPTED : failed != 0 ? SHELL_FAILED : SHELL_OK;
}
