/*
 * Virtio network devices (VirtIO 1.2, 5.1): one pair of queues each, and the control queue for the receive mode. They
 * are called net0, net1 and so on, in the order in which they stand on the bus.
 *
 * No byte is copied here. A receive buffer belongs to the device from the refill until the frame is handed to
 * received(), then to the receiver until nic_return_buffer. What nic_send was given belongs to the device until sent().
 * Both callbacks run inside nic_poll or nic_restart, in the one thread. The device is not trusted: each completion must
 * name a chain in flight and have a possible length; whatever else it does is counted and never believed.
 */
#pragma once

#include "guestos/kernel/dev/virtio_pci.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/virtio/net.h"

#define NIC_MAX 8u
#define NIC_RX_BUFFERS 512u      /* twice the largest ring: so many frames may be held by their receivers */
#define NIC_RX_BUFFER_SIZE 2048u /* a full Ethernet frame and its header, two buffers a page */
#define NIC_RX_PARTS 8u          /* buffers that one received frame may fill */
#define NIC_TX_PARTS 96u         /* parts of one frame to be sent */

struct nic_buffer {
    u16 index; /* for nic_return_buffer */
    u8 *data;  /* in the I/O arena */
    u32 length;
};

struct nic_frame {
    bool verified; /* the device vouches for the TCP or UDP checksum, or there was no wire to damage it */
    u32 count;
    struct nic_buffer part[NIC_RX_PARTS];
};

struct nic_part {
    u64 address; /* inside the I/O arena */
    u32 length;
};

struct nic_counters {
    u64 rx_frames, rx_bytes, tx_frames, tx_bytes;
    u64 tx_full;  /* frames that found the ring full */
    u64 protocol; /* impossible length, part count or used index */
    u64 unknown;  /* completions for a chain that was not in flight */
    u64 notified, notify_suppressed;
    u64 interrupts, resets;
};

struct nic; /* one card; the driver's own */

struct nic_info {
    char name[8];
    u32 index; /* 0: net0 */
    bool present;
    status_t error; /* why it is not present; ERR_NO_MEMORY: the I/O arena has no room for its queues and buffers */
    u16 bdf;
    u64 features;
    u8 mac[6];
    bool link_up;
    bool promiscuous, all_multicast;
    u32 rx_size, tx_size;
};

struct nic_callbacks {
    void (*received)(struct nic *nic, const struct nic_frame *frame);
    void (*sent)(struct nic *nic, void *owner);
};

/*
 * Find the devices, allocate their queues and buffers in the arena, start them. A machine without one is no error, and
 * one that does not start leaves the others alone: its nic_info says why.
 */
void nic_init(const struct nic_callbacks *callbacks);

/* Handles 0 to nic_count() - 1, at most NIC_MAX, also of cards that are not usable. nic_get: NULL beyond. */
u32 nic_count(void);
struct nic *nic_get(u32 index);

const struct nic_info *nic_get_info(const struct nic *nic);
struct nic_counters nic_get_counters(const struct nic *nic);

/* The sums over all cards. */
struct nic_counters nic_sum_counters(void);

/*
 * Put a frame into the transmit queue. The first part begins with a struct virtio_net_hdr. ERR_NO_SPACE: the queue is
 * full, try again after sent(). ERR_RANGE: too many parts. ERR_NOT_FOUND: the card is not usable. nic_flush tells the
 * device of all that were put since.
 */
NODISCARD status_t nic_send(struct nic *nic, const struct nic_part *part, u32 count, void *owner);
void nic_return_buffer(struct nic *nic, u16 index);

/* Whether the transmit queue has room for one more frame, of so many parts. */
bool nic_can_send(struct nic *nic, u32 parts);
void nic_flush(struct nic *nic);

/* Deliver what has completed on both queues, refill the receive queue, follow the link. Number of completions. */
u32 nic_poll(struct nic *nic);

/* Ask for an interrupt at the next frame (and when most of a rather full transmit queue is sent); true when there is
 * work already: poll again instead of sleeping. */
bool nic_enable_interrupts(struct nic *nic);

/* Switch promiscuous mode and reception of all multicast frames. ERR_UNSUPPORTED: not offered. ERR_IO: refused. */
NODISCARD status_t nic_set_receive_mode(struct nic *nic, bool promiscuous, bool all_multicast);

/* Reset and start again; frames in the transmit queue are sent() although the device has dropped them. */
NODISCARD status_t nic_restart(struct nic *nic);

/* Bytes of frame data in a completion that says `used` bytes; 0 when that is impossible. Pure. */
u32 nic_check_length(u32 used, bool first);
