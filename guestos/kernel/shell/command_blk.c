/* blk and sha256: what the disks are; reading, writing, verifying. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/pattern.h"
#include "guestos/kernel/shell/sha256.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define STREAM_DEPTH 16u
#define MAX_REQUEST MIB(1)
#define SHOW_MISMATCHES 8u

static const struct shell_command subcommands[] = {
    {"info", "blk [info]", "what the disks say of themselves", command_blk_info},
    {"read", "blk read LBA COUNT [qd N] [size N] [--sha256]", "read COUNT sectors", command_blk_read},
    {"write", "blk write --seed S LBA SECTORS", "write the pattern of pattern.h, generation 0, then flush",
     command_blk_write},
    {"verify", "blk verify --seed S LBA SECTORS", "compare with what blk write wrote", command_blk_verify},
    {"bench",
     "blk bench [read|write|randread|randwrite] [--size BYTES] [--depth N] [--seconds N | --count N] [--seed S]",
     "measure; writing destroys what is on the disk", command_blk_bench},
    {"load",
     "blk load --seed S [--disk vda,vdb...] [--depth N] [--size BYTES] [--seconds N | --count N] [--lba L] "
     "[--sectors N] [--final] [--quiet]",
     "random mixed requests, every byte verified; destroys the region; several disks at once", command_blk_load},
    {"discard", "blk discard LBA SECTORS", "the disk may forget what is there", command_blk_discard},
    {"zero", "blk zero LBA SECTORS [--unmap]", "make it read as zeroes, by giving the space back if that helps",
     command_blk_zero},
    {"id", "blk id", "the device's serial number", command_blk_id},
    {"flush", "blk flush", "make what was written durable", command_blk_flush},
    {"unsupported", "blk unsupported", "send an unknown request type; the device must say UNSUPP",
     command_blk_unsupported},
};

int command_blk(struct args *args)
{
    const char *disk;

    if (args->count < ARGS_MAX &&
        args_take_text(args, "--disk", &disk)) { /* may stand first; the subcommand takes it */
        args->value[args->count++] = "--disk";
        args->value[args->count++] = (char *)disk;
    }
    if (args->count == 0 || strcmp(args->value[0], "--disk") == 0)
        return command_blk_info(args);
    for (u32 i = 0; i < ARRAY_SIZE(subcommands); i++) {
        if (strcmp(args->value[0], subcommands[i].name) != 0)
            continue;
        args_shift(args);
        args->usage = subcommands[i].usage;
        return subcommands[i].run(args);
    }
    for (u32 i = 0; i < ARRAY_SIZE(subcommands); i++)
        console_print("%s\n           %s\n", subcommands[i].usage, subcommands[i].help);
    console_print("All take --disk NAME; without it the disk is vda.\n");
    return strcmp(args->value[0], "help") == 0 ? SHELL_OK : SHELL_USAGE;
}

static void show_disk(const struct blk_info *info)
{
    console_print("/dev/%s: virtio-blk at %02x:%02x.%x, %llu sectors (%llu MiB), features 0x%llx%s%s%s\n", info->name,
                  info->bdf >> 8, info->bdf >> 3 & 31, info->bdf & 7, (unsigned long long)info->sectors,
                  (unsigned long long)info->sectors >> 11, (unsigned long long)info->features,
                  (info->features & VIRTIO_BLK_F_RO) != 0 ? ", read-only" : "",
                  (info->features & VIRTIO_BLK_F_DISCARD) != 0 ? ", discard" : "",
                  (info->features & VIRTIO_BLK_F_WRITE_ZEROES) != 0 ? ", write zeroes" : "");
    console_print("queue of %u, segments: at most %u of %u bytes, block size %u\n", info->queue_size,
                  info->max_segments, info->max_segment_bytes,
                  (info->features & VIRTIO_BLK_F_BLK_SIZE) != 0 ? info->config.blk_size : VIRTIO_BLK_SECTOR);
}

/* All disks, or the one that --disk names. */
int command_blk_info(struct args *args)
{
    const char *name = NULL;

    args_take_text(args, "--disk", &name);
    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    for (u32 i = 0; name == NULL && i < blk_count(); i++)
        if (blk_get_info(blk_get(i))->present)
            show_disk(blk_get_info(blk_get(i)));
    const struct blk *disk = stream_find_disk(name == NULL ? "vda" : name);
    if (disk != NULL && name != NULL)
        show_disk(blk_get_info(disk));
    return disk != NULL ? SHELL_OK : SHELL_FAILED;
}

static void report(const struct stream *stream, int status)
{
    u64 rate = stream_rate_tenths(stream->bytes, stream->elapsed_us);

    if (status == SHELL_OK)
        console_print("%s: %llu bytes, %llu.%llu MB/s\n", stream->name, (unsigned long long)stream->bytes,
                      (unsigned long long)rate / 10, (unsigned long long)rate % 10);
}

struct reading {
    bool hashing;
    struct sha256 hash;
    u8 first[16];
    bool have_first;
};

static void take_data(void *context, u64 sector, u8 *buffer, u32 sectors)
{
    struct reading *reading = context;

    (void)sector;
    if (!reading->have_first)
        memcpy(reading->first, buffer, sizeof(reading->first));
    reading->have_first = true;
    if (reading->hashing)
        sha256_update(&reading->hash, buffer, (u64)sectors * VIRTIO_BLK_SECTOR);
}

