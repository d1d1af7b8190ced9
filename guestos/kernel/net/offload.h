/*
 * What a device can do for TCP over IPv4 (VirtIO 1.2, 5.1.6.2): complete the checksum, and cut one large segment into
 * many. lwIP makes segments of one frame each; consecutive ones of a connection are put together here, so that the
 * device gets them as one. Pure.
 */
#pragma once

#include "shared/lib/types.h"
#include "shared/virtio/net.h"

struct offload_segment {
    u32 ip_size;  /* of the IP header */
    u32 headers;  /* Ethernet, IP and TCP */
    u32 payload;  /* of all that were put together */
    u32 gso_size; /* payload of the first one: all but the last are as long */
    u32 last;     /* payload of the last one */
    u32 segments;
};

/*
 * Read an Ethernet frame of `total` bytes, of which the first `size` lie at `frame`. False: it is no whole TCP segment
 * over IPv4, or its headers are not all in the first `size` bytes.
 */
bool offload_read(const u8 *frame, u32 size, u32 total, struct offload_segment *segment);

/* Whether `next` goes on where `first` ends, both of the same connection and with the same headers otherwise. */
bool offload_follows(const u8 *first, const struct offload_segment *merged, const u8 *next,
                     const struct offload_segment *segment);

/* Put `next`, which follows, to the end of `first`; the payloads stay where they are. */
void offload_append(u8 *first, struct offload_segment *merged, const u8 *next, const struct offload_segment *segment);

/* Make the headers fit what was put together, and say in *header what is left to the device. */
void offload_finish(u8 *first, const struct offload_segment *merged, struct virtio_net_hdr *header);
