/*
 * hostile console: what a hostile guest does to its control port. The device has to refuse what breaks a rule until it
 * is reset, and to answer an ordinary command afterwards; whether anybody else has suffered is for the other side to
 * see.
 */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_console.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/drvctl.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/string.h"
#include "shared/virtio/console.h"

#define SIZE 64u
#define ANSWER_US 1000000u /* how long the device may take to say that a rule is broken */
#define STARTED (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK)

static const struct virtio_device *device;
static struct ring {
    struct virtq_desc *table;
    struct virtq_avail *avail;
    struct virtq_used *used;
    u16 notify_off;
} rings[VIRTIO_CONSOLE_QUEUES];
static char *text;

static bool take_memory(void)
{
    for (u32 i = 0; i < VIRTIO_CONSOLE_QUEUES; i++) {
        rings[i].table = arena_alloc(PAGE_SIZE, PAGE_SIZE);
        rings[i].avail = arena_alloc(PAGE_SIZE, PAGE_SIZE);
        rings[i].used = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    }
    text = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    return text != NULL;
}

/* Live, with empty rings and no buffer for answers. */
static bool start(void)
{
    u64 features;

    device = vcon_release_device();
    if (device == NULL || virtio_negotiate(device, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC, &features) != OK)
        return false;
    for (u16 i = 0; i < VIRTIO_CONSOLE_QUEUES; i++) {
        memset(rings[i].table, 0, PAGE_SIZE);
        memset(rings[i].avail, 0, PAGE_SIZE);
        memset(rings[i].used, 0, PAGE_SIZE);
        VIRTIO_COMMON_WRITE(device, queue_select, i);
        VIRTIO_COMMON_WRITE(device, queue_size, SIZE);
        VIRTIO_COMMON_WRITE(device, queue_msix_vector, VIRTIO_MSI_NO_VECTOR);
        rings[i].notify_off = (u16)VIRTIO_COMMON_READ(device, queue_notify_off);
        virtio_enable_queue(device, (u64)rings[i].table, (u64)rings[i].avail, (u64)rings[i].used);
    }
    VIRTIO_COMMON_WRITE(device, device_status, STARTED | VIRTIO_STATUS_DRIVER_OK);
    return true;
}

static void submit(u16 queue, u16 idx)
{
    __atomic_store_n(&rings[queue].avail->idx, idx, __ATOMIC_SEQ_CST);
    virtio_notify(device, rings[queue].notify_off, queue);
}

static bool wants_reset(void)
{
    for (u64 deadline = clock_us() + ANSWER_US; clock_us() < deadline && !uart_interrupted(); console_sleep(1000))
        if ((VIRTIO_COMMON_READ(device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0)
            return true;
    return false;
}

/* A transmit chain that breaks a rule. */
static const struct rule {
    const char *name;
    struct virtq_desc desc; /* descriptor 0; an address of 0 stands for a page of ours */
    u16 idx;                /* of the available ring */
} rules[] = {
    {"chain-loop", {.len = 8, .flags = VIRTQ_DESC_F_NEXT, .next = 0}, 1},
    {"next-out-of-range", {.len = 8, .flags = VIRTQ_DESC_F_NEXT, .next = SIZE}, 1},
    {"outside-memory", {.addr = 1ull << 46, .len = 8}, 1},
    {"address-wraps", {.addr = ~0ull - 3, .len = 8}, 1},
    {"longer-than-memory", {.len = ~0u}, 1},
    {"empty-segment", {.len = 0}, 1},
    {"indirect-odd-length", {.len = 17, .flags = VIRTQ_DESC_F_INDIRECT}, 1},
    {"indirect-outside", {.addr = 1ull << 46, .len = 16, .flags = VIRTQ_DESC_F_INDIRECT}, 1},
    {"index-jumps", {.len = 8}, SIZE + 1},
};

static void ignore(const char *line, void *context)
{
    (void)line;
    (void)context;
}

/* Why the port does not work as before, or NULL. */
static const char *check_works(void)
{
    char why[64];

    if (vcon_restart() != OK)
        return "the device does not start again";
    return drvctl_ask("status", ignore, NULL, why, sizeof(why)) == OK ? NULL : "`status` fails afterwards";
}

static const char *break_rule(const struct rule *rule)
{
    if (!start())
        return "the device does not start";
    rings[VIRTIO_CONSOLE_TRANSMIT].table[0] = rule->desc;
    if (rule->desc.addr == 0)
        rings[VIRTIO_CONSOLE_TRANSMIT].table[0].addr = (u64)text;
    submit(VIRTIO_CONSOLE_TRANSMIT, rule->idx);
    if (!wants_reset())
        return "the device does not mind";
    return check_works();
}

/* Long answers are ordered without end, no buffer is there for any, and each command is announced a hundred times. */
static const char *flood(u64 seconds)
{
    static const char command[] = "stats\nevents\nfaults\nstatus\n";
    u16 idx = 0;

    if (!start())
        return "the device does not start";
    for (u32 i = 0; i < SIZE; i++)
        rings[VIRTIO_CONSOLE_TRANSMIT].table[i] = (struct virtq_desc){.addr = (u64)text, .len = sizeof(command) - 1};
    for (u16 i = 0; i < SIZE; i++)
        rings[VIRTIO_CONSOLE_TRANSMIT].avail->ring[i] = i;
    memcpy(text, command, sizeof(command) - 1);
    for (u64 deadline = clock_us() + seconds * 1000000; clock_us() < deadline && !uart_interrupted();) {
        u16 used = __atomic_load_n(&rings[VIRTIO_CONSOLE_TRANSMIT].used->idx, __ATOMIC_ACQUIRE);
        idx = (u16)(used + SIZE);
        submit(VIRTIO_CONSOLE_TRANSMIT, idx);
    }
    return check_works();
}

/* The same with room for all answers: what a guest can ask for at most. */
static const char *devour(u64 seconds)
{
    char why[64];

    if (vcon_restart() != OK)
        return "the device does not start";
    for (u64 deadline = clock_us() + seconds * 1000000; clock_us() < deadline && !uart_interrupted();)
        if (drvctl_ask("stats", ignore, NULL, why, sizeof(why)) != OK)
            return "a command fails";
    return check_works();
}

int command_hostile_console(struct args *args)
{
    u64 seconds = 1, mark = arena_mark();
    u32 failed = 0;

    if (!args_check(args, 0, 1) || (args->count == 1 && !args_number(args, 0, &seconds)))
        return SHELL_USAGE;
    if (vcon_error() != OK || !take_memory()) {
        console_print("hostile: there is no control port, or no room in the I/O arena\n");
        return SHELL_FAILED;
    }
    for (u32 i = 0; i < ARRAY_SIZE(rules) + 2 && !uart_interrupted(); i++) {
        const char *name = i < ARRAY_SIZE(rules) ? rules[i].name : i == ARRAY_SIZE(rules) ? "flood" : "devour";
        const char *why = i < ARRAY_SIZE(rules)    ? break_rule(&rules[i])
                          : i == ARRAY_SIZE(rules) ? flood(seconds)
                                                   : devour(seconds);
        failed += why != NULL;
        console_print("hostile console %s: %s%s\n", name, why == NULL ? "ok" : "FAILED: ", why == NULL ? "" : why);
    }
    if (vcon_restart() != OK)
        failed++;
    arena_release(mark);
    console_print("hostile: %u failed\n", failed);
    return uart_interrupted() ? SHELL_INTERRUPTED : failed != 0 ? SHELL_FAILED : SHELL_OK;
}