int command_blk_read(struct args *args)
{
    static struct reading reading;
    char hex[2 * SHA256_SIZE + 1];
    const char *name = stream_take_disk(args);
    u64 lba, count, depth = 8, size = KIB(128);

    reading = (struct reading){.hashing = args_take_flag(args, "--sha256")};
    args_take_number(args, "qd", &depth);
    args_take_number(args, "size", &size);
    if (!args_check(args, 2, 2) || !args_number(args, 0, &lba) || !args_number(args, 1, &count) || depth == 0 ||
        depth > STREAM_MAX_DEPTH || size == 0 || size > MAX_REQUEST || size % VIRTIO_BLK_SECTOR != 0) {
        console_print("blk read: depth 1 to %u, size a multiple of 512 up to 1M\n", STREAM_MAX_DEPTH);
        return SHELL_USAGE;
    }
    struct blk *disk = stream_find_disk(name);
    if (disk == NULL || !stream_check_range(disk, lba, count))
        return SHELL_FAILED;
    sha256_init(&reading.hash);
    struct stream stream = {.name = "read",
                            .disk = disk,
                            .lba = lba,
                            .sectors = count,
                            .request_bytes = (u32)size,
                            .depth = (u32)depth,
                            .data = take_data,
                            .context = &reading};
    int status = stream_run(&stream);
    report(&stream, status);
    for (u32 i = 0; status == SHELL_OK && count > 0 && i < sizeof(reading.first); i++)
        console_print("%02x%s", reading.first[i], i + 1 < sizeof(reading.first) ? " " : " ...\n");
    sha256_finish_hex(&reading.hash, hex);
    if (status == SHELL_OK && reading.hashing)
        console_print("sha256: %s\n", hex);
    return status;
}

struct checking {
    u64 seed;
    u64 mismatches; /* sectors */
};

static void fill_data(void *context, u64 sector, u8 *buffer, u32 sectors)
{
    for (u32 i = 0; i < sectors; i++)
        pattern_fill(buffer + (u64)i * PATTERN_SECTOR, ((struct checking *)context)->seed, sector + i, 0);
}

static void check_data(void *context, u64 sector, u8 *buffer, u32 sectors)
{
    struct checking *checking = context;

    for (u32 i = 0; i < sectors; i++) {
        int word = pattern_compare(buffer + (u64)i * PATTERN_SECTOR, checking->seed, sector + i, 0);
        if (word >= 0 && checking->mismatches++ < SHOW_MISMATCHES)
            console_print("verify: sector %llu differs from word %d on\n", (unsigned long long)(sector + i), word);
    }
}

/* blk write and blk verify take the same arguments and go the same way. */
static int run_pattern(struct args *args, struct stream *stream)
{
    struct checking checking = {0};
    const char *name = stream_take_disk(args);
    u64 size = KIB(256);

    bool seeded = args_take_number(args, "--seed", &checking.seed);
    if (!args_check(args, 2, 2) || !seeded || !args_number(args, 0, &stream->lba) ||
        !args_number(args, 1, &stream->sectors)) {
        console_print("%s: --seed, LBA and SECTORS must be numbers\n", stream->name);
        return SHELL_USAGE;
    }
    stream->disk = stream_find_disk(name);
    if (stream->disk == NULL || !stream_check_range(stream->disk, stream->lba, stream->sectors))
        return SHELL_FAILED;
    stream->request_bytes = (u32)size;
    stream->depth = STREAM_DEPTH;
    stream->context = &checking;
    int status = stream_run(stream);
    if (status == SHELL_OK && stream->write)
        status = command_flush(stream->disk);
    report(stream, status);
    if (checking.mismatches != 0)
        console_print("%s: %llu sectors differ\n", stream->name, (unsigned long long)checking.mismatches);
    return status == SHELL_OK && checking.mismatches != 0 ? SHELL_FAILED : status;
}

int command_blk_write(struct args *args)
{
    struct stream stream = {.name = "write", .write = true, .data = fill_data};

    return run_pattern(args, &stream);
}

int command_blk_verify(struct args *args)
{
    struct stream stream = {.name = "verify", .data = check_data};

    return run_pattern(args, &stream);
}

struct hashing {
    struct sha256 hash;
    u64 left; /* bytes */
};

static void hash_data(void *context, u64 sector, u8 *buffer, u32 sectors)
{
    struct hashing *hashing = context;
    u64 bytes = (u64)sectors * VIRTIO_BLK_SECTOR;

    (void)sector;
    if (bytes > hashing->left)
        bytes = hashing->left;
    sha256_update(&hashing->hash, buffer, bytes);
    hashing->left -= bytes;
}

int command_sha256(struct args *args)
{
    static struct hashing hashing;
    char hex[2 * SHA256_SIZE + 1];
    u64 bytes;

    if (!args_check(args, 1, 2))
        return SHELL_USAGE;
    if (strncmp(args->value[0], "/dev/", 5) != 0 || (args->count == 2 && !args_number(args, 1, &bytes))) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    struct blk *disk = stream_find_disk(args->value[0]);
    if (disk == NULL)
        return SHELL_FAILED;
    if (args->count == 1)
        bytes = blk_get_info(disk)->sectors * VIRTIO_BLK_SECTOR;
    u64 sectors = bytes / VIRTIO_BLK_SECTOR + (bytes % VIRTIO_BLK_SECTOR != 0);
    if (!stream_check_range(disk, 0, sectors))
        return SHELL_FAILED;
    hashing.left = bytes;
    sha256_init(&hashing.hash);
    struct stream stream = {.name = "sha256",
                            .disk = disk,
                            .sectors = sectors,
                            .request_bytes = (u32)KIB(256),
                            .depth = STREAM_DEPTH,
                            .data = hash_data,
                            .context = &hashing};
    int status = stream_run(&stream);
    if (status != SHELL_OK)
        return status;
    sha256_finish_hex(&hashing.hash, hex);
    console_print("%s  %s\n", hex, args->value[0]);
    return SHELL_OK;
}
