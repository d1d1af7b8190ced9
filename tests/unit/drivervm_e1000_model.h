/*
 * A model of an 82540EM or 82574L: registers and descriptors behave as the manual says, and a rule that the driver
 * breaks fails the test. Beside it the runtime that the network class stands on, and a guest with three queues. For
 * drivervm_e1000_test.c and drivervm_net_test.c.
 */
#pragma once

#include "drivervm/drivers/e1000/e1000.h"
#include "drivervm/runtime/io.h"
#include "tests/unit/random.h"

#include <sys/wait.h>
#include <unistd.h>

#define BAR 0xfeb00000ull
#define FRAMES 4096u
#define FRAME_ROOM 1600u

/* ---- the runtime ---- */

static struct driver_info info;
static struct driver_events events;
const struct driver_info *driver_info = &info;
const struct driver_events *driver_events = &events;
struct ring driver_rings[RING_MAX_QUEUES];
static u8 stash[DRIVER_STASH_SIZE];
void *driver_stash = stash;
u8 image_end[MIB(32)] __attribute__((aligned(4096))); /* the VM's RAM, which all starts in this program share */
static u64 now_us;
static u32 pci_command_register;
static struct virtio_net_config told; /* by HYPERCALL_CONFIG */
static u32 configs_told;

u64 tsc_read(void)
{
    return now_us++; /* tsc_khz is 1000: each look at the clock takes a microsecond */
}

i64 hypercall(enum hypercall call, u64 a, u64 b, u64 c)
{
    switch (call) {
    case HYPERCALL_LOG:
        assert_true(b > 0 && b <= 200);
        return 0;
    case HYPERCALL_STASH:
        info.stash_length = (u32)a;
        return 0;
    case HYPERCALL_CONFIG:
        assert_int_equal(b, sizeof(told));
        memcpy(&told, (const void *)a, sizeof(told));
        configs_told++;
        return 0;
    case HYPERCALL_PCI_READ:
        return pci_command_register;
    case HYPERCALL_PCI_WRITE:
        assert_int_equal(a, PCI_COMMAND);
        pci_command_register = (u32)c;
        return 0;
    default:
        fail_msg("hypercall %d", call);
        return 0;
    }
}

#define EXIT_FAULT 40
static bool faults_allowed;

void driver_fault(enum driver_fault_code code, u64 detail)
{
    if (faults_allowed)
        _exit(EXIT_FAULT + (int)code);
    fail_msg("driver_fault(%d, %llx)", code, (unsigned long long)detail);
    abort();
}

/* ---- the controller ---- */

static struct {
    u32 reg[0x10000 / 4];
    u16 eeprom[3];
    bool is_82574, lazy; /* lazy: sends only when told by nic_transmit */
    /* switches */
    bool deaf_eeprom, stuck_reset, no_link;
    const u8 *answer; /* comes once, when a frame is sent */
    u32 answer_bytes;
    /* what happened */
    u32 resets, cut;
    struct e1000_tx_context context;
    struct frame {
        u32 bytes;
        u8 data[FRAME_ROOM];
    } sent[FRAMES];
    u32 sent_count;
    u8 packet[65536 + FRAME_ROOM]; /* that is being gathered */
    u32 packet_bytes;
} nic;

#define REG(offset) nic.reg[(offset) / 4]

static u16 get16(const u8 *at)
{
    return (u16)(at[0] << 8 | at[1]);
}

static void put16(u8 *at, u32 value)
{
    at[0] = (u8)(value >> 8);
    at[1] = (u8)value;
}

static u32 get32(const u8 *at)
{
    return (u32)get16(at) << 16 | get16(at + 2);
}

