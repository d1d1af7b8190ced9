/* SOURCES: guestos/kernel/dev/virtio_net.c guestos/kernel/dev/virtqueue.c */
/* guestos' virtio-net driver against a device that keeps the rules, and one that breaks them. */
#include "tests/unit/random.h"

#include <string.h>

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"

#define RING 256u
#define QUEUES 3u
#define FRAME 100u

/* ---- the device ---- */

static struct virtio_pci_common_cfg common;
static struct virtio_net_config config = {.mac = {2, 0, 0, 0, 0, 1}, .status = VIRTIO_NET_S_LINK_UP};
static u64 offered;
static struct {
    struct virtq_desc *table;
    struct virtq_avail *avail;
    struct virtq_used *used;
    u16 taken;
} queue[QUEUES];
static u32 kicks;
static u8 arena[MIB(4)] __attribute__((aligned(4096)));
static u64 arena_next;

void *arena_alloc(u64 size, u64 align)
{
    u64 at = (arena_next + align - 1) & ~(align - 1);

    if (at + size > sizeof(arena))
        return NULL;
    arena_next = at + size;
    return arena + at;
}

u64 clock_us(void)
{
    static u64 now;

    return now += 10;
}

void clock_wait_until(u64 serial, u64 deadline_us)
{
}

u64 interrupt_serial(void)
{
    return 0;
}

u8 interrupt_add_handler(void (*handler)(void *context), void *context)
{
    return VECTOR_FIRST_FREE;
}

u64 arena_mark(void)
{
    return arena_next;
}

void arena_release(u64 mark)
{
    arena_next = mark;
}

u32 virtio_count(u16 type)
{
    return type == VIRTIO_ID_NET ? 1 : 0;
}

status_t virtio_find(u16 type, u32 index, struct virtio_device *device)
{
    *device = (struct virtio_device){.bdf = 8, .config = {.base = 1, .length = sizeof(config)}, .msix_vectors = 3};
    return type == VIRTIO_ID_NET && index == 0 ? OK : ERR_NOT_FOUND;
}

u32 virtio_read(const struct virtio_region *region, u32 offset, u32 width)
{
    u32 value = 0;

    if (region->base == 0 && offset == offsetof(struct virtio_pci_common_cfg, queue_size))
        return RING;
    memcpy(&value, (region->base == 1 ? (u8 *)&config : (u8 *)&common) + offset, width);
    return value;
}

void virtio_write(const struct virtio_region *region, u32 offset, u32 width, u32 value)
{
    assert_int_equal(region->base, 0);
    memcpy((u8 *)&common + offset, &value, width);
}

status_t virtio_reset(const struct virtio_device *device)
{
    memset(&common, 0, sizeof(common));
    memset(queue, 0, sizeof(queue));
    return OK;
}

u64 virtio_offered_features(const struct virtio_device *device)
{
    return offered;
}

status_t virtio_negotiate(const struct virtio_device *device, u64 wanted, u64 *accepted)
{
    *accepted = offered & wanted;
    return OK;
}

void virtio_set_msix(const struct virtio_device *device, u16 entry, u8 vector)
{
}

void virtio_enable_queue(const struct virtio_device *device, u64 descriptors, u64 driver, u64 dev)
{
    assert_true(common.queue_select < QUEUES);
    queue[common.queue_select].table = (void *)descriptors;
    queue[common.queue_select].avail = (void *)driver;
    queue[common.queue_select].used = (void *)dev;
}

void virtio_notify(const struct virtio_device *device, u16 notify_off, u16 index)
{
    kicks++;
}

/* The next available head of a queue; it must be there. */
static u16 device_takes(u32 index)
{
    assert_int_not_equal(queue[index].taken, queue[index].avail->idx);
    return queue[index].avail->ring[queue[index].taken++ % RING];
}

static void device_uses(u32 index, u32 id, u32 length)
{
    struct virtq_used *used = queue[index].used;

    used->ring[used->idx % RING] = (struct virtq_used_elem){id, length};
    used->idx++;
}

/* Fill the next receive buffer: a header that says `buffers`, then data. */
static u16 device_fills(u16 buffers, u8 flags, u8 data)
{
    u16 head = device_takes(0);
    const struct virtq_desc *descriptor = &queue[0].table[head];
    struct virtio_net_hdr header = {.flags = flags, .num_buffers = buffers};

    assert_int_equal(descriptor->flags, VIRTQ_DESC_F_WRITE);
    assert_int_equal(descriptor->len, NIC_RX_BUFFER_SIZE);
    memset((void *)descriptor->addr, data, descriptor->len);
    memcpy((void *)descriptor->addr, &header, sizeof(header));
    return head;
}

static void device_sends(u16 buffers, u8 flags, u32 length)
{
    device_uses(0, device_fills(buffers, flags, 0xab), length);
}

/* ---- the driver's owner ---- */

static struct nic *nic;
static u32 received, sent;
static struct nic_frame last;
static bool keep; /* received buffers are not given back */

