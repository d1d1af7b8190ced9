/* Checksum offload of outgoing frames (VirtIO 1.2, 5.1.6.2). Pure. */
#pragma once

#include "shared/lib/types.h"
#include "shared/virtio/net.h"

/*
 * Let the device complete the TCP checksum of an Ethernet frame of `total` bytes, of which the first `size` lie at
 * `frame`: puts the sum of the pseudo header into the checksum field and says in *header where it is. False, with
 * nothing changed, when the frame is no whole TCP segment over IPv4, or its headers are not all in the first `size`
 * bytes.
 */
bool offload_checksum(u8 *frame, u32 size, u32 total, struct virtio_net_hdr *header);
