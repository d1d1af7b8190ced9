/*
 * A sequential stream over a disk: requests of one size, several in flight, the data handed over in order. Buffers
 * come from the I/O arena and last until the command ends.
 */
#pragma once

#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/shell/args.h"
#include "shared/lib/types.h"

#define STREAM_MAX_DEPTH 64u
#define REQUEST_TIMEOUT_US 60000000u /* after this a request counts as lost */

struct stream {
    /* set by the caller */
    const char *name; /* for progress and errors */
    struct blk *disk;
    bool write;
    u64 lba, sectors;
    u32 request_bytes; /* multiple of 512 */
    u32 depth;         /* 1..STREAM_MAX_DEPTH */
    /* Writing: fill the buffer. Reading: take the data. In disk order. */
    void (*data)(void *context, u64 sector, u8 *buffer, u32 sectors);
    void *context;
    /* result */
    u64 bytes;  /* of requests that succeeded */
    u64 errors; /* requests that failed */
    u64 elapsed_us;
};

/* Run to the end, the 16th error or Ctrl-C. Returns an enum shell_status; says on the console what went wrong. */
int stream_run(struct stream *stream);

/* MB/s (10^6) times 10, for "%llu.%llu". */
u64 stream_rate_tenths(u64 bytes, u64 elapsed_us);

/* Wait until a disk completes something or the command should end: SHELL_OK, SHELL_INTERRUPTED, SHELL_FAILED (nothing
 * for 60 s, said so). */
int stream_wait(const char *name, u64 since_us);

/* Take `--disk NAME` out: that name, or vda when the option is absent. */
const char *stream_take_disk(struct args *args);

/* The usable disk of this name, with /dev/ or without. NULL and words when there is none. */
struct blk *stream_find_disk(const char *name);

/* Whether [lba, lba + sectors) lies on the disk; says so when not. */
bool stream_check_range(const struct blk *disk, u64 lba, u64 sectors);

/* A short English text for an enum blk_result. */
const char *stream_result_text(int result);