/* RFC 1071, not inverted */
static u32 ones_sum(const u8 *at, u32 bytes, u32 sum)
{
    for (u32 i = 0; i < bytes; i++)
        sum += i & 1 ? at[i] : (u32)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void sum_into(u8 *frame, u32 bytes, u32 start, u32 end, u32 at)
{
    assert_true(at + 2 <= bytes && start < bytes);
    u32 last = end ? end + 1 : bytes;
    put16(frame + at, ~ones_sum(frame + start, last - start, 0));
}

static void nic_send_frame(const u8 *data, u32 bytes)
{
    assert_true(nic.sent_count < FRAMES && bytes >= NET_FRAME_LEAST && bytes <= NET_SEND_MOST);
    memcpy(nic.sent[nic.sent_count].data, data, bytes);
    nic.sent[nic.sent_count++].bytes = bytes;
}

/* 3.5: cut what was gathered by the context. */
static void nic_cut(void)
{
    const struct e1000_tx_context *context = &nic.context;
    u32 headers = context->headers, ip = context->ip_start, tcp = context->tcp_start;
    u32 left = context->command & TX_LENGTH_MOST;
    u8 frame[FRAME_ROOM];

    assert_int_equal(headers + left, nic.packet_bytes);
    assert_true(context->mss > 0 && left > 0 && headers + context->mss <= NET_SEND_MOST);
    assert_int_equal(context->command & (TX_CUT | TX_IPV4 | TX_TCP | TX_EXTENDED),
                     TX_CUT | TX_IPV4 | TX_TCP | TX_EXTENDED);
    for (u32 done = 0, index = 0; left > 0; index++) {
        u32 part = left < context->mss ? left : context->mss;
        memcpy(frame, nic.packet, headers);
        memcpy(frame + headers, nic.packet + headers + done, part);
        assert_int_equal(get16(frame + ip + 2), 0);
        assert_int_equal(get16(frame + ip + 10), 0);
        put16(frame + ip + 2, headers + part - ip);
        put16(frame + ip + 4, get16(frame + ip + 4) + index);
        u32 sequence = get32(frame + tcp + 4) + done;
        put16(frame + tcp + 4, sequence >> 16);
        put16(frame + tcp + 6, sequence);
        if (part < left)
            frame[tcp + 13] &= (u8)~0x09; /* FIN and PSH are the last one's */
        sum_into(frame, headers + part, ip, context->ip_end, context->ip_checksum);
        u8 length[2];
        put16(length, headers + part - tcp);
        put16(frame + context->tcp_checksum, ones_sum(length, 2, get16(frame + context->tcp_checksum)));
        sum_into(frame, headers + part, tcp, context->tcp_end, context->tcp_checksum);
        nic_send_frame(frame, headers + part);
        done += part;
        left -= part;
        nic.cut++;
    }
}

static void nic_descriptor(union e1000_tx *descriptor)
{
    u32 command = descriptor->data.command;

    assert_true(command & TX_EXTENDED);
    if (!(command & TX_DATA)) {
        assert_int_equal(nic.packet_bytes, 0); /* between packets only */
        nic.context = descriptor->context;
        return;
    }
    u32 bytes = command & TX_LENGTH_MOST;
    assert_true(bytes > 0 && bytes <= 16288 && nic.packet_bytes + bytes <= sizeof(nic.packet));
    memcpy(nic.packet + nic.packet_bytes, (const void *)descriptor->data.address, bytes);
    nic.packet_bytes += bytes;
    if (command & TX_END) {
        assert_true(command & TX_FCS && command & TX_REPORT);
        if (command & TX_CUT) {
            nic_cut();
        } else {
            if (descriptor->data.options & TX_SUM_TCP)
                sum_into(nic.packet, nic.packet_bytes, nic.context.tcp_start, nic.context.tcp_end,
                         nic.context.tcp_checksum);
            nic_send_frame(nic.packet, nic.packet_bytes);
        }
        nic.packet_bytes = 0;
    }
    if (command & TX_REPORT)
        descriptor->data.status |= TX_DONE;
}

static void nic_may_work(void)
{
    assert_true(pci_command_register & PCI_COMMAND_MASTER);
}

/* At most `most` descriptors. */
static void nic_transmit(u32 most)
{
    union e1000_tx *ring = (union e1000_tx *)((u64)REG(E1000_TDBAH) << 32 | REG(E1000_TDBAL));

    if (!(REG(E1000_TCTL) & TCTL_EN))
        return;
    for (; most > 0 && REG(E1000_TDH) != REG(E1000_TDT); most--) {
        nic_may_work();
        nic_descriptor(&ring[REG(E1000_TDH)]);
        REG(E1000_TDH) = (REG(E1000_TDH) + 1) % (REG(E1000_TDLEN) / 16);
    }
}

/* A frame from the wire; false: no buffer, or not listening. done: the descriptor as the device writes it. */
static bool nic_frame_as(const void *data, u32 bytes, struct e1000_rx done)
{
    struct e1000_rx *ring = (struct e1000_rx *)((u64)REG(E1000_RDBAH) << 32 | REG(E1000_RDBAL));

    if (!(REG(E1000_RCTL) & RCTL_EN) || REG(E1000_RDH) == REG(E1000_RDT))
        return false;
    nic_may_work();
    struct e1000_rx *entry = &ring[REG(E1000_RDH)];
    REG(E1000_RDH) = (REG(E1000_RDH) + 1) % (REG(E1000_RDLEN) / 16);
    if (bytes > 0)
        memcpy((void *)entry->address, data, bytes < NET_FRAME_MOST ? bytes : NET_FRAME_MOST);
    done.address = entry->address;
    *entry = done;
    REG(E1000_ICR) |= CAUSE_RXT0;
    return true;
}

static inline bool nic_frame(const void *data, u32 bytes)
{
    return nic_frame_as(data, bytes, (struct e1000_rx){.length = (u16)bytes, .status = RX_DONE | RX_END});
}

static u32 eeprom_answer(void)
{
    u32 command = REG(E1000_EERD), word = command >> (nic.is_82574 ? 2 : 8) & 0xff;

    if (nic.deaf_eeprom || !(command & EERD_START))
        return command;
    assert_true(word < 3);
    return (u32)nic.eeprom[word] << 16 | 1u << (nic.is_82574 ? 1 : 4);
}

u32 mmio_read32(u64 address)
{
    u32 offset = (u32)(address - BAR);

    assert_true(address >= BAR && offset < E1000_REGISTER_BYTES && offset % 4 == 0);
    u32 value = REG(offset);
    if (offset == E1000_STATUS)
        return nic.no_link ? 0 : STATUS_LU;
    if (offset == E1000_EERD)
        return eeprom_answer();
    if (offset == E1000_ICR)
        REG(E1000_ICR) = 0;
    return value;
}

/* 14.3: what is reset has stopped, and reaches no memory. The model of it keeps its registers, as QEMU's does. */
static void nic_reset(void)
{
    assert_false(pci_command_register & PCI_COMMAND_MASTER);
    assert_false(REG(E1000_RCTL) & RCTL_EN);
    assert_false(REG(E1000_TCTL) & TCTL_EN);
    nic.resets++;
    nic.packet_bytes = 0;
}

void mmio_write32(u64 address, u32 value)
{
    u32 offset = (u32)(address - BAR);

    assert_true(address >= BAR && offset < E1000_REGISTER_BYTES && offset % 4 == 0);
    switch (offset) {
    case E1000_CTRL:
        if (value & CTRL_RST)
            nic_reset();
        REG(offset) = nic.stuck_reset ? value : value & ~CTRL_RST;
        return;
    case E1000_ICR:
        REG(offset) &= ~value;
        return;
    case E1000_IMC:
        REG(E1000_IMS) &= ~value;
        return;
    case E1000_IMS:
        REG(offset) |= value;
        return;
    default:
        REG(offset) = value;
    }
    if (offset == E1000_TDT && !nic.lazy)
        nic_transmit(~0u);
    if (offset == E1000_TDT && nic.answer_bytes > 0) { /* before the write is over: QEMU's user network does that */
        assert_int_equal(REG(E1000_IMS), 0);
        assert_true(nic_frame(nic.answer, nic.answer_bytes));
        nic.answer_bytes = 0;
    }
}

void mmio_write64(u64 address, u64 value)
{
    fail_msg("no register has 64 bits: %llx, %llx", (unsigned long long)address, (unsigned long long)value);
}

/* ---- the guest ---- */

#define RX VIRTIO_NET_QUEUE_RX
#define TX VIRTIO_NET_QUEUE_TX
#define CTRL VIRTIO_NET_QUEUE_CTRL

static struct guest_queue {
    struct {
        struct ring_request_page page;
        union ring_cell cells[RING_CELLS];
    } request;
    struct ring_completion_page completion;
    u32 seen;
} * queues;
static struct driver_offer offer;

static void put_request(u32 queue, u16 tag, const struct ring_segment_cell *segment, u32 readable, u32 writable)
{
    struct guest_queue *q = &queues[queue];
    u32 at = q->request.page.produced;

    q->request.cells[at++ % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = (u16)(readable + writable), .readable = readable};
    for (u32 i = 0; i < readable + writable; i++) {
        q->request.cells[at % RING_CELLS].segment = segment[i];
        q->request.cells[at++ % RING_CELLS].segment.flags = i < readable ? 0 : RING_SEGMENT_WRITABLE;
    }
    q->request.page.produced = at;
}

/* The next answer; false: none. */
static bool next_answer(u32 queue, struct ring_completion *out)
{
    struct guest_queue *q = &queues[queue];

    if (q->seen == q->completion.produced)
        return false;
    *out = q->completion.entry[q->seen++ % RING_COMPLETIONS];
    return true;
}

/* As the runtime's loop does it. */
static void loop_once(void)
{
    struct ring_header_cell header;

    for (u32 q = 0; q < 3; q++) {
        while (ring_peek(&driver_rings[q], &header) == OK)
            driver.request(&driver_rings[q], &header);
        ring_release(&driver_rings[q]);
    }
    if (!info.interrupts || REG(E1000_ICR) & REG(E1000_IMS))
        driver.poll();
    driver.pump();
}

/* Until it would sleep. */
static void loop(void)
{
    u32 rounds = 0;

    do {
        assert_true(rounds++ < 10000);
        loop_once();
    } while (driver.timeout() == 0);
}

/* Fresh rings, as after a (re)start. */
static void rings_begin(void)
{
    memset(queues, 0, 3 * sizeof(*queues));
    for (u32 q = 0; q < 3; q++)
        ring_init(&driver_rings[q], &queues[q].request, &queues[q].completion);
}

static void power_on(bool is_82574)
{
    memset(&nic, 0, sizeof(nic));
    nic.is_82574 = is_82574;
    memcpy(nic.eeprom, "\x52\x54\x00\x12\x34\x56", 6);
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end),
                                .tsc_khz = 1000,
                                .interrupts = 1,
                                .pci_vendor = 0x8086,
                                .pci_device = is_82574 ? 0x10d3 : 0x100e};
    info.bar[0] = (struct driver_bar){.address = BAR, .size = 0x20000, .kind = DRIVER_BAR_MEMORY};
    pci_command_register = 0;
    events.features = 0;
    configs_told = 0;
    rings_begin();
}

