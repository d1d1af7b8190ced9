/* blk load: run the verifying load, on several disks at once if wanted, and report. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/latency.h"
#include "guestos/kernel/shell/load.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define DEFAULT_SECTORS (MIB(32) / VIRTIO_BLK_SECTOR)
#define PROGRESS_US 1000000u

typedef unsigned long long number; /* what %llu takes */

enum load_phase { PHASE_FILL, PHASE_RANDOM, PHASE_FINAL };

struct load_figures {
    u64 requests, completed, reads, writes, flushes, bytes;
    u64 io_errors, mismatches, doubled, unknown, protocol, implausible, lost, aborted, missed_interrupts;
    u64 max_stall_us;
};

/* The load on one disk. */
struct load_disk {
    struct blk *disk;
    struct load_region region;
    struct load_slot slots[LOAD_MAX_DEPTH];
    bool can_flush;
    u64 next_sector; /* of the fill and the final check */
    u64 filled;      /* requests that the fill took */
    u32 busy;        /* requests in flight that are not lost */
    u64 last_completion_us;
    struct load_figures figures;
    struct latency latency; /* of the random requests: the others are all of one size */
    struct blk_counters before;
};

static struct load_disk disks[BLK_MAX_DISKS];
static struct {
    u32 disks; /* that many of `disks` take part */
    u64 seed, lba, sectors, depth, largest, seconds, count;
    bool sized, final, quiet;
    enum load_phase phase;
} load;

static void on_done(struct blk_request *request)
{
    struct load_slot *slot = request->context;
    struct load_disk *disk = slot->owner;
    struct load_figures *figures = &disk->figures;
    u64 now = clock_us(), stall = now - disk->last_completion_us;

    figures->max_stall_us = stall > figures->max_stall_us ? stall : figures->max_stall_us;
    disk->last_completion_us = now;
    if (load.phase == PHASE_RANDOM)
        latency_add(&disk->latency, clock_tsc_to_ns(request->completed_tsc - request->submitted_tsc));
    figures->completed++;
    figures->io_errors += request->result == BLK_IO_ERROR || request->result == BLK_UNSUPPORTED;
    figures->aborted += request->result == BLK_ABORTED;
    if (request->result == BLK_OK) {
        figures->reads += slot->kind == LOAD_READ;
        figures->writes += slot->kind == LOAD_WRITE;
        figures->flushes += slot->kind == LOAD_FLUSH;
        figures->bytes += request->data_bytes;
    }
    figures->mismatches += load_finish(&disk->region, slot);
    if (slot->lost)
        slot->lost = false; /* late is not lost in the data, but it stays counted */
    else
        disk->busy--;
    slot->idle = true;
}

/* Decide what the slot does next in the present phase. False: nothing now. */
static bool plan(struct load_disk *disk, struct load_slot *slot)
{
    struct load_region *region = &disk->region;

    if (load.phase == PHASE_RANDOM)
        return load_plan_random(region, slot, disk->can_flush);
    u64 left = region->sectors - disk->next_sector;
    if (left == 0)
        return false;
    u32 sectors = left < region->largest ? (u32)left : region->largest;
    load_plan_fixed(region, slot, load.phase == PHASE_FILL ? LOAD_WRITE : LOAD_READ, disk->next_sector, sectors);
    return true;
}

static status_t submit_all(struct load_disk *disk, u64 limit)
{
    status_t status = OK;

    for (u32 i = 0; i < load.depth && status == OK && disk->figures.requests < limit; i++) {
        struct load_slot *slot = &disk->slots[i];
        if (!slot->idle || !plan(disk, slot))
            continue;
        status = blk_submit(disk->disk, &slot->request);
        if (status != OK) {
            load_cancel(&disk->region, slot);
            break;
        }
        if (disk->busy == 0)
            disk->last_completion_us = clock_us(); /* nothing was owed before: no stall */
        disk->next_sector += load.phase == PHASE_RANDOM ? 0 : slot->sectors;
        slot->idle = false;
        slot->started_us = clock_us();
        disk->figures.requests++;
        disk->busy++;
    }
    blk_kick(disk->disk);
    return status == ERR_NO_SPACE && disk->busy != 0 ? OK : status;
}

