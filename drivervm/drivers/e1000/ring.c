/*
 * The receive and the transmit ring (82540EM 3.2.6, 3.4): software writes descriptors and moves the tail, the
 * controller works from the head up to the tail and marks what is done in the descriptor itself.
 */
#include "drivervm/drivers/e1000/e1000.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define FRAMES_AT_ONCE 64u /* a flood must not keep us from everything else */
#define NO_TAG 0xffu

_Static_assert(RING_TAGS <= NO_TAG, "a tag is a byte");

static struct {
    u64 registers;
    struct e1000_memory *memory;
    u32 rx_head, rx_tail, rx_told; /* next to be done, next to be written, and the tail that the controller knows */
    u32 tx_head, tx_tail, tx_told;
    bool skipping; /* the rest of a frame that was too long for its buffer */
    u8 rx_buffer[E1000_RX_ENTRIES];
    u8 tx_tag[E1000_TX_ENTRIES]; /* at the last descriptor of a packet; elsewhere NO_TAG */
} ring;

void rings_start(u64 registers, struct e1000_memory *memory)
{
    memset(&ring, 0, sizeof(ring));
    memset(memory->rx, 0, sizeof(memory->rx));
    memset(memory->tx, 0, sizeof(memory->tx));
    ring.registers = registers;
    ring.memory = memory;
    u64 rx = dma_address((u64)memory->rx), tx = dma_address((u64)memory->tx);
    mmio_write32(registers + E1000_RDBAL, (u32)rx);
    mmio_write32(registers + E1000_RDBAH, (u32)(rx >> 32));
    mmio_write32(registers + E1000_RDLEN, sizeof(memory->rx));
    mmio_write32(registers + E1000_RDH, 0);
    mmio_write32(registers + E1000_RDT, 0);
    mmio_write32(registers + E1000_TDBAL, (u32)tx);
    mmio_write32(registers + E1000_TDBAH, (u32)(tx >> 32));
    mmio_write32(registers + E1000_TDLEN, sizeof(memory->tx));
    mmio_write32(registers + E1000_TDH, 0);
    mmio_write32(registers + E1000_TDT, 0);
}

bool rings_send(const struct net_packet *packet)
{
    union e1000_tx descriptors[OFFLOAD_MOST];
    u32 room = (ring.tx_head - ring.tx_tail - 1) % E1000_TX_ENTRIES;

    /* Known before: most packets need as many as they have pieces, and the largest do not fit a full ring anyway. */
    if (room < packet->count + 2)
        return false;
    u32 count = offload_build(descriptors, packet, ring.memory->header[packet->tag]);
    if (count > room)
        return false;
    for (u32 i = 0; i < count; i++) {
        ring.memory->tx[ring.tx_tail] = descriptors[i];
        ring.tx_tag[ring.tx_tail] = i + 1 == count ? (u8)packet->tag : NO_TAG;
        ring.tx_tail = (ring.tx_tail + 1) % E1000_TX_ENTRIES;
    }
    return true;
}

void rings_receive(u32 buffer, u64 address)
{
    ring.memory->rx[ring.rx_tail] = (struct e1000_rx){.address = dma_address(address)};
    ring.rx_buffer[ring.rx_tail] = (u8)buffer;
    ring.rx_tail = (ring.rx_tail + 1) % E1000_RX_ENTRIES;
}

bool rings_changed(void)
{
    return ring.rx_told != ring.rx_tail || ring.tx_told != ring.tx_tail;
}

void rings_flush(void)
{
    if (ring.rx_told != ring.rx_tail)
        mmio_write32(ring.registers + E1000_RDT, ring.rx_tail);
    if (ring.tx_told != ring.tx_tail)
        mmio_write32(ring.registers + E1000_TDT, ring.tx_tail);
    ring.rx_told = ring.rx_tail;
    ring.tx_told = ring.tx_tail;
}

/* Of a packet the last descriptor alone is reported (RS); the ones before it are done then, too. */
static bool collect_sent(void)
{
    bool any = false;

    for (u32 at = ring.tx_head; at != ring.tx_told; at = (at + 1) % E1000_TX_ENTRIES) {
        if (ring.tx_tag[at] == NO_TAG)
            continue;
        if (!(__atomic_load_n(&ring.memory->tx[at].data.status, __ATOMIC_ACQUIRE) & TX_DONE))
            break;
        ring.tx_head = (at + 1) % E1000_TX_ENTRIES;
        net_sent(ring.tx_tag[at]);
        any = true;
    }
    return any;
}

/* The descriptor is copied once: the device may still write there. */
static void take_frame(const struct e1000_rx *done, u32 buffer)
{
    u32 bytes = done->length;
    bool whole = (done->status & RX_END) && !ring.skipping;

    ring.skipping = !(done->status & RX_END);
    if (!whole || (done->errors & RX_BROKEN))
        bytes = 0;
    bool good = (done->status & (RX_NOT_CHECKED | RX_TCP_CHECKED)) == RX_TCP_CHECKED && !(done->errors & RX_TCP_WRONG);
    net_received(buffer, bytes, (struct net_check){.kind = good ? NET_CHECK_GOOD : NET_CHECK_NONE});
}

bool rings_collect(void)
{
    bool any = collect_sent();

    for (u32 frames = 0; frames < FRAMES_AT_ONCE && ring.rx_head != ring.rx_told; frames++) {
        const struct e1000_rx *entry = &ring.memory->rx[ring.rx_head];
        /* Acquire: the frame and the rest of the descriptor were written before the status. */
        struct e1000_rx done = {.status = __atomic_load_n(&entry->status, __ATOMIC_ACQUIRE)};
        if (!(done.status & RX_DONE))
            break;
        done.length = __atomic_load_n(&entry->length, __ATOMIC_RELAXED);
        done.errors = __atomic_load_n(&entry->errors, __ATOMIC_RELAXED);
        u32 buffer = ring.rx_buffer[ring.rx_head];
        ring.rx_head = (ring.rx_head + 1) % E1000_RX_ENTRIES;
        take_frame(&done, buffer);
        any = true;
    }
    return any;
}
