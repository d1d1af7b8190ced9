/* hostile: run probes; after each, reset the device and see that it works as before. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/probe.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define CHECK_SECTORS 8u

static u8 reference[CHECK_SECTORS * VIRTIO_BLK_SECTOR]; /* what the start of the disk holds */
static struct blk *disk;
static u32 passed, failed;

static void keep_data(void *context, u64 sector, u8 *buffer, u32 sectors)
{
    memcpy((u8 *)context + sector * VIRTIO_BLK_SECTOR, buffer, (u64)sectors * VIRTIO_BLK_SECTOR);
}

static bool read_start(u8 *into)
{
    u64 mark = arena_mark();
    u64 sectors = blk_get_info(disk)->sectors < CHECK_SECTORS ? blk_get_info(disk)->sectors : CHECK_SECTORS;
    struct stream stream = {.name = "hostile",
                            .disk = disk,
                            .sectors = sectors,
                            .request_bytes = VIRTIO_BLK_SECTOR,
                            .depth = CHECK_SECTORS,
                            .data = keep_data,
                            .context = into};
    int status = stream_run(&stream);

    arena_release(mark);
    return status == SHELL_OK;
}

/* Why the device does not work as it did before the probe, or NULL. */
static const char *check_works(void)
{
    static u8 now[sizeof(reference)];
    status_t status = blk_restart(disk);

    if (status != OK)
        return status_text(status);
    memset(now, 0, sizeof(now));
    if (!read_start(now))
        return "a normal read fails afterwards";
    return memcmp(now, reference, sizeof(now)) == 0 ? NULL : "a normal read gives other data afterwards";
}

static void run_probe(const struct probe_entry *entry)
{
    struct probe probe;
    u64 mark = arena_mark();
    const char *why = "no device or no arena memory";

    if (probe_open(&probe, disk))
        why = entry->run != NULL ? entry->run(&probe) : entry->expect(&probe, entry->break_rule);
    const char *after = check_works();
    arena_release(mark);
    if (why == NULL)
        why = after;
    if (why == NULL) {
        passed++;
        console_print("hostile %s: ok\n", entry->name);
    } else {
        failed++;
        console_print("hostile %s: FAILED: %s\n", entry->name, why);
    }
}

static const struct probe_entry *const tables[] = {probe_ring_entries, probe_driver_entries, probe_register_entries};

static void list_all(void)
{
    for (u32 t = 0; t < ARRAY_SIZE(tables); t++)
        for (const struct probe_entry *entry = tables[t]; entry->name != NULL; entry++)
            console_print("%-20s %s (VirtIO 1.2 %s: %s)\n", entry->name, entry->what, entry->section, entry->must);
}

/* Run the probes called `name`, or all. Returns how many there are. */
static u32 run_named(const char *name)
{
    u32 count = 0;

    for (u32 t = 0; t < ARRAY_SIZE(tables); t++) {
        for (const struct probe_entry *entry = tables[t]; entry->name != NULL && !uart_interrupted(); entry++) {
            if (strcmp(name, "all") != 0 && strcmp(name, entry->name) != 0)
                continue;
            run_probe(entry);
            count++;
        }
    }
    return count;
}

int command_hostile(struct args *args)
{
    if (args_take_flag(args, "cpu"))
        return command_hostile_cpu(args);
    if (args_take_flag(args, "console"))
        return command_hostile_console(args);
    const char *name = stream_take_disk(args);
    if (!args_check(args, 1, ARGS_MAX))
        return SHELL_USAGE;
    if (strcmp(args->value[0], "list") == 0) {
        list_all();
        return SHELL_OK;
    }
    disk = stream_find_disk(name);
    if (disk == NULL || !stream_check_range(disk, 0, 1) || !read_start(reference))
        return SHELL_FAILED;
    passed = failed = 0;
    for (int i = 0; i < args->count && !uart_interrupted(); i++) {
        if (run_named(args->value[i]) != 0 || uart_interrupted())
            continue;
        console_print("hostile: no probe '%s'; try hostile list\n", args->value[i]);
        return SHELL_USAGE;
    }
    console_print("hostile: %u passed, %u failed\n", passed, failed);
    return uart_interrupted() ? SHELL_INTERRUPTED : failed != 0 ? SHELL_FAILED : SHELL_OK;
}
