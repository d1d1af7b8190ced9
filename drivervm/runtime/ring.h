/*
 * The driver's end of one request ring and one completion ring (shared/abi/request_ring.h): consumer of cells, producer
 * of completions. Context: the VM's one thread; the hypervisor works on the other end at the same moment.
 */
#pragma once

#include "shared/abi/request_ring.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

struct ring {
    const struct ring_request_page *request;
    const union ring_cell *cells;
    struct ring_completion_page *completion;
    u32 consumed;  /* cells read; published by ring_release */
    u32 produced;  /* completions written and published */
    u32 delivered; /* of these, handed over by a `wait` */
};

/* Attach to mapped rings. The indices go on from what the pages say, both are 0 after a (re)start. */
void ring_init(struct ring *ring, const void *request, void *completion);

/*
 * Look at the next request without taking it. ERR_NOT_FOUND: none. ERR_FORMAT: a header that the contract rules out
 * (tag, segment count, or fewer cells than it needs); the ring is beyond use then.
 */
NODISCARD status_t ring_peek(const struct ring *ring, struct ring_header_cell *header);

/* Copy the segments of the request that ring_peek showed (room for header->segments) and move past it. */
void ring_take(struct ring *ring, const struct ring_header_cell *header, struct ring_segment_cell *segments);

/* Tell the hypervisor that the cells taken so far may be used again. */
void ring_release(struct ring *ring);

/* Answer the request `tag`: `length` bytes were written to its device-writable part. */
void ring_complete(struct ring *ring, u16 tag, u32 length);

/* A sign of life; any change of the counter is one. */
void ring_heartbeat(struct ring *ring);
