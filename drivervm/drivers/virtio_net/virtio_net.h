/* The parts of the virtio_net driver. Context: the driver VM's only thread. */
#pragma once

#include "drivervm/drivers/virtio/virtio.h"
#include "drivervm/runtime/net.h"

/* ---- frame.c ---- */

/* VirtIO's header for a packet to send. */
struct virtio_net_hdr frame_header(const struct net_packet *packet);

/* A command for the filter as the control queue wants it (5.1.6.5). */
#define CONTROL_MOST                                                                                                   \
    (sizeof(struct virtio_net_ctrl_hdr) + 2 * sizeof(u32) + (NET_UNICAST + NET_MULTICAST) * NET_ADDRESS)

/* MAC_TABLE_SET with the filter's tables. Returns how many bytes. */
u32 frame_address_tables(u8 out[CONTROL_MOST], const struct net_filter *filter);
