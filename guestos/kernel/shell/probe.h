/*
 * Probes: each breaks one rule of VirtIO 1.2 as a hostile driver would, and says what the device made of it. A probe
 * owns the bare device (blk_release_device); command_hostile.c resets it afterwards and checks that ordinary work goes
 * on.
 */
#pragma once

#include "guestos/kernel/dev/virtio_blk.h"
#include "shared/virtio/blk.h"

#define PROBE_DATA_SIZE KIB(64)
#define PROBE_ANSWER_US 2000000u /* how long the device may take to answer */
#define PROBE_SILENCE_US 200000u /* how long to watch that it does not */

/* A queue 0 of our own, laid out so that a probe can break it. All pointers into the arena. */
struct probe {
    const struct virtio_device *device;
    u64 sectors; /* of the disk */
    u16 size;    /* as the device offers it */
    u16 notify_off;
    u16 avail_idx; /* to be published */
    struct virtq_desc *table;
    struct virtq_avail *avail;
    struct virtq_used *used;
    struct virtq_desc *indirect; /* one page */
    struct virtio_blk_req *header;
    u8 *data; /* PROBE_DATA_SIZE */
    volatile u8 *status;
};

struct probe_entry {
    const char *name;
    const char *what;
    const char *section; /* of VirtIO 1.2, that the rule stands in */
    const char *must;    /* what has to happen */
    /* Either run: NULL when the device behaved, else why not. Or expect, applied to a good request that break_rule has
     * spoilt. */
    const char *(*run)(struct probe *probe);
    const char *(*expect)(struct probe *probe, void (*break_rule)(struct probe *probe));
    void (*break_rule)(struct probe *probe);
};

/* Take arena memory and the disk's device. False: no room, or the disk is not usable. */
NODISCARD bool probe_open(struct probe *probe, struct blk *disk);

/* Reset, accept VERSION_1 and INDIRECT_DESC, FEATURES_OK, describe queue 0 (not enabled). NULL or why not. */
const char *probe_start(struct probe *probe);

/* Fill the rings with one correct request: descriptor 0 header, 1 data (512 bytes read), 2 status; avail_idx 1. */
void probe_prepare_read(struct probe *probe);

void probe_enable_queue(struct probe *probe);
void probe_set_status(struct probe *probe, u32 status);
void probe_driver_ok(struct probe *probe);

/* The same, accepting `features` and no others. */
const char *probe_start_with(struct probe *probe, u64 features);

/* Publish avail_idx and notify. */
void probe_submit(struct probe *probe);

enum probe_answer { PROBE_SILENT, PROBE_SERVED, PROBE_NEEDS_RESET };

/* What the device does within us microseconds: first of a used entry or NEEDS_RESET. */
enum probe_answer probe_watch(struct probe *probe, u64 us);

/* Start the queue, spoil the good request in it, submit: the device must say DEVICE_NEEDS_RESET. */
const char *probe_expect_needs_reset(struct probe *probe, void (*break_rule)(struct probe *probe));

/* Tables of probes; each ends with a NULL name. */
extern const struct probe_entry probe_ring_entries[];
extern const struct probe_entry probe_driver_entries[];
extern const struct probe_entry probe_register_entries[];
