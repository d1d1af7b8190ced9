/*
 * The request ring and the completion ring between the hypervisor and a driver VM: one pair for each virtqueue.
 *
 *                       who writes     who reads      lives in
 *   request ring        hypervisor     driver VM      hypervisor memory, mapped read-only into the driver VM
 *   completion ring     driver VM      hypervisor     hypervisor memory, mapped read-write into the driver VM
 *
 * The request ring is a ring of 16-byte cells. A request is one header cell and `segments` segment cells after it, all
 * taken modulo RING_CELLS. `produced` counts cells, free-running: the driver may read cells [consumed, produced). It is
 * stored with release after the cells and loaded with acquire before them. The driver reports how far it has read in
 * ring_completion_page.consumed (release after its last read of the cells); the hypervisor reuses nothing before that.
 *
 * A completion is one entry; `produced` there counts entries, free-running, stored by the driver with release after the
 * entry. The hypervisor never lets more requests be in flight than RING_COMPLETIONS, so a correct driver cannot overrun it.
 *
 * What the driver writes is hostile: the hypervisor copies an index or an entry once, then checks. A `consumed` or
 * `produced` that jumps, a tag that is not in flight, or a length beyond the request's device-writable bytes is a fault of that driver VM.
 */
#pragma once

#include "shared/lib/types.h"

#define RING_CELLS 4096u      /* power of two: 64 KiB of cells */
#define RING_COMPLETIONS 256u /* power of two, at least RING_TAGS */
#define RING_TAGS 128u        /* requests in flight at most; also the largest virtqueue offered to the guest */
#define RING_MAX_SEGMENTS 130u /* segments of one request at most */
#define RING_MAX_QUEUES 4u    /* ring pairs of one driver VM at most */

struct ring_header_cell {
    u16 tag;      /* 0 .. RING_TAGS-1: the request's name in its completion */
    u16 segments; /* segment cells that follow: 1 .. RING_MAX_SEGMENTS */
    u32 readable; /* of these, the first so many are device-readable, the rest device-writable */
    u64 id;       /* the request's id in traces: unique since boot */
};

struct ring_segment_cell {
    u64 address; /* in the driver VM and on the device's bus alike */
    u32 length;  /* bytes, at least 1 */
    u32 flags;   /* RING_SEGMENT_WRITABLE */
};

#define RING_SEGMENT_WRITABLE 1u /* the device writes here (guest reads); else the device reads */

union ring_cell {
    struct ring_header_cell header;
    struct ring_segment_cell segment;
};

struct ring_request_page { /* first page of the request ring's mapping; the cells follow on the next page */
    u32 produced;          /* cells, free-running */
    u32 reserved[1023];
};

struct ring_completion {
    u16 tag;
    u16 reserved; /* 0 */
    u32 length;   /* bytes written into the device-writable segments, counted from their start */
};

struct ring_completion_page { /* one page */
    u32 produced;             /* entries, free-running */
    u32 consumed;             /* request cells read, free-running */
    u32 heartbeat;            /* the driver adds one whenever it gets round its loop; any change counts as progress */
    u32 reserved[13];
    struct ring_completion entry[RING_COMPLETIONS];
};

#define RING_REQUEST_BYTES (4096u + RING_CELLS * 16u) /* produced page + cells */
#define RING_COMPLETION_BYTES 4096u

_Static_assert(sizeof(union ring_cell) == 16, "a cell is 16 bytes");
_Static_assert(sizeof(struct ring_request_page) == 4096, "one page");
_Static_assert(sizeof(struct ring_completion_page) <= 4096, "one page");
