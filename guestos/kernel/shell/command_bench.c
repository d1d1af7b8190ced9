/* blk bench: throughput and latency with a constant number of requests in flight. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/latency.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define BENCH_MAX_DEPTH 128u
#define BENCH_MAX_SIZE MIB(1)
struct bench_mode {
    const char *name;
    bool write, random;
    u64 size; /* default */
};

struct bench_slot {
    struct blk_request request;
    struct blk_segment segment[BLK_MAX_SEGMENTS];
    u8 *buffer;
    bool idle;
};

struct bench {
    struct blk *disk;
    const struct bench_mode *mode;
    u64 size, depth, seconds, count, random;
    u64 next_sector;
    u64 issued, completed, errors;
    u64 elapsed_us;
    struct latency latency;
};

static const struct bench_mode modes[] = {
    {"read", false, false, MIB(1)},
    {"write", true, false, MIB(1)},
    {"randread", false, true, KIB(4)},
    {"randwrite", true, true, KIB(4)},
};
static struct bench_slot slots[BENCH_MAX_DEPTH];
static struct bench bench;

static void on_done(struct blk_request *request)
{
    struct bench_slot *slot = request->context;

    slot->idle = true;
    bench.completed++;
    bench.errors += request->result != BLK_OK;
    latency_add(&bench.latency, clock_tsc_to_ns(request->completed_tsc - request->submitted_tsc));
}

static status_t submit(struct bench_slot *slot)
{
    u64 sectors = bench.size / VIRTIO_BLK_SECTOR, places = blk_get_info(bench.disk)->sectors / sectors;
    u64 place = bench.mode->random ? mix_next(&bench.random) % places : bench.next_sector++ % places;

    u32 count = blk_cut_segments(bench.disk, slot->buffer, (u32)bench.size, slot->segment);
    slot->request = (struct blk_request){.type = bench.mode->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                                         .device_writes = !bench.mode->write,
                                         .sector = place * sectors,
                                         .segment = slot->segment,
                                         .segments = count,
                                         .done = on_done,
                                         .context = slot};
    status_t status = blk_submit(bench.disk, &slot->request);
    slot->idle = status != OK;
    bench.issued += status == OK;
    return status;
}

static int run(void)
{
    u64 start = clock_us(), end = bench.count != 0 ? ~0ull : start + bench.seconds * 1000000, progress = start;
    int result = SHELL_OK;

    for (;;) {
        bool more = result == SHELL_OK && clock_us() < end;
        for (u32 i = 0; i < bench.depth && more; i++)
            if (slots[i].idle && (bench.count == 0 || bench.issued < bench.count) && submit(&slots[i]) != OK)
                break;
        blk_kick(bench.disk);
        if (bench.issued == bench.completed)
            break;
        u64 before = bench.completed;
        for (u64 since = clock_us(); bench.completed == before;) {
            int waited = stream_wait("bench", since);
            if (waited == SHELL_FAILED)
                return SHELL_FAILED;
            if (waited == SHELL_INTERRUPTED) {
                result = SHELL_INTERRUPTED;
                uart_clear_interrupted();
            }
        }
        if (clock_us() - progress > 5000000) {
            progress = clock_us();
            console_print("bench: %llu requests\n", (unsigned long long)bench.completed);
        }
    }
    bench.elapsed_us = clock_us() - start;
    return result;
}

static void report(void)
{
    u64 rate = stream_rate_tenths((bench.completed - bench.errors) * bench.size, bench.elapsed_us);
    u64 iops = bench.elapsed_us == 0 ? 0 : bench.completed * 1000000 / bench.elapsed_us;
    u64 p50 = latency_percentile(&bench.latency, 500) / 1000, p99 = latency_percentile(&bench.latency, 990) / 1000;
    u64 mean = latency_mean(&bench.latency) / 1000, max = bench.latency.max_ns / 1000;

    console_print(
        "%s, %llu bytes, depth %llu: %llu.%llu MB/s, %llu IOPS, latency p50 %llu us, p99 %llu us, max %llu us\n",
        bench.mode->name, (unsigned long long)bench.size, (unsigned long long)bench.depth,
        (unsigned long long)rate / 10, (unsigned long long)rate % 10, (unsigned long long)iops, (unsigned long long)p50,
        (unsigned long long)p99, (unsigned long long)max);
    console_print(
        "json {\"disk\":\"%s\",\"mode\":\"%s\",\"size\":%llu,\"depth\":%llu,\"requests\":%llu,\"errors\":%llu,"
        "\"elapsed_us\":%llu,\"mb_per_s\":%llu.%llu,\"iops\":%llu,\"mean_us\":%llu,\"p50_us\":%llu,"
        "\"p99_us\":%llu,\"max_us\":%llu}\n",
        blk_get_info(bench.disk)->name, bench.mode->name, (unsigned long long)bench.size,
        (unsigned long long)bench.depth, (unsigned long long)bench.completed, (unsigned long long)bench.errors,
        (unsigned long long)bench.elapsed_us, (unsigned long long)rate / 10, (unsigned long long)rate % 10,
        (unsigned long long)iops, (unsigned long long)mean, (unsigned long long)p50, (unsigned long long)p99,
        (unsigned long long)max);
}

static bool parse(struct args *args)
{
    u64 seed = 1;

    memset(&bench, 0, sizeof(bench));
    bench.mode = &modes[0];
    bench.depth = 32;
    bench.seconds = 5;
    bool sized = args_take_number(args, "--size", &bench.size);
    args_take_number(args, "--depth", &bench.depth);
    args_take_number(args, "--seconds", &bench.seconds);
    args_take_number(args, "--count", &bench.count);
    args_take_number(args, "--seed", &seed);
    bench.random = seed;
    if (!args_check(args, 0, 1))
        return false;
    bool known = args->count == 0;
    for (u32 i = 0; i < ARRAY_SIZE(modes) && !known; i++) {
        bench.mode = &modes[i];
        known = strcmp(args->value[0], modes[i].name) == 0;
    }
    if (!sized)
        bench.size = bench.mode->size;
    if (known && bench.size != 0 && bench.size <= BENCH_MAX_SIZE && bench.size % VIRTIO_BLK_SECTOR == 0 &&
        bench.depth != 0 && bench.depth <= BENCH_MAX_DEPTH)
        return true;
    console_print("usage: %s\n       size: a multiple of 512 up to 1M; depth: 1 to %u\n", args->usage, BENCH_MAX_DEPTH);
    return false;
}

int command_blk_bench(struct args *args)
{
    const char *name = stream_take_disk(args);

    if (!parse(args))
        return SHELL_USAGE;
    bench.disk = stream_find_disk(name);
    if (bench.disk == NULL || !stream_check_range(bench.disk, 0, bench.size / VIRTIO_BLK_SECTOR))
        return SHELL_FAILED;
    for (u32 i = 0; i < bench.depth; i++) {
        slots[i].idle = true;
        slots[i].buffer = arena_alloc(bench.size, PAGE_SIZE);
        if (slots[i].buffer == NULL) {
            console_print("bench: the I/O arena has no room for depth %llu\n", (unsigned long long)bench.depth);
            return SHELL_FAILED;
        }
    }
    int status = run();
    if (status != SHELL_FAILED)
        report();
    return status == SHELL_OK && bench.errors != 0 ? SHELL_FAILED : status;
}
