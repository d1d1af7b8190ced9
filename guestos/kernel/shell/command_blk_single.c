/* blk id, flush, discard, zero, unsupported: single requests, waited for. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define MEANINGLESS_TYPE 0x7ffffff0u /* even and of no meaning in 5.2.6 */

/* The one request. Static: it may come back after its command was interrupted. */
static struct {
    struct blk_request request;
    struct blk_segment segment;
    bool finished;
} single;

static void mark_done(struct blk_request *request)
{
    (void)request;
    single.finished = true;
}

/* Submit it and wait: SHELL_OK when it came back, whatever its result. */
static int run_single(struct blk *disk, u32 type, u8 *buffer, u32 bytes, bool device_writes)
{
    single.finished = false;
    single.segment = (struct blk_segment){(u64)buffer, bytes};
    single.request = (struct blk_request){.type = type,
                                          .device_writes = device_writes,
                                          .segment = &single.segment,
                                          .segments = bytes != 0,
                                          .done = mark_done};
    status_t status = blk_submit(disk, &single.request);
    if (status != OK) {
        console_print("blk: %s\n", status_text(status));
        return SHELL_FAILED;
    }
    blk_kick(disk);
    for (u64 since = clock_us(); !single.finished;) {
        int waited = stream_wait("blk", since);
        if (waited != SHELL_OK)
            return waited;
    }
    return SHELL_OK;
}

/* The same for a request that must succeed. */
static int run_good(const char *name, struct blk *disk, u32 type, u8 *buffer, u32 bytes, bool device_writes)
{
    int status = run_single(disk, type, buffer, bytes, device_writes);

    if (status != SHELL_OK || single.request.result == BLK_OK)
        return status;
    console_print("%s: %s\n", name, stream_result_text(single.request.result));
    return SHELL_FAILED;
}

int command_flush(struct blk *disk)
{
    if ((blk_get_info(disk)->features & VIRTIO_BLK_F_FLUSH) == 0)
        return SHELL_OK; /* 5.2.6.2: without the feature, writes are stable when they complete */
    return run_good("flush", disk, VIRTIO_BLK_T_FLUSH, NULL, 0, true);
}

int command_blk_flush(struct args *args)
{
    const char *name = stream_take_disk(args);

    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    struct blk *disk = stream_find_disk(name);
    return disk != NULL ? command_flush(disk) : SHELL_FAILED;
}

int command_blk_id(struct args *args)
{
    const char *name = stream_take_disk(args);
    char id[VIRTIO_BLK_ID_BYTES + 1] = {0};

    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    struct blk *disk = stream_find_disk(name);
    u8 *buffer = arena_alloc(VIRTIO_BLK_ID_BYTES, PAGE_SIZE);
    if (buffer == NULL || disk == NULL)
        return SHELL_FAILED;
    memset(buffer, 0, VIRTIO_BLK_ID_BYTES);
    int status = run_good("id", disk, VIRTIO_BLK_T_GET_ID, buffer, VIRTIO_BLK_ID_BYTES, true);
    if (status != SHELL_OK)
        return status;
    for (u32 i = 0; i < VIRTIO_BLK_ID_BYTES && buffer[i] != 0; i++)
        id[i] = buffer[i] >= ' ' && buffer[i] < 0x7f ? (char)buffer[i] : '?';
    console_print("id: '%s'\n", id);
    return SHELL_OK;
}

int command_blk_unsupported(struct args *args)
{
    const char *name = stream_take_disk(args);

    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    struct blk *disk = stream_find_disk(name);
    int status = disk != NULL ? run_single(disk, MEANINGLESS_TYPE, NULL, 0, true) : SHELL_FAILED;
    if (status != SHELL_OK)
        return status;
    console_print("unsupported: the device said: %s\n", stream_result_text(single.request.result));
    return single.request.result == BLK_UNSUPPORTED ? SHELL_OK : SHELL_FAILED;
}

/* One request after the other, none for more sectors than the device takes at once (5.2.6.1). */
static int run_ranges(const char *name, struct blk *disk, u32 type, u64 lba, u64 sectors, u32 most, u32 flags)
{
    struct virtio_blk_range *range = arena_alloc(sizeof(*range), PAGE_SIZE);
    int status = SHELL_OK;

    if (range == NULL) {
        console_print("%s: the I/O arena has no room\n", name);
        return SHELL_FAILED;
    }
    while (sectors > 0 && status == SHELL_OK) {
        u32 part = sectors < most ? (u32)sectors : most;
        *range = (struct virtio_blk_range){lba, part, flags};
        status = run_good(name, disk, type, (u8 *)range, sizeof(*range), false);
        lba += part;
        sectors -= part;
    }
    return status;
}

/* blk discard and blk zero: `most` sectors a request, where the device offers `feature`. */
static int run_on_range(struct args *args, const char *what, u64 feature, u32 type, u32 flags)
{
    const char *name = stream_take_disk(args);
    u64 lba, sectors;

    if (!args_check(args, 2, 2))
        return SHELL_USAGE;
    if (!args_number(args, 0, &lba) || !args_number(args, 1, &sectors)) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    struct blk *disk = stream_find_disk(name);
    if (disk == NULL || !stream_check_range(disk, lba, sectors))
        return SHELL_FAILED;
    const struct blk_info *info = blk_get_info(disk);
    u32 most = type == VIRTIO_BLK_T_DISCARD ? info->config.max_discard_sectors : info->config.max_write_zeroes_sectors;
    if ((info->features & feature) == 0 || most == 0) {
        console_print("%s: %s does not offer it\n", what, info->name);
        return SHELL_FAILED;
    }
    return run_ranges(what, disk, type, lba, sectors, most, flags);
}

int command_blk_discard(struct args *args)
{
    return run_on_range(args, "discard", VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_T_DISCARD, 0);
}

int command_blk_zero(struct args *args)
{
    u32 flags = args_take_flag(args, "--unmap") ? VIRTIO_BLK_RANGE_UNMAP : 0;

    return run_on_range(args, "zero", VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_WRITE_ZEROES, flags);
}