static void accept_features(u64 features)
{
    events.features = VIRTIO_F_VERSION_1 | features;
}

static void started(void)
{
    assert_int_equal(driver.start(&offer), OK);
    accept_features(offer.features);
}

/* Run in a child, where driver_fault() is the expected end. Returns the code of the fault, 0 when there was none. */
static inline int fault_of(void (*body)(void))
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faults_allowed = true;
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) ? WEXITSTATUS(status) - EXIT_FAULT : 0;
}

/* ---- what both tests do ---- */

#define PLACE_BYTES 70000u
#define HEADER sizeof(struct virtio_net_hdr)

static struct random random_numbers;
static u8 place[2][RING_TAGS][PLACE_BYTES]; /* the guest's memory, by queue and tag */

static inline int setup(void **state)
{
    random_numbers = random_start("e1000");
    queues = calloc(3, sizeof(*queues));
    assert_non_null(queues);
    power_on(false);
    return 0;
}

/* What the guest's reset leaves is what a new VM begins with. */
static inline void forget(void)
{
    events.features = 0;
    nic.deaf_eeprom = nic.stuck_reset = false;
    driver.pump();
}

static inline int teardown(void **state)
{
    forget();
    free(queues);
    return 0;
}

/* `bytes` of a frame behind this header, cut into `pieces` segments, the header in the first one. */
static inline void put_frame(u16 tag, struct virtio_net_hdr header, u32 bytes, u32 pieces)
{
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
    u32 left = bytes + HEADER, at = 0;

    memcpy(place[TX][tag], &header, HEADER);
    for (u32 i = 0; i < pieces; i++) {
        u32 part = i + 1 == pieces ? left : (u32)random_between(&random_numbers, 1, left - (pieces - i - 1));
        segment[i] = (struct ring_segment_cell){.address = (u64)place[TX][tag] + at, .length = part};
        at += part;
        left -= part;
    }
    put_request(TX, tag, segment, pieces, 0);
}

static inline u8 *frame_of(u16 tag)
{
    return place[TX][tag] + HEADER;
}

static inline u32 answers(u32 queue)
{
    struct ring_completion answer;
    u32 count = 0;

    while (next_answer(queue, &answer)) {
        assert_int_equal(answer.length, 0);
        count++;
    }
    return count;
}