static void count_lost(struct load_disk *disk)
{
    u64 now = clock_us();

    for (u32 i = 0; i < load.depth; i++) {
        struct load_slot *slot = &disk->slots[i];
        if (slot->idle || slot->lost || now - slot->started_us < REQUEST_TIMEOUT_US)
            continue;
        slot->lost = true;
        disk->figures.lost++;
        disk->busy--;
        console_print("load: %s: request for sector %llu (type %u) was not completed within 60 s\n",
                      blk_get_info(disk->disk)->name, (number)slot->request.sector, slot->request.type);
    }
}

/* With what the driver has counted since the load began. */
static struct load_figures figures_of(const struct load_disk *disk)
{
    struct load_figures figures = disk->figures;
    struct blk_counters now = blk_get_counters(disk->disk);

    figures.doubled = now.doubled - disk->before.doubled;
    figures.unknown = now.unknown - disk->before.unknown;
    figures.protocol = now.protocol - disk->before.protocol;
    figures.implausible = now.implausible - disk->before.implausible;
    figures.missed_interrupts = now.missed_interrupts - disk->before.missed_interrupts;
    return figures;
}

static struct load_figures sum_figures(void)
{
    struct load_figures sum = {0};
    u64 max_stall_us = 0;

    for (u32 i = 0; i < load.disks; i++) {
        struct load_figures figures = figures_of(&disks[i]);
        for (u32 at = 0; at < sizeof(sum) / sizeof(u64); at++)
            ((u64 *)&sum)[at] += ((const u64 *)&figures)[at]; /* all members are u64 */
        max_stall_us = figures.max_stall_us > max_stall_us ? figures.max_stall_us : max_stall_us;
    }
    sum.max_stall_us = max_stall_us;
    return sum;
}

/* The members of an object, without its braces. */
static void print_figures(const struct load_figures *f, const struct latency *latency)
{
    console_print(
        "\"requests\":%llu,\"completed\":%llu,\"reads\":%llu,\"writes\":%llu,\"flushes\":%llu,\"bytes\":%llu,",
        (number)f->requests, (number)f->completed, (number)f->reads, (number)f->writes, (number)f->flushes,
        (number)f->bytes);
    console_print("\"io_errors\":%llu,\"mismatches\":%llu,\"doubled\":%llu,\"unknown\":%llu,\"protocol\":%llu,"
                  "\"implausible\":%llu,\"lost\":%llu,\"aborted\":%llu,\"missed_interrupts\":%llu,",
                  (number)f->io_errors, (number)f->mismatches, (number)f->doubled, (number)f->unknown,
                  (number)f->protocol, (number)f->implausible, (number)f->lost, (number)f->aborted,
                  (number)f->missed_interrupts);
    console_print("\"max_stall_us\":%llu,\"p50_us\":%llu,\"p99_us\":%llu,\"max_us\":%llu", (number)f->max_stall_us,
                  (number)latency_percentile(latency, 500) / 1000, (number)latency_percentile(latency, 990) / 1000,
                  (number)latency->max_ns / 1000);
}

static void report(bool final)
{
    static struct latency all;
    struct load_figures sum = sum_figures();

    if (!final && load.quiet)
        return;
    memset(&all, 0, sizeof(all));
    for (u32 i = 0; i < load.disks; i++)
        latency_merge(&all, &disks[i].latency);
    console_print(final ? "json {" : "progress {");
    print_figures(&sum, &all);
    for (u32 i = 0; final && i < load.disks; i++) {
        struct load_figures figures = figures_of(&disks[i]);
        console_print("%s\"%s\":{", i == 0 ? ",\"disks\":{" : ",", blk_get_info(disks[i].disk)->name);
        print_figures(&figures, &disks[i].latency);
        console_print("}");
    }
    console_print(final ? "}}\n" : "}\n");
}

