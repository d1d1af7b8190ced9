/* blk load: run the verifying load and report. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/load.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"

#define DEFAULT_SECTORS (MIB(32) / VIRTIO_BLK_SECTOR)
#define PROGRESS_US 1000000u

enum load_phase { PHASE_FILL, PHASE_RANDOM, PHASE_FINAL };

struct load {
    struct load_region region;
    u64 depth, seconds, count;
    bool final, quiet, can_flush;
    enum load_phase phase;
    u64 next_sector; /* of the fill and the final check */
    u32 busy;        /* requests in flight that are not lost */
    u64 requests, completed, reads, writes, flushes, bytes;
    u64 io_errors, mismatches, lost, aborted;
    u64 last_completion_us, max_stall_us;
    struct blk_counters before;
};

static struct load load;
static struct load_slot slots[LOAD_MAX_DEPTH];

static void on_done(struct blk_request *request)
{
    struct load_slot *slot = request->context;
    u64 now = clock_us(), stall = now - load.last_completion_us;

    load.max_stall_us = stall > load.max_stall_us ? stall : load.max_stall_us;
    load.last_completion_us = now;
    load.completed++;
    load.io_errors += request->result == BLK_IO_ERROR || request->result == BLK_UNSUPPORTED;
    load.aborted += request->result == BLK_ABORTED;
    if (request->result == BLK_OK) {
        load.reads += slot->kind == LOAD_READ;
        load.writes += slot->kind == LOAD_WRITE;
        load.flushes += slot->kind == LOAD_FLUSH;
        load.bytes += request->data_bytes;
    }
    load.mismatches += load_finish(&load.region, slot);
    if (slot->lost)
        slot->lost = false; /* late is not lost in the data, but it stays counted */
    else
        load.busy--;
    slot->idle = true;
}

/* Decide what the slot does next in the present phase. False: nothing now. */
static bool plan(struct load_slot *slot)
{
    if (load.phase == PHASE_RANDOM)
        return load_plan_random(&load.region, slot, load.can_flush);
    u64 left = load.region.sectors - load.next_sector;
    if (left == 0)
        return false;
    u32 sectors = left < load.region.largest ? (u32)left : load.region.largest;
    load_plan_fixed(&load.region, slot, load.phase == PHASE_FILL ? LOAD_WRITE : LOAD_READ, load.next_sector, sectors);
    return true;
}

static status_t submit_all(u64 limit)
{
    status_t status = OK;

    for (u32 i = 0; i < load.depth && status == OK && load.requests < limit; i++) {
        struct load_slot *slot = &slots[i];
        if (!slot->idle || !plan(slot))
            continue;
        status = blk_submit(&slot->request);
        if (status != OK) {
            load_cancel(&load.region, slot);
            break;
        }
        if (load.busy == 0)
            load.last_completion_us = clock_us(); /* nothing was owed before: no stall */
        load.next_sector += load.phase == PHASE_RANDOM ? 0 : slot->sectors;
        slot->idle = false;
        slot->started_us = clock_us();
        load.requests++;
        load.busy++;
    }
    blk_kick();
    return status == ERR_NO_SPACE && load.busy != 0 ? OK : status;
}

static void count_lost(void)
{
    u64 now = clock_us();

    for (u32 i = 0; i < load.depth; i++) {
        if (slots[i].idle || slots[i].lost || now - slots[i].started_us < REQUEST_TIMEOUT_US)
            continue;
        slots[i].lost = true;
        load.lost++;
        load.busy--;
        console_print("load: request for sector %llu (type %u) was not completed within 60 s\n",
                      (unsigned long long)slots[i].request.sector, slots[i].request.type);
    }
}

static void report(bool final)
{
    const struct blk_counters *now = blk_get_counters();

    if (!final && load.quiet)
        return;
    console_print(
        "%s {\"requests\":%llu,\"completed\":%llu,\"reads\":%llu,\"writes\":%llu,\"flushes\":%llu,"
        "\"bytes\":%llu,\"io_errors\":%llu,\"mismatches\":%llu,\"doubled\":%llu,\"unknown\":%llu,"
        "\"protocol\":%llu,\"lost\":%llu,\"aborted\":%llu,\"missed_interrupts\":%llu,\"max_stall_us\":%llu}\n",
        final ? "json" : "progress", (unsigned long long)load.requests, (unsigned long long)load.completed,
        (unsigned long long)load.reads, (unsigned long long)load.writes, (unsigned long long)load.flushes,
        (unsigned long long)load.bytes, (unsigned long long)load.io_errors, (unsigned long long)load.mismatches,
        (unsigned long long)(now->doubled - load.before.doubled),
        (unsigned long long)(now->unknown - load.before.unknown),
        (unsigned long long)(now->protocol - load.before.protocol), (unsigned long long)load.lost,
        (unsigned long long)load.aborted, (unsigned long long)(now->missed_interrupts - load.before.missed_interrupts),
        (unsigned long long)load.max_stall_us);
}

