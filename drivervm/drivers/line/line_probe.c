/*
 * A probe of interrupt lines, for tests: Intel's 82540EM, which QEMU and Bochs have as `e1000` and which has no
 * messages (MSI), is made to interrupt by its own registers (82540EM Software Developer's Manual, 13.4). It shows
 *   - that each interrupt arrives once and that the line is armed again after it;
 *   - that a device which nobody silences does not flood the machine: one interrupt, then one for each `wait`;
 *   - where the device's DMA goes: our own RAM as the driver names it, or nowhere with `dma = none`.
 * To the guest it offers an entropy source (VirtIO 1.2 5.4) that has nothing to give.
 *
 * Log lines, for whoever reads the event log:
 *   probe: interrupts <n> of <n> [, ...]   | probe: no line is routed
 *   probe: unsilenced <n> while awake, <n> in <n> waits
 *   probe: DMA <what came of it>
 *   probe: done, <n> events
 */
#include "drivervm/runtime/io.h"
#include "drivervm/runtime/runtime.h"

#define REGISTER_BYTES 0x4000u /* of BAR 0, as far as we use it */
#define E1000_ICR 0x00c0u      /* cause read: reading clears it, and with it the line */
#define E1000_ICS 0x00c8u      /* cause set */
#define E1000_IMS 0x00d0u      /* mask set */
#define E1000_IMC 0x00d8u      /* mask clear */
#define E1000_TCTL 0x0400u
#define E1000_TDBAL 0x3800u
#define E1000_TDBAH 0x3804u
#define E1000_TDLEN 0x3808u
#define E1000_TDH 0x3810u
#define E1000_TDT 0x3818u
#define TCTL_EN 0x2u

#define ROUNDS 100u
#define WAITS 20u
#define ANSWER_US 1000000u
#define QUIET_US 20000u
#define AWAKE_US 50000u
#define DMA_US 500000u

#define VIRTIO_TYPE_ENTROPY 4u
#define QUEUE_SIZE 8u

/* 3.3.3: legacy transmit descriptor */
struct transmit_descriptor {
    u64 address;
    u16 length;
    u8 checksum_offset;
    u8 command;
    u8 status;
    u8 checksum_start;
    u16 special;
};
_Static_assert(sizeof(struct transmit_descriptor) == 16, "82540EM 3.3.3");
#define COMMAND_END 0x01u    /* of packet */
#define COMMAND_REPORT 0x08u /* write the status back */
#define STATUS_DONE 0x01u
#define DESCRIPTORS 8u /* 13.4.35: the ring's length is a multiple of 128 bytes */
#define FRAME_BYTES 60u

static u64 registers;
static u32 events; /* in all */
static bool done;

static status_t start(struct driver_offer *offer)
{
    const struct driver_bar *bar = &driver_info->bar[0];
    status_t status = pci_command(PCI_COMMAND_MEMORY, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);

    if (status == OK && (bar->kind != DRIVER_BAR_MEMORY || bar->size < REGISTER_BYTES))
        status = ERR_NOT_FOUND;
    if (status != OK) {
        log_line("probe: the device does not open: %s", status_text(status));
        return status;
    }
    registers = bar->address;
    mmio_write32(registers + E1000_IMC, ~0u); /* whatever a predecessor left */
    mmio_read32(registers + E1000_ICR);
    *offer = (struct driver_offer){.virtio_type = VIRTIO_TYPE_ENTROPY, .queues = 1, .queue_size = QUEUE_SIZE};
    return OK;
}

/* Sleep until the device interrupts. False: it does not within the time. */
static bool wait_for_interrupt(u64 timeout_us)
{
    u64 deadline = deadline_after(timeout_us);

    for (;;) {
        bool late = deadline_passed(deadline);
        ring_heartbeat(&driver_rings[0]);
        if (hypercall(HYPERCALL_WAIT, late ? 0 : timeout_us, 0, 0) & DRIVER_EVENT_INTERRUPT) {
            events++;
            return true;
        }
        if (late)
            return false;
    }
}

