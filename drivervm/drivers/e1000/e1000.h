/* The parts of the e1000 driver. Context: the driver VM's only thread. */
#pragma once

#include "drivervm/drivers/e1000/regs.h"
#include "drivervm/runtime/net.h"

/* Multiples of 8 (13.4.27); one descriptor of each ring stays free, or full would look like empty. */
#define E1000_RX_ENTRIES 256u
#define E1000_TX_ENTRIES 512u
#define E1000_PIECE_MOST 8192u /* 3.3.3: a descriptor has at most 16288 bytes */
_Static_assert(E1000_RX_ENTRIES > NET_BUFFERS, "room for every buffer");

/* What the controller reads and writes in our RAM. Rings begin at multiples of 16 (13.4.25). */
struct e1000_memory {
    struct e1000_rx rx[E1000_RX_ENTRIES];
    union e1000_tx tx[E1000_TX_ENTRIES];
    u8 header[RING_TAGS][NET_HEADERS_MOST]; /* of packets that are cut, by tag */
};

/* ring.c: both rings, and where in them we are. rings_start: empty ones; the device must be quiet. */
void rings_start(u64 registers, struct e1000_memory *memory);
bool rings_send(const struct net_packet *packet);
void rings_receive(u32 buffer, u64 address);
bool rings_changed(void); /* since rings_flush */
void rings_flush(void);
bool rings_collect(void);

/*
 * offload.c: descriptors for a packet, as pure functions. build: out has room for OFFLOAD_MOST; header: our RAM for the
 * packet's headers, used when it is cut. Returns how many descriptors, of which the last one ends the packet.
 */
#define OFFLOAD_MOST 160u
u32 offload_build(union e1000_tx *out, const struct net_packet *packet, u8 *header);

/* The bit of the multicast table for an address: word << 5 | bit (13.5.1, offset 0). */
u32 filter_hash(const u8 *address);