/* Run one phase until its end; everything is back (or lost) when it returns. limit: of random requests a disk. */
static int run_phase(enum load_phase phase, u64 end_us, u64 limit)
{
    u64 progress = clock_us() + PROGRESS_US;
    int result = SHELL_OK;

    load.phase = phase;
    for (u32 i = 0; i < load.disks; i++)
        disks[i].next_sector = 0;
    for (;;) {
        u32 busy = 0;
        for (u32 i = 0; i < load.disks; i++) {
            u64 most = limit == ~0ull ? limit : disks[i].filled + limit;
            if (result == SHELL_OK && clock_us() < end_us && submit_all(&disks[i], most) != OK)
                result = SHELL_FAILED;
            busy += disks[i].busy;
        }
        if (busy == 0)
            return result;
        blk_wait(clock_us() + PROGRESS_US / 10);
        if (uart_interrupted()) {
            uart_clear_interrupted();
            result = SHELL_INTERRUPTED;
        }
        for (u32 i = 0; i < load.disks; i++)
            count_lost(&disks[i]);
        if (clock_us() >= progress) {
            progress = clock_us() + PROGRESS_US;
            report(false);
        }
    }
}

static bool parse(struct args *args)
{
    u64 size = LOAD_MAX_SECTORS * VIRTIO_BLK_SECTOR;

    memset(&load, 0, sizeof(load));
    load.depth = 32;
    load.seconds = 10;
    load.sectors = DEFAULT_SECTORS;
    bool seeded = args_take_number(args, "--seed", &load.seed);
    args_take_number(args, "--depth", &load.depth);
    args_take_number(args, "--size", &size);
    bool timed = args_take_number(args, "--seconds", &load.seconds);
    args_take_number(args, "--count", &load.count);
    args_take_number(args, "--lba", &load.lba);
    load.sized = args_take_number(args, "--sectors", &load.sectors);
    load.final = args_take_flag(args, "--final");
    load.quiet = args_take_flag(args, "--quiet");
    load.largest = size / VIRTIO_BLK_SECTOR;
    if (!args_check(args, 0, 0))
        return false;
    if (seeded && load.depth != 0 && load.depth <= LOAD_MAX_DEPTH && load.sectors != 0 && (!timed || load.count == 0) &&
        load.largest != 0 && load.largest <= LOAD_MAX_SECTORS)
        return true;
    console_print("usage: %s\n       depth: 1 to %u, size: up to 1M\n", args->usage, LOAD_MAX_DEPTH);
    return false;
}

static bool takes_part(const struct blk *disk)
{
    for (u32 i = 0; i < load.disks; i++)
        if (disks[i].disk == disk)
            return true;
    return false;
}

/* Names with commas in between, each once. */
static bool choose_disks(const char *names)
{
    char name[16];

    while (*names != '\0') {
        u32 length = 0;
        for (; *names != '\0' && *names != ','; names++)
            if (length + 1 < sizeof(name))
                name[length++] = *names;
        name[length] = '\0';
        names += *names == ',';
        struct blk *disk = stream_find_disk(name);
        if (disk == NULL)
            return false;
        if (takes_part(disk))
            continue;
        memset(&disks[load.disks], 0, sizeof(disks[0]));
        disks[load.disks++].disk = disk;
    }
    return load.disks != 0;
}

/* The region, and the most that one request may be: what the device, the arena and the region have room for. */
static bool open_region(struct load_disk *disk)
{
    const struct blk_info *info = blk_get_info(disk->disk);
    struct load_region *region = &disk->region;
    u64 sectors = load.sectors, room = (arena_free() - PAGE_SIZE) / (load.disks - (u32)(disk - disks));
    u64 segments = info->max_segments < LOAD_SEGMENTS ? info->max_segments : LOAD_SEGMENTS;
    u64 limit = (info->max_segment_bytes & ~3u) * segments;

    if (!load.sized && load.lba < info->sectors && sectors > info->sectors - load.lba)
        sectors = info->sectors - load.lba;
    if (!stream_check_range(disk->disk, load.lba, sectors))
        return false;
    *region = (struct load_region){.disk = disk->disk,
                                   .seed = load.seed,
                                   .lba = load.lba,
                                   .sectors = sectors,
                                   .largest = (u32)load.largest,
                                   .random = load.seed};
    while (region->largest > 1 &&
           (LOAD_SLOT_BYTES(region->largest) * load.depth > room || region->largest > region->sectors ||
            (u64)region->largest * VIRTIO_BLK_SECTOR > limit))
        region->largest /= 2;
    return true;
}