static void on_received(struct nic *from, const struct nic_frame *frame)
{
    assert_ptr_equal(from, nic);
    received++;
    last = *frame;
    for (u32 i = 0; i < frame->count; i++) {
        assert_true(frame->part[i].index < NIC_RX_BUFFERS);
        assert_in_range(frame->part[i].length, 1, NIC_RX_BUFFER_SIZE);
        assert_true(frame->part[i].data >= arena &&
                    frame->part[i].data + frame->part[i].length <= arena + sizeof(arena));
        if (!keep)
            nic_return_buffer(nic, frame->part[i].index);
    }
}

static void on_sent(struct nic *from, void *owner)
{
    assert_ptr_equal(from, nic);
    (*(u32 *)owner)++;
    sent++;
}

static const struct nic_callbacks callbacks = {on_received, on_sent};

/* The driver is started once, as in a kernel, and brought back to its start by a reset. */
static void start_with(u64 features)
{
    static bool started;

    offered = features | VIRTIO_F_VERSION_1;
    keep = false;
    if (!started)
        nic_init(&callbacks);
    else
        assert_int_equal(nic_restart(nic), OK);
    started = true;
    nic = nic_get(0);
    assert_non_null(nic);
    assert_true(nic_get_info(nic)->present);
    received = sent = 0;
    /* All buffers that the ring has room for are the device's, and no more than there are. */
    assert_int_equal((u16)(queue[0].avail->idx - queue[0].taken), RING);
}

static u64 broken_rules(void)
{
    return nic_get_counters(nic).protocol + nic_get_counters(nic).unknown;
}

static void features_depend_on_each_other(void **state)
{
    start_with(VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_MAC | 1ull << 22);
    assert_int_equal(nic_get_info(nic)->features, VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MAC);
    assert_memory_equal(nic_get_info(nic)->mac, config.mac, 6);
    assert_int_equal(nic_set_receive_mode(nic, true, false), ERR_UNSUPPORTED);
}

static void lengths_are_checked(void **state)
{
    assert_int_equal(nic_check_length(12 + 14, true), 14);
    assert_int_equal(nic_check_length(NIC_RX_BUFFER_SIZE, true), NIC_RX_BUFFER_SIZE - 12);
    assert_int_equal(nic_check_length(12 + 13, true), 0);
    assert_int_equal(nic_check_length(0, true), 0);
    assert_int_equal(nic_check_length(NIC_RX_BUFFER_SIZE + 1, true), 0);
    assert_int_equal(nic_check_length(~0u, true), 0);
    assert_int_equal(nic_check_length(1, false), 1);
    assert_int_equal(nic_check_length(0, false), 0);
    assert_int_equal(nic_check_length(~0u, false), 0);
}

static void frames_arrive(void **state)
{
    start_with(VIRTIO_NET_F_GUEST_CSUM);
    u64 before = broken_rules();
    for (u32 i = 0; i < 3 * RING; i++) {
        device_sends(i % 2 == 0 ? 1 : 7, i % 2 == 0 ? VIRTIO_NET_HDR_F_DATA_VALID : 0, 12 + FRAME);
        assert_int_equal(nic_poll(nic), 1);
        assert_int_equal(last.count, 1); /* without MRG_RXBUF num_buffers means nothing */
        assert_int_equal(last.part[0].length, FRAME);
        assert_int_equal(last.part[0].data[0], 0xab);
        assert_int_equal(last.verified, i % 2 == 0);
    }
    assert_int_equal(received, 3 * RING);
    assert_int_equal(broken_rules(), before);
    start_with(0);
    device_sends(1, VIRTIO_NET_HDR_F_DATA_VALID, 12 + FRAME);
    nic_poll(nic);
    assert_false(last.verified); /* not negotiated, not believed */
}

static void merged_buffers_make_one_frame(void **state)
{
    start_with(VIRTIO_NET_F_MRG_RXBUF);
    u64 before = broken_rules();
    device_sends(3, 0, NIC_RX_BUFFER_SIZE);
    device_sends(0, 0, NIC_RX_BUFFER_SIZE);
    device_sends(0, 0, 5);
    device_sends(1, 0, 12 + 60);
    nic_poll(nic);
    assert_int_equal(received, 2);
    assert_int_equal(last.part[0].length, 60);
    assert_int_equal(broken_rules(), before);
}

static void impossible_frames_are_dropped(void **state)
{
    static const struct {
        u16 buffers;
        u32 length;
    } cases[] = {{1, 0},   {1, 25},       {1, NIC_RX_BUFFER_SIZE + 1}, {1, ~0u}, {0, 112},
                 {2, 112}, {0xffff, 112}, {NIC_RX_PARTS + 1, 112}};

    start_with(VIRTIO_NET_F_MRG_RXBUF);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        u64 before = nic_get_counters(nic).protocol;
        device_sends(cases[i].buffers, 0, cases[i].length);
        nic_poll(nic);
        assert_int_equal(nic_get_counters(nic).protocol, before + 1);
    }
    assert_int_equal(received, 0);
    /* No buffer was lost over it: all of them fit the ring again. */
    assert_int_equal((u16)(queue[0].avail->idx - queue[0].taken), RING);
    device_sends(1, 0, 112);
    nic_poll(nic);
    assert_int_equal(received, 1);
}

