/*
 * The network class: VirtIO network semantics (VirtIO 1.2 5.1) on one side, frames and receive buffers on the other. A
 * driver for a network controller fills one const struct net_driver and never sees a ring, a VirtIO header or a control
 * command.
 *
 *   transmit:  ring --> checked --> QUEUED --pump--> in the driver --net_sent--> answered
 *   receive:   ring --> WAITING --pump--> a buffer of the driver's --net_received--> header written, answered
 *   control:   ring --> answered at once; the filter also goes into the stash, for a successor
 *
 * Data is not copied: what the guest sends is named to the controller piece by piece, and a receive buffer is the
 * guest's own memory behind VirtIO's header. Only buffers that cannot take a frame in one piece are served from one in
 * our own RAM, alone or, where the guest allows it (MRG_RXBUF), several for a frame.
 *
 * When the guest resets its device, everything that the driver holds comes back unused; a receive buffer would
 * otherwise stay for ever.
 *
 * What the guest says is hostile: headers are copied once, then checked, and the copy is what the driver gets.
 * Context: the VM's one thread. net_sent and net_received may be called from `collect` only.
 */
#pragma once

#include "drivervm/runtime/runtime.h"
#include "shared/virtio/net.h"
#include "shared/virtio/virtio.h"

#define NET_ADDRESS 6u
#define NET_FRAME_LEAST 14u
#define NET_FRAME_MOST 1522u  /* 802.3: with a VLAN tag, and the checksum, which some controllers write, too */
#define NET_SEND_MOST 1518u   /* without the checksum */
#define NET_CHECKSUM_END 255u /* a checksum begins and lies before: controllers have a byte for either */
#define NET_MSS_LEAST 48u     /* smaller pieces only multiply frames: they are made so large */
#define NET_HEADERS_MOST 138u /* Ethernet with a tag, IPv4 and TCP with all their options */
#define NET_BUFFERS RING_TAGS /* a driver has room for so many receive buffers */
#define NET_RX_SEGMENTS 16u   /* of a receive request; what lies behind is left alone */
#define NET_UNICAST 15u       /* addresses beside our own; with more, everything is let in */
#define NET_MULTICAST 64u

/* What the controller is and can do, as `start` found it. */
struct net_device {
    u8 address[NET_ADDRESS];
    bool sends_checksums; /* completes a checksum wherever it is */
    bool cuts_segments;   /* TCP over IPv4 */
    bool checks_received;
};

struct net_piece {
    u64 address; /* for dma_address() */
    u32 length;
};

/* What is to be sent: a frame, or a TCP segment that the controller cuts. The driver's from `send` until net_sent. */
struct net_packet {
    u16 tag; /* unique among those under way: 0 .. RING_TAGS - 1 */
    bool checksum;
    u16 checksum_start; /* sum from here to the end, */
    u16 checksum_at;    /* on top of what stands here, and store here */
    u16 mss;            /* 0: nothing to cut. Else: bytes of TCP payload in a frame, and of the copy in `header`: */
    u16 ip;             /* the offset of the IPv4 header; TCP's is checksum_start */
    u16 headers;        /* how many of the first bytes are headers: to be sent from the checked copy */
    u32 bytes;          /* in all, at least NET_FRAME_LEAST */
    u32 count;
    struct net_piece piece[RING_MAX_SEGMENTS];
    u8 header[NET_HEADERS_MOST];
    /* the class's own */
    bool busy;
    struct net_packet *next;
};

#define NET_FILTER_ASKED 1u
#define NET_FILTER_NO_TABLE 2u /* the guest gave no table of addresses, or one that is too large */

/* Which frames to let in besides broadcast and those to our own address. */
struct net_filter {
    u8 promiscuous;   /* all frames: 0, or for which reasons (NET_FILTER_) */
    u8 all_multicast; /* likewise */
    u8 unicasts, multicasts;
    u8 unicast[NET_UNICAST][NET_ADDRESS];
    u8 multicast[NET_MULTICAST][NET_ADDRESS];
};

struct net_driver {
    const char *name;
    /* Find out what the device is; fill *device. The device moves no frame before `restart`. */
    status_t (*start)(struct net_device *device);
    /* Reset and bring up the device, with this filter. It has forgotten all packets and buffers when this returns. */
    status_t (*restart)(const struct net_filter *filter);
    void (*set_filter)(const struct net_filter *filter);
    /* Take a packet; false: there is no room before net_sent. */
    bool (*send)(const struct net_packet *packet);
    /* Put NET_FRAME_MOST bytes at `address` (for dma_address) behind the other buffers, as number `buffer`. */
    void (*receive)(u32 buffer, u64 address);
    /* Tell the device of what was sent and received since. */
    void (*flush)(void);
    /* Silence its interrupt. */
    void (*acknowledge)(void);
    /* Report what is done, as far as RAM tells: this is called often, until it says that there was nothing. */
    bool (*collect)(void);
    bool (*link_is_up)(void);
    /* One line to the log about what the device counted. */
    void (*log_statistics)(void);
};
extern const struct net_driver net_driver;

/* The driver is done with a packet. */
void net_sent(u16 tag);

/* What the controller says of a received frame's TCP or UDP checksum. */
struct net_check {
    enum { NET_CHECK_NONE, NET_CHECK_GOOD, NET_CHECK_PARTIAL } kind;
    u16 start, offset; /* partial: at start + offset stands the pseudo header's sum, for that of all from `start` on */
};

/*
 * A frame of `bytes` lies in this buffer. bytes 0: what came is not fit to be delivered. The buffer is the driver's no
 * more; it may get it again at once.
 */
void net_received(u32 buffer, u32 bytes, struct net_check check);

/* ---- net_parse.c: pure functions on a request's segments ---- */

/* Copy from the segments, from byte `offset` on, or to their beginning; as much as there is. Returns how many bytes. */
u32 net_read(const struct ring_segment_cell *segment, u32 count, u64 offset, void *buffer, u32 bytes);
u32 net_write(const struct ring_segment_cell *segment, u32 count, const void *buffer, u32 bytes);

/*
 * Check a packet's header and, where segments are to be cut, its protocol headers. Fills all but tag and the class's
 * own. ERR_RANGE: its size or an offset is impossible. ERR_UNSUPPORTED: it asks for what the device does not do.
 * ERR_FORMAT: no TCP over IPv4 where there should be.
 */
NODISCARD status_t net_parse_packet(struct net_packet *packet, const struct ring_segment_cell *segment, u32 count,
                                    const struct net_device *device);

/* Finish a partial checksum. False: its place is not in the frame. */
NODISCARD bool net_complete_checksum(u8 *frame, u32 bytes, struct net_check check);

/* Where a frame behind VirtIO's header has room in one piece; 0: nowhere. */
u64 net_direct_place(const struct ring_segment_cell *segment, u32 count);

/* Execute a control command on the filter; VIRTIO_NET_OK or VIRTIO_NET_ERR. On error the filter is as before. */
u8 net_parse_control(struct net_filter *filter, const struct ring_segment_cell *segment, u32 count);