/* Run one phase until its end; everything is back (or lost) when it returns. */
static int run_phase(enum load_phase phase, u64 end_us, u64 limit)
{
    u64 progress = clock_us() + PROGRESS_US;
    int result = SHELL_OK;

    load.phase = phase;
    load.next_sector = 0;
    for (;;) {
        if (result == SHELL_OK && clock_us() < end_us && submit_all(limit) != OK)
            result = SHELL_FAILED;
        if (load.busy == 0)
            return result;
        blk_wait(clock_us() + PROGRESS_US / 10);
        if (uart_interrupted()) {
            uart_clear_interrupted();
            result = SHELL_INTERRUPTED;
        }
        count_lost();
        if (clock_us() >= progress) {
            progress = clock_us() + PROGRESS_US;
            report(false);
        }
    }
}

static bool parse(struct args *args)
{
    u64 sectors = DEFAULT_SECTORS;

    load = (struct load){.depth = 32, .seconds = 10};
    bool seeded = args_take_number(args, "--seed", &load.region.seed);
    args_take_number(args, "--depth", &load.depth);
    bool timed = args_take_number(args, "--seconds", &load.seconds);
    args_take_number(args, "--count", &load.count);
    args_take_number(args, "--lba", &load.region.lba);
    bool sized = args_take_number(args, "--sectors", &sectors);
    load.final = args_take_flag(args, "--final");
    load.quiet = args_take_flag(args, "--quiet");
    if (!args_check(args, 0, 0))
        return false;
    if (!seeded || load.depth == 0 || load.depth > LOAD_MAX_DEPTH || sectors == 0 || (timed && load.count != 0)) {
        console_print("usage: %s\n       depth: 1 to %u\n", args->usage, LOAD_MAX_DEPTH);
        return false;
    }
    u64 disk = blk_get_info()->sectors;
    if (!sized && load.region.lba < disk && sectors > disk - load.region.lba)
        sectors = disk - load.region.lba;
    load.region.sectors = sectors;
    load.region.random = load.region.seed;
    return true;
}

/* Buffers of one size for all slots: 1 MiB of data when the arena and the region have room for that many. */
static bool prepare(void)
{
    struct load_region *region = &load.region;

    load.can_flush = (blk_get_info()->features & VIRTIO_BLK_F_FLUSH) != 0;
    region->largest = LOAD_MAX_SECTORS;
    while (region->largest > 1 && (LOAD_SLOT_BYTES(region->largest) * load.depth > arena_free() - PAGE_SIZE ||
                                   region->largest > region->sectors))
        region->largest /= 2;
    const struct blk_info *info = blk_get_info();
    u64 segments = info->max_segments < LOAD_SEGMENTS ? info->max_segments : LOAD_SEGMENTS;
    u64 limit = (info->max_segment_bytes & ~3u) * segments;
    while (region->largest > 1 && (u64)region->largest * VIRTIO_BLK_SECTOR > limit)
        region->largest /= 2;
    for (u32 i = 0; i < load.depth; i++) {
        slots[i] = (struct load_slot){.idle = true, .request = {.done = on_done, .context = &slots[i]}};
        slots[i].buffer = arena_alloc(LOAD_SLOT_BYTES(region->largest), PAGE_SIZE);
        if (slots[i].buffer == NULL)
            return false;
    }
    return load_region_open(region);
}

static bool is_clean(void)
{
    const struct blk_counters *now = blk_get_counters();

    return load.io_errors == 0 && load.mismatches == 0 && load.lost == 0 && load.aborted == 0 &&
           now->doubled == load.before.doubled && now->unknown == load.before.unknown &&
           now->protocol == load.before.protocol && now->missed_interrupts == load.before.missed_interrupts;
}

int command_blk_load(struct args *args)
{
    if (!parse(args))
        return SHELL_USAGE;
    if (!stream_check_range(load.region.lba, load.region.sectors))
        return SHELL_FAILED;
    if (!prepare()) {
        console_print("load: no memory for depth %llu\n", (unsigned long long)load.depth);
        return SHELL_FAILED;
    }
    load.before = *blk_get_counters();
    console_print("load: seed %llu, sectors %llu + %llu, depth %llu, requests up to %u bytes\n",
                  (unsigned long long)load.region.seed, (unsigned long long)load.region.lba,
                  (unsigned long long)load.region.sectors, (unsigned long long)load.depth,
                  load.region.largest * VIRTIO_BLK_SECTOR);
    int status = run_phase(PHASE_FILL, ~0ull, ~0ull); /* so that every later read can be checked */
    u64 end = load.count != 0 ? ~0ull : clock_us() + load.seconds * 1000000;
    if (status == SHELL_OK)
        status = run_phase(PHASE_RANDOM, end, load.count != 0 ? load.requests + load.count : ~0ull);
    if (status == SHELL_OK && load.final)
        status = run_phase(PHASE_FINAL, ~0ull, ~0ull);
    report(true);
    /* Lost requests end here, before their slots' region is gone; the shell would find nothing in flight any more. */
    if (blk_in_flight() != 0 && blk_restart() != OK)
        console_print("load: the device does not come back\n");
    load_region_close(&load.region);
    return status == SHELL_OK && !is_clean() ? SHELL_FAILED : status;
}