/* One interrupt after the other, by changing causes; each is silenced by reading its cause. */
static void probe_rounds(void)
{
    u32 seen = 0, wrong = 0;

    while (seen < ROUNDS) {
        u32 cause = 1u << seen % 8;
        mmio_write32(registers + E1000_ICS, cause);
        if (!wait_for_interrupt(ANSWER_US))
            break;
        seen++;
        wrong += !(mmio_read32(registers + E1000_ICR) & cause);
    }
    bool quiet = !wait_for_interrupt(QUIET_US);
    log_line("probe: interrupts %u of %u%s%s", seen, ROUNDS, wrong ? ", of other causes" : "",
             quiet ? ", line armed each time and quiet afterwards" : ", NOT quiet afterwards");
}

/* The cause stands all the time, and so does the line. */
static void probe_unsilenced(void)
{
    u32 awake, waits = 0;

    mmio_write32(registers + E1000_ICS, 1);
    bool first = wait_for_interrupt(ANSWER_US);
    spin_us(AWAKE_US); /* not ours to count: the hypervisor's counter of interrupts says how many these were */
    awake = __atomic_load_n(&driver_events->pending, __ATOMIC_RELAXED) & DRIVER_EVENT_INTERRUPT ? 1 : 0;
    for (u32 i = 0; first && i < WAITS; i++)
        waits += wait_for_interrupt(ANSWER_US);
    mmio_write32(registers + E1000_IMC, ~0u);
    mmio_read32(registers + E1000_ICR);
    wait_for_interrupt(0); /* one may have been on its way */
    bool quiet = !wait_for_interrupt(QUIET_US);
    log_line("probe: unsilenced %u while awake, %u in %u waits, %s", awake, waits, WAITS,
             quiet ? "quiet afterwards" : "NOT quiet afterwards");
}

/* Let the device fetch a descriptor from our RAM and write its status back there. */
static void probe_dma(void)
{
    struct transmit_descriptor *ring = dma_alloc(DESCRIPTORS * sizeof(*ring), PAGE_SIZE);
    u8 *frame = dma_alloc(FRAME_BYTES, 16);
    status_t status = pci_command(PCI_COMMAND_MASTER, 0);

    if (status != OK || !ring || !frame) {
        log_line("probe: DMA refused: %s", status_text(status));
        return;
    }
    u64 address = dma_address((u64)ring);
    ring[0] = (struct transmit_descriptor){
        .address = dma_address((u64)frame), .length = FRAME_BYTES, .command = COMMAND_END | COMMAND_REPORT};
    mmio_write32(registers + E1000_TDBAL, (u32)address);
    mmio_write32(registers + E1000_TDBAH, (u32)(address >> 32));
    mmio_write32(registers + E1000_TDLEN, DESCRIPTORS * sizeof(*ring));
    mmio_write32(registers + E1000_TDH, 0);
    mmio_write32(registers + E1000_TDT, 0);
    mmio_write32(registers + E1000_TCTL, TCTL_EN);
    mmio_write32(registers + E1000_TDT, 1);
    u64 deadline = deadline_after(DMA_US);
    while (!(__atomic_load_n(&ring[0].status, __ATOMIC_ACQUIRE) & STATUS_DONE) && !deadline_passed(deadline))
        ring_heartbeat(&driver_rings[0]);
    log_line("probe: DMA %s our RAM at %llx, for the device %llx",
             ring[0].status & STATUS_DONE ? "reaches" : "does NOT reach", (unsigned long long)ring,
             (unsigned long long)address);
}

static void request(struct ring *ring, const struct ring_header_cell *header)
{
    static struct ring_segment_cell segments[RING_MAX_SEGMENTS];

    ring_take(ring, header, segments);
    ring_complete(ring, header->tag, 0);
}

/* An interrupt after the end would be a stray one. */
static bool poll(void)
{
    if (done && driver_info->interrupts)
        log_line("probe: a stray interrupt, cause %08x", mmio_read32(registers + E1000_ICR));
    return false;
}

static void pump(void)
{
    if (done)
        return;
    if (driver_info->interrupts) {
        mmio_write32(registers + E1000_IMS, ~0u);
        probe_rounds();
        probe_unsilenced();
    } else {
        log_line("probe: no line is routed");
    }
    probe_dma();
    log_line("probe: done, %u events", events);
    done = true;
}

static u64 timeout(void)
{
    return done ? WAIT_FOREVER : 0;
}

const struct driver driver = {.start = start, .request = request, .poll = poll, .pump = pump, .timeout = timeout};
