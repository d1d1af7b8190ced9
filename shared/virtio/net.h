/* VirtIO 1.2 section 5.1: the network device. */
#pragma once

#include "shared/lib/types.h"

#define VIRTIO_ID_NET 1u

/* 5.1.3 feature bits */
#define VIRTIO_NET_F_CSUM (1ull << 0)       /* the device completes checksums of what it sends */
#define VIRTIO_NET_F_GUEST_CSUM (1ull << 1) /* the driver takes packets whose checksum is not complete */
#define VIRTIO_NET_F_MAC (1ull << 5)
#define VIRTIO_NET_F_HOST_TSO4 (1ull << 11) /* the device cuts large TCP segments; needs CSUM */
#define VIRTIO_NET_F_MRG_RXBUF (1ull << 15)
#define VIRTIO_NET_F_STATUS (1ull << 16)
#define VIRTIO_NET_F_CTRL_VQ (1ull << 17)
#define VIRTIO_NET_F_CTRL_RX (1ull << 18) /* needs CTRL_VQ */

/* 5.1.2 virtqueues; with neither MQ nor RSS the control queue follows the one pair */
#define VIRTIO_NET_QUEUE_RX 0u
#define VIRTIO_NET_QUEUE_TX 1u
#define VIRTIO_NET_QUEUE_CTRL 2u

#define VIRTIO_NET_S_LINK_UP 1u

struct virtio_net_config { /* 5.1.4 */
    u8 mac[6];
    u16 status;
    u16 max_virtqueue_pairs;
    u16 mtu;
};
_Static_assert(sizeof(struct virtio_net_config) == 12, "5.1.4 up to mtu");

#define VIRTIO_NET_HDR_F_NEEDS_CSUM 1u
#define VIRTIO_NET_HDR_F_DATA_VALID 2u
#define VIRTIO_NET_HDR_GSO_NONE 0u
#define VIRTIO_NET_HDR_GSO_TCPV4 1u

struct virtio_net_hdr { /* 5.1.6: in front of every packet, both ways */
    u8 flags;
    u8 gso_type;
    u16 hdr_len;  /* bytes of headers, a hint */
    u16 gso_size; /* TCP payload of each packet that is cut */
    u16 csum_start, csum_offset;
    u16 num_buffers; /* receive with MRG_RXBUF: descriptor chains that this packet fills */
};
_Static_assert(sizeof(struct virtio_net_hdr) == 12, "5.1.6");

/* 5.1.6.5 control queue: class and command, data, then one byte that the device writes */
struct virtio_net_ctrl_hdr {
    u8 class;
    u8 command;
};
#define VIRTIO_NET_CTRL_RX 0u
#define VIRTIO_NET_CTRL_RX_PROMISC 0u
#define VIRTIO_NET_CTRL_RX_ALLMULTI 1u
#define VIRTIO_NET_OK 0u
#define VIRTIO_NET_ERR 1u
#define VIRTIO_NET_CTRL_MAC 1u
#define VIRTIO_NET_CTRL_MAC_TABLE_SET                                                                                  \
    0u /* with CTRL_RX: two tables, unicast and multicast, each a u32 and so many addresses */