static void unknown_and_doubled_completions_are_counted(void **state)
{
    start_with(0);
    u64 before = nic_get_counters(nic).unknown;
    u16 head = device_fills(1, 0, 0);
    device_uses(0, head, 112);
    device_uses(0, head, 112);
    device_uses(0, RING, 112);
    device_uses(0, 0xffffffff, 112);
    nic_poll(nic);
    assert_int_equal(received, 1);
    assert_int_equal(nic_get_counters(nic).unknown, before + 3);
}

static void a_jumping_index_resets_the_device(void **state)
{
    u32 owner = 0;

    start_with(0);
    u64 resets_before = nic_get_counters(nic).resets;
    struct nic_part part = {(u64)arena, 72};
    assert_int_equal(nic_send(nic, &part, 1, &owner), OK);
    queue[0].used->idx += RING + 1;
    nic_poll(nic);
    nic_poll(nic);
    assert_int_equal(received, 0);
    assert_int_equal(nic_get_counters(nic).resets, resets_before + 1);
    assert_int_equal(owner, 1); /* what was in flight is given back once */
    device_sends(1, 0, 112);
    nic_poll(nic);
    assert_int_equal(received, 1);
}

static void held_buffers_run_out_and_come_back(void **state)
{
    start_with(0);
    keep = true;
    u16 index[NIC_RX_BUFFERS];
    for (u32 i = 0; i < NIC_RX_BUFFERS; i++) {
        device_sends(1, 0, 112);
        nic_poll(nic);
        index[i] = last.part[0].index;
    }
    assert_int_equal(queue[0].avail->idx, queue[0].taken); /* the device has none left */
    for (u32 i = 0; i < NIC_RX_BUFFERS; i++)
        nic_return_buffer(nic, index[i]);
    keep = false;
    nic_poll(nic);
    assert_int_equal((u16)(queue[0].avail->idx - queue[0].taken), RING);
}

static void frames_are_sent_once(void **state)
{
    u32 owner[RING] = {0};
    struct nic_part part[2] = {{(u64)arena, 66}, {(u64)arena + 4096, 1000}};

    start_with(VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
    for (u32 i = 0; i < RING; i++)
        assert_int_equal(nic_send(nic, part, 2, &owner[i]), OK);
    assert_int_equal(nic_send(nic, part, 2, owner), ERR_NO_SPACE);
    assert_int_equal(nic_send(nic, part, NIC_TX_PARTS + 1, owner), ERR_RANGE);
    assert_int_equal(nic_send(nic, part, 0, owner), ERR_RANGE);
    u32 before = kicks;
    nic_flush(nic);
    nic_flush(nic);
    assert_int_equal(kicks, before + 1); /* one notification for all */
    for (u32 i = 0; i < RING; i++) {
        u16 head = device_takes(1);
        const struct virtq_desc *descriptor = &queue[1].table[head];
        assert_int_equal(descriptor->flags, VIRTQ_DESC_F_INDIRECT);
        assert_int_equal(descriptor->len, 2 * sizeof(struct virtq_desc));
        device_uses(1, head, i % 2); /* a length there means nothing */
    }
    nic_poll(nic);
    assert_int_equal(sent, RING);
    for (u32 i = 0; i < RING; i++)
        assert_int_equal(owner[i], 1);
}

static void random_completions_do_no_harm(void **state)
{
    struct random random = random_start("guestos_virtio_net");
    u32 owner = 0;
    struct nic_part part = {(u64)arena, 72};

    start_with(VIRTIO_NET_F_MRG_RXBUF | VIRTIO_F_EVENT_IDX);
    for (u32 round = 0; round < 20000; round++) {
        (void)!nic_send(nic, &part, 1, &owner);
        u32 which = (u32)random_below(&random, 2);
        if (queue[which].used != NULL) {
            u32 id = random_one_in(&random, 20) ? (u32)random_bits(&random) : (u32)random_below(&random, RING);
            queue[which].used->ring[queue[which].used->idx % RING] =
                (struct virtq_used_elem){id, (u32)random_bits(&random)};
            queue[which].used->idx += random_one_in(&random, 200) ? (u16)random_u64(&random) : 1;
        }
        nic_poll(nic);
    }
    start_with(0);
    device_sends(1, 0, 112);
    nic_poll(nic);
    assert_int_equal(received, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_depend_on_each_other),
        cmocka_unit_test(lengths_are_checked),
        cmocka_unit_test(frames_arrive),
        cmocka_unit_test(merged_buffers_make_one_frame),
        cmocka_unit_test(impossible_frames_are_dropped),
        cmocka_unit_test(unknown_and_doubled_completions_are_counted),
        cmocka_unit_test(a_jumping_index_resets_the_device),
        cmocka_unit_test(held_buffers_run_out_and_come_back),
        cmocka_unit_test(frames_are_sent_once),
        cmocka_unit_test(random_completions_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
