#include "guestos/kernel/shell/stream.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/checked.h"

#define MAX_ERRORS 16u
#define PROGRESS_US 2000000u

struct stream_slot {
    struct blk_request request;
    struct blk_segment segment[BLK_MAX_SEGMENTS];
    u8 *buffer;
    u32 sectors;
    bool done;
};

static struct stream_slot slots[STREAM_MAX_DEPTH];

const char *stream_result_text(int result)
{
    static const char *const texts[] = {[BLK_OK] = "ok",
                                        [BLK_IO_ERROR] = "I/O error",
                                        [BLK_UNSUPPORTED] = "unsupported",
                                        [BLK_PROTOCOL] = "protocol error",
                                        [BLK_ABORTED] = "aborted by a reset"};
    return texts[result];
}

u64 stream_rate_tenths(u64 bytes, u64 elapsed_us)
{
    return elapsed_us == 0 ? 0 : bytes * 10 / elapsed_us; /* bytes per microsecond are megabytes per second */
}

struct blk *stream_find_disk(const char *name)
{
    struct blk *disk = blk_find(name);

    if (disk != NULL && blk_get_info(disk)->present)
        return disk;
    console_print("no block device%s%s: %s\n", blk_count() == 0 ? "" : " ", blk_count() == 0 ? "" : name,
                  arena_status_text(disk != NULL ? blk_get_info(disk)->error : ERR_NOT_FOUND));
    return NULL;
}

const char *stream_take_disk(struct args *args)
{
    const char *name = "vda";

    args_take_text(args, "--disk", &name);
    return name;
}

bool stream_check_range(const struct blk *disk, u64 lba, u64 sectors)
{
    const struct blk_info *info = blk_get_info(disk);

    if (range_inside(lba, sectors, 0, info->sectors))
        return true;
    console_print("sectors %llu + %llu are beyond %s's %llu\n", (unsigned long long)lba, (unsigned long long)sectors,
                  info->name, (unsigned long long)info->sectors);
    return false;
}

int stream_wait(const char *name, u64 since_us)
{
    if (blk_wait(clock_us() + 1000000))
        return SHELL_OK;
    if (uart_interrupted())
        return SHELL_INTERRUPTED;
    if (clock_us() - since_us < REQUEST_TIMEOUT_US)
        return SHELL_OK;
    console_print("%s: no completion for 60 s\n", name);
    return SHELL_FAILED;
}

static void on_done(struct blk_request *request)
{
    ((struct stream_slot *)request->context)->done = true;
}

static status_t submit(const struct stream *stream, struct stream_slot *slot, u64 sector, u64 left)
{
    u32 most = stream->request_bytes / VIRTIO_BLK_SECTOR;

    slot->sectors = left < most ? (u32)left : most;
    slot->done = false;
    u32 count = blk_cut_segments(stream->disk, slot->buffer, slot->sectors * VIRTIO_BLK_SECTOR, slot->segment);
    slot->request = (struct blk_request){.type = stream->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                                         .device_writes = !stream->write,
                                         .sector = sector,
                                         .segment = slot->segment,
                                         .segments = count,
                                         .done = on_done,
                                         .context = slot};
    if (stream->write)
        stream->data(stream->context, sector, slot->buffer, slot->sectors);
    return blk_submit(stream->disk, &slot->request);
}

/* Account for one finished request; readers get their data here. */
static void retire(struct stream *stream, struct stream_slot *slot)
{
    if (slot->request.result != BLK_OK) {
        if (++stream->errors <= MAX_ERRORS)
            console_print("%s: sector %llu: %s\n", stream->name, (unsigned long long)slot->request.sector,
                          stream_result_text(slot->request.result));
        return;
    }
    stream->bytes += slot->request.data_bytes;
    if (!stream->write)
        stream->data(stream->context, slot->request.sector, slot->buffer, slot->sectors);
}

static bool prepare(struct stream *stream)
{
    u32 room = blk_get_info(stream->disk)->queue_size /
               (blk_get_info(stream->disk)->features & VIRTIO_F_INDIRECT_DESC ? 1 : 8);

    if (stream->depth > room)
        stream->depth = room;
    for (u32 i = 0; i < stream->depth; i++) {
        slots[i].buffer = arena_alloc(stream->request_bytes, PAGE_SIZE);
        if (slots[i].buffer == NULL) {
            stream->depth = i;
            break;
        }
    }
    if (stream->depth == 0)
        console_print("%s: the I/O arena has no room\n", stream->name);
    return stream->depth != 0;
}

static void show_progress(const struct stream *stream, u64 *next_us)
{
    if (clock_us() < *next_us)
        return;
    *next_us = clock_us() + PROGRESS_US;
    console_print("%s: %llu of %llu MiB\n", stream->name, (unsigned long long)stream->bytes >> 20,
                  (unsigned long long)stream->sectors * VIRTIO_BLK_SECTOR >> 20);
}

/* Put requests into the queue while there is room; *next is the first sector that was not asked for. */
static status_t fill_queue(struct stream *stream, u64 *next, u32 *issued, u32 retired)
{
    u64 end = stream->lba + stream->sectors;
    status_t status = OK;

    while (*next < end && *issued - retired < stream->depth) {
        struct stream_slot *slot = &slots[*issued % stream->depth];
        status = submit(stream, slot, *next, end - *next);
        if (status != OK)
            break;
        *next += slot->sectors;
        ++*issued;
    }
    blk_kick(stream->disk);
    return status == ERR_NO_SPACE && *issued != retired ? OK : status;
}

int stream_run(struct stream *stream)
{
    u64 start = clock_us(), next = stream->lba, progress = start + PROGRESS_US;
    u32 issued = 0, retired = 0;
    int result = SHELL_OK;

    stream->bytes = stream->errors = 0;
    if (!prepare(stream))
        return SHELL_FAILED;
    for (;;) {
        if (result == SHELL_OK && stream->errors < MAX_ERRORS) {
            status_t status = fill_queue(stream, &next, &issued, retired);
            if (status != OK) {
                console_print("%s: %s\n", stream->name, status_text(status));
                result = SHELL_FAILED;
            }
        }
        if (retired == issued)
            break;
        struct stream_slot *slot = &slots[retired % stream->depth];
        for (u64 since = clock_us(); !slot->done;) {
            int waited = stream_wait(stream->name, since);
            if (waited == SHELL_FAILED)
                return SHELL_FAILED; /* the shell resets the device */
            if (waited == SHELL_INTERRUPTED) {
                result = SHELL_INTERRUPTED;
                uart_clear_interrupted(); /* what is in flight still has to come back */
            }
        }
        retire(stream, slot);
        retired++;
        show_progress(stream, &progress);
    }
    stream->elapsed_us = clock_us() - start;
    return result != SHELL_OK ? result : stream->errors != 0 ? SHELL_FAILED : SHELL_OK;
}