/* Buffers of one size for all slots of a disk. */
static bool prepare(struct load_disk *disk)
{
    disk->can_flush = (blk_get_info(disk->disk)->features & VIRTIO_BLK_F_FLUSH) != 0;
    disk->before = blk_get_counters(disk->disk);
    for (u32 i = 0; i < load.depth; i++) {
        struct load_slot *slot = &disk->slots[i];
        *slot = (struct load_slot){.idle = true, .owner = disk, .request = {.done = on_done, .context = slot}};
        slot->buffer = arena_alloc(LOAD_SLOT_BYTES(disk->region.largest), PAGE_SIZE);
        if (slot->buffer == NULL)
            return false;
    }
    return load_region_open(&disk->region);
}

/* True when all disks are ready; else those that are have been closed again. */
static bool prepare_all(void)
{
    for (u32 i = 0; i < load.disks; i++) {
        bool good = open_region(&disks[i]);
        if (good && prepare(&disks[i]))
            continue;
        if (good)
            console_print("load: no memory for depth %llu on %s\n", (number)load.depth,
                          blk_get_info(disks[i].disk)->name);
        while (i > 0)
            load_region_close(&disks[--i].region);
        return false;
    }
    return true;
}

static bool is_clean(void)
{
    struct load_figures sum = sum_figures();

    return (sum.io_errors | sum.mismatches | sum.lost | sum.aborted | sum.doubled | sum.unknown | sum.protocol |
            sum.missed_interrupts) == 0;
}

static void announce(const struct load_disk *disk)
{
    console_print("load: %s: seed %llu, sectors %llu + %llu, depth %llu, requests up to %u bytes\n",
                  blk_get_info(disk->disk)->name, (number)load.seed, (number)load.lba, (number)disk->region.sectors,
                  (number)load.depth, disk->region.largest * VIRTIO_BLK_SECTOR);
}

int command_blk_load(struct args *args)
{
    const char *names = stream_take_disk(args);

    if (!parse(args))
        return SHELL_USAGE;
    if (!choose_disks(names) || !prepare_all())
        return SHELL_FAILED;
    for (u32 i = 0; i < load.disks; i++)
        announce(&disks[i]);
    int status = run_phase(PHASE_FILL, ~0ull, ~0ull); /* so that every later read can be checked */
    for (u32 i = 0; i < load.disks; i++)
        disks[i].filled = disks[i].figures.requests;
    u64 end = load.count != 0 ? ~0ull : clock_us() + load.seconds * 1000000;
    if (status == SHELL_OK)
        status = run_phase(PHASE_RANDOM, end, load.count != 0 ? load.count : ~0ull);
    /* Ctrl-C ends the fill or the random part early; the check that was asked for follows all the same. */
    if ((status == SHELL_OK || status == SHELL_INTERRUPTED) && load.final)
        status = run_phase(PHASE_FINAL, ~0ull, ~0ull);
    report(true);
    for (u32 i = 0; i < load.disks; i++) {
        /* Lost requests end here, before their slots' region is gone; the shell would find nothing in flight any more.
         */
        if (blk_in_flight(disks[i].disk) != 0 && blk_restart(disks[i].disk) != OK)
            console_print("load: %s does not come back\n", blk_get_info(disks[i].disk)->name);
        load_region_close(&disks[i].region);
    }
    return status == SHELL_OK && !is_clean() ? SHELL_FAILED : status;
}
