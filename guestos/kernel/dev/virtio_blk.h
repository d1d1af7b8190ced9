/*
 * Virtio block devices (VirtIO 1.2, 5.2): asynchronous requests on one split queue each. They are called vda, vdb and
 * so on, in the order in which they stand on the bus.
 *
 * A request belongs to the caller except from blk_submit (OK) until its done() is called. done() runs inside blk_wait
 * or blk_restart, in the one thread, and may submit again. The device is not trusted: each completion must name a
 * request in flight, have a possible length and one of the three statuses; whatever else it does is counted and never
 * believed.
 */
#pragma once

#include "guestos/kernel/dev/virtio_pci.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/virtio/blk.h"

#define BLK_MAX_DISKS 8u
#define BLK_MAX_SEGMENTS 126u /* data segments of one request; header and status come on top */

struct blk_segment {
    u64 address; /* inside the I/O arena */
    u32 length;  /* bytes, at least 1 */
};

enum blk_result {
    BLK_OK,
    BLK_IO_ERROR,
    BLK_UNSUPPORTED,
    BLK_PROTOCOL, /* impossible status or length */
    BLK_ABORTED,  /* the device was reset with the request in flight */
};

struct blk_request {
    /* set by the caller */
    u32 type;           /* VIRTIO_BLK_T_* or anything else */
    bool device_writes; /* direction of the segments: true when the device fills them */
    u64 sector;
    const struct blk_segment *segment;
    u32 segments;
    void (*done)(struct blk_request *request);
    void *context;
    /* set by the driver */
    enum blk_result result;
    u32 data_bytes;
    u64 submitted_tsc, completed_tsc;
};

struct blk_counters {
    u64 requests, completions;
    u64 io_errors, unsupported;
    u64 protocol;    /* impossible status or length, or a used index that jumps */
    u64 implausible; /* of these: status and length are possible, but contradict each other */
    u64 unknown;     /* completions for a head that was never made available */
    u64 doubled;     /* completions for a head that had completed already */
    u64 notified, notify_suppressed;
    u64 interrupts, config_interrupts;
    u64 missed_interrupts; /* completions that only the timer tick brought to light */
    u64 resets;
};

struct blk; /* one disk; the driver's own */

struct blk_info {
    char name[8]; /* without /dev/ */
    u32 index;    /* 0: vda */
    bool present;
    status_t error; /* why it is not present */
    u16 bdf;
    u64 features;
    u64 sectors;
    u32 max_segments, max_segment_bytes;
    u32 queue_size;
    struct virtio_blk_config config;
};

/*
 * Find the devices, allocate their queues in the arena, start them. A machine without one is no error, and one that
 * does not start leaves the others alone: its blk_info says why.
 */
void blk_init(void);

/* Handles 0 to blk_count() - 1, at most BLK_MAX_DISKS, also of disks that are not usable. blk_get: NULL beyond. */
u32 blk_count(void);
struct blk *blk_get(u32 index);

/* The disk of this name, with /dev/ or without; NULL: there is none. */
struct blk *blk_find(const char *name);

const struct blk_info *blk_get_info(const struct blk *disk);
struct blk_counters blk_get_counters(const struct blk *disk);

/* The sums over all disks. */
struct blk_counters blk_sum_counters(void);

/* Of this disk, of all disks. */
u32 blk_in_flight(const struct blk *disk);
u32 blk_sum_in_flight(void);

/* Cut whole sectors into segments that the disk takes, at most BLK_MAX_SEGMENTS; their number. */
u32 blk_cut_segments(const struct blk *disk, const void *data, u32 bytes, struct blk_segment *segment);

/*
 * Put the request into the queue; blk_kick tells the device of all that were put since. ERR_NO_SPACE: the queue is
 * full, try again after a completion. ERR_RANGE: too many or empty segments. ERR_NOT_FOUND: the disk is not usable.
 */
NODISCARD status_t blk_submit(struct blk *disk, struct blk_request *request);
void blk_kick(struct blk *disk);

/*
 * Call done() for everything that has completed on any disk. Sleep until that is at least one request (true), or until
 * deadline_us of clock_us() or Ctrl-C (false).
 */
bool blk_wait(u64 deadline_us);

/* Reset and start again. Requests in flight are done() with BLK_ABORTED after the device has stopped, so their buffers
 * are free. */
NODISCARD status_t blk_restart(struct blk *disk);

/* The same for each usable disk; the first error. */
NODISCARD status_t blk_restart_all(void);

/* For probes: abort everything in flight and hand the bare device over, reset; blk_restart takes it back. NULL: the
 * disk is not usable. */
const struct virtio_device *blk_release_device(struct blk *disk);
