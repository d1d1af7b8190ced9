/* SOURCES: guestos/kernel/dev/virtio_blk.c guestos/kernel/dev/virtqueue.c */
/* guestos' virtio-blk driver with two disks: one keeps the rules, the other breaks them. */
#include "tests/unit/random.h"

#include <string.h>

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"

#define DISKS 2u
#define RING 64u
#define BDF(index) (0x10u + 8 * (index))
#define OFFERED (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_BLK_F_SEG_MAX)

/* ---- the devices; regions of device i have the base 2 * i (common) and 2 * i + 1 (its own configuration) ---- */

static struct model {
    struct virtio_pci_common_cfg common;
    struct virtio_blk_config config;
    struct virtq_desc *table;
    struct virtq_avail *avail;
    struct virtq_used *used;
    u16 taken;
    u32 kicks, resets;
    void (*handler[2])(void *context); /* MSI-X entries: configuration, queue */
    void *context[2];
} models[DISKS];

static u8 arena[MIB(4)] __attribute__((aligned(4096)));
static u64 arena_next, now;
static void (*while_sleeping)(void);
static struct {
    void (*run)(void *context);
    void *context;
} handlers[16];
static u32 handler_count;

void *arena_alloc(u64 size, u64 align)
{
    u64 at = (arena_next + align - 1) & ~(align - 1);

    if (at + size > sizeof(arena))
        return NULL;
    arena_next = at + size;
    return arena + at;
}

u64 arena_mark(void)
{
    return arena_next;
}

void arena_release(u64 mark)
{
    arena_next = mark;
}

u64 clock_us(void)
{
    return now += 10;
}

void clock_wait_until(u64 serial, u64 deadline_us)
{
    if (while_sleeping != NULL)
        while_sleeping();
    now = now < deadline_us ? deadline_us : now;
}

u64 interrupt_serial(void)
{
    return 0;
}

u8 interrupt_add_handler(void (*handler)(void *context), void *context)
{
    assert_in_range(handler_count, 0, ARRAY_SIZE(handlers) - 1);
    handlers[handler_count].run = handler;
    handlers[handler_count].context = context;
    return (u8)(VECTOR_FIRST_FREE + handler_count++);
}

void background_run(void)
{
}

bool uart_interrupted(void)
{
    return false;
}

u32 virtio_count(u16 type)
{
    return type == VIRTIO_ID_BLOCK ? DISKS : 0;
}

status_t virtio_find(u16 type, u32 index, struct virtio_device *device)
{
    assert_int_equal(type, VIRTIO_ID_BLOCK);
    *device = (struct virtio_device){.bdf = (u16)BDF(index),
                                     .common = {.base = 2 * index},
                                     .config = {.base = 2 * index + 1, .length = sizeof(struct virtio_blk_config)},
                                     .msix_vectors = 2};
    return OK;
}

static struct model *model_of(const struct virtio_device *device)
{
    return &models[(device->bdf - BDF(0)) / 8];
}

u32 virtio_read(const struct virtio_region *region, u32 offset, u32 width)
{
    struct model *model = &models[region->base / 2];
    u32 value = 0;

    if (region->base % 2 == 0 && offset == offsetof(struct virtio_pci_common_cfg, queue_size))
        return RING;
    memcpy(&value, (region->base % 2 == 1 ? (u8 *)&model->config : (u8 *)&model->common) + offset, width);
    return value;
}

void virtio_write(const struct virtio_region *region, u32 offset, u32 width, u32 value)
{
    assert_int_equal(region->base % 2, 0);
    memcpy((u8 *)&models[region->base / 2].common + offset, &value, width);
}

status_t virtio_reset(const struct virtio_device *device)
{
    struct model *model = model_of(device);

    memset(&model->common, 0, sizeof(model->common));
    model->taken = 0;
    model->resets++;
    return OK;
}

status_t virtio_negotiate(const struct virtio_device *device, u64 wanted, u64 *accepted)
{
    *accepted = OFFERED & wanted;
    return OK;
}

void virtio_set_msix(const struct virtio_device *device, u16 entry, u8 vector)
{
    struct model *model = model_of(device);

    model->handler[entry] = handlers[vector - VECTOR_FIRST_FREE].run;
    model->context[entry] = handlers[vector - VECTOR_FIRST_FREE].context;
}

void virtio_enable_queue(const struct virtio_device *device, u64 descriptors, u64 driver, u64 dev)
{
    struct model *model = model_of(device);

    model->table = (void *)descriptors;
    model->avail = (void *)driver;
    model->used = (void *)dev;
}

void virtio_notify(const struct virtio_device *device, u16 notify_off, u16 queue)
{
    model_of(device)->kicks++;
}

/* The next available head; it must be there. */
static u16 device_takes(struct model *model)
{
    assert_int_not_equal(model->taken, model->avail->idx);
    return model->avail->ring[model->taken++ % RING];
}

static void device_uses(struct model *model, u32 id, u32 length)
{
    model->used->ring[model->used->idx % RING] = (struct virtq_used_elem){id, length};
    model->used->idx++;
}

static void device_interrupts(struct model *model)
{
    model->handler[1](model->context[1]);
}

/* Complete the next request with this status, truthfully about its length. */
static u16 device_completes(struct model *model, u8 status)
{
    u16 head = device_takes(model);
    const struct virtq_desc *part = (const struct virtq_desc *)model->table[head].addr;
    u32 length = 1;

    while ((part->flags & VIRTQ_DESC_F_NEXT) != 0) {
        length += (part->flags & VIRTQ_DESC_F_WRITE) != 0 ? part->len : 0;
        part++;
    }
    *(u8 *)part->addr = status;
    device_uses(model, head, length);
    return head;
}

/* ---- the driver's owner ---- */

static struct blk *disk[DISKS];
static u32 done[DISKS];
static enum blk_result last[DISKS];
static u8 *data;
static struct blk_segment segment;
static struct blk_request requests[DISKS][RING];

static void on_done(struct blk_request *request)
{
    u32 index = (u32)(u64)request->context;

    done[index]++;
    last[index] = request->result;
}

static void read_one(u32 index, u32 slot)
{
    requests[index][slot] = (struct blk_request){.type = VIRTIO_BLK_T_IN,
                                                 .device_writes = true,
                                                 .segment = &segment,
                                                 .segments = 1,
                                                 .done = on_done,
                                                 .context = (void *)(u64)index};
    assert_int_equal(blk_submit(disk[index], &requests[index][slot]), OK);
    blk_kick(disk[index]);
}

static int start(void **state)
{
    for (u32 i = 0; i < DISKS; i++)
        models[i].config = (struct virtio_blk_config){.capacity = 1000 * (i + 1), .seg_max = 8};
    blk_init();
    data = arena_alloc(VIRTIO_BLK_SECTOR, 4096);
    segment = (struct blk_segment){(u64)data, VIRTIO_BLK_SECTOR};
    for (u32 i = 0; i < DISKS; i++)
        disk[i] = blk_get(i);
    return 0;
}

static int begin(void **state)
{
    while_sleeping = NULL;
    for (u32 i = 0; i < DISKS; i++)
        assert_int_equal(blk_restart(disk[i]), OK);
    memset(done, 0, sizeof(done));
    return 0;
}

static void disks_have_names_and_contents_of_their_own(void **state)
{
    assert_int_equal(blk_count(), DISKS);
    assert_null(blk_get(DISKS));
    assert_ptr_equal(blk_find("vdb"), disk[1]);
    assert_ptr_equal(blk_find("/dev/vda"), disk[0]);
    assert_null(blk_find("vdc"));
    assert_null(blk_find("/dev/"));
    for (u32 i = 0; i < DISKS; i++) {
        assert_true(blk_get_info(disk[i])->present);
        assert_int_equal(blk_get_info(disk[i])->sectors, 1000 * (i + 1));
        assert_int_equal(blk_get_info(disk[i])->max_segments, 8);
    }
}

static void requests_go_to_their_disk(void **state)
{
    u32 kicks = models[0].kicks;

    read_one(1, 0);
    assert_int_equal(models[0].avail->idx, 0);
    assert_int_equal(models[0].kicks, kicks);
    assert_int_equal(blk_in_flight(disk[0]), 0);
    assert_int_equal(blk_sum_in_flight(), 1);
    device_completes(&models[1], VIRTIO_BLK_S_OK);
    assert_true(blk_wait(now + 1000));
    assert_int_equal(done[1], 1);
    assert_int_equal(last[1], BLK_OK);
    assert_int_equal(done[0], 0);
}

static void one_wait_serves_all_disks(void **state)
{
    for (u32 i = 0; i < DISKS; i++)
        read_one(i, 0);
    device_completes(&models[0], VIRTIO_BLK_S_IOERR);
    device_completes(&models[1], VIRTIO_BLK_S_UNSUPP);
    assert_true(blk_wait(now + 1000));
    assert_int_equal(last[0], BLK_IO_ERROR);
    assert_int_equal(last[1], BLK_UNSUPPORTED);
    assert_false(blk_wait(now + 1000));
}

static void second_disk_completes(void)
{
    if (blk_in_flight(disk[1]) == 0 || models[1].taken == models[1].avail->idx)
        return;
    device_completes(&models[1], VIRTIO_BLK_S_OK);
    device_interrupts(&models[1]);
}

static void any_disk_ends_the_sleep(void **state)
{
    u64 missed = blk_sum_counters().missed_interrupts;

    read_one(0, 0);
    read_one(1, 0);
    while_sleeping = second_disk_completes;
    assert_true(blk_wait(now + 1000000));
    assert_int_equal(done[0], 0);
    assert_int_equal(done[1], 1);
    assert_int_equal(blk_sum_counters().missed_interrupts, missed);
}

static void first_disk_forgets_its_interrupt(void)
{
    if (models[0].taken != models[0].avail->idx)
        device_completes(&models[0], VIRTIO_BLK_S_OK);
    second_disk_completes();
}

/* The other disk's interrupt wakes the thread, and does not hide that this one's is missing. */
static void a_missing_interrupt_is_counted_for_its_disk(void **state)
{
    u64 before[DISKS] = {blk_get_counters(disk[0]).missed_interrupts, blk_get_counters(disk[1]).missed_interrupts};

    read_one(0, 0);
    read_one(1, 0);
    while_sleeping = first_disk_forgets_its_interrupt;
    assert_true(blk_wait(now + 1000000));
    assert_int_equal(done[0] + done[1], 2);
    assert_int_equal(blk_get_counters(disk[0]).missed_interrupts, before[0] + 1);
    assert_int_equal(blk_get_counters(disk[1]).missed_interrupts, before[1]);
}

static void broken_rules_stay_with_their_disk(void **state)
{
    struct blk_counters before[DISKS] = {blk_get_counters(disk[0]), blk_get_counters(disk[1])};

    read_one(0, 0);
    read_one(1, 0);
    u16 head = device_completes(&models[0], VIRTIO_BLK_S_OK);
    device_uses(&models[0], head, 1);            /* a second time */
    device_uses(&models[0], RING, 1);            /* no such head */
    device_uses(&models[0], (u16)(head + 1), 1); /* never made available */
    device_completes(&models[1], VIRTIO_BLK_S_OK);
    assert_true(blk_wait(now + 1000));
    assert_int_equal(done[0], 1);
    assert_int_equal(done[1], 1);
    struct blk_counters first = blk_get_counters(disk[0]), second = blk_get_counters(disk[1]), sum = blk_sum_counters();
    assert_int_equal(first.doubled, before[0].doubled + 1);
    assert_int_equal(first.unknown, before[0].unknown + 2);
    assert_int_equal(second.doubled + second.unknown + second.protocol, 0);
    assert_int_equal(sum.doubled, first.doubled);
    assert_int_equal(sum.completions, first.completions + second.completions);
}

static void impossible_answers_are_not_believed(void **state)
{
    static const struct {
        u8 status;
        u32 length;
    } cases[] = {{VIRTIO_BLK_S_OK, 1}, {VIRTIO_BLK_S_OK, 514}, {VIRTIO_BLK_S_OK, ~0u}, {0xff, 513}, {3, 513}};
    struct blk_counters before = blk_get_counters(disk[0]), after;

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        read_one(0, 0);
        u16 head = device_takes(&models[0]);
        const struct virtq_desc *parts = (const struct virtq_desc *)models[0].table[head].addr;
        *(u8 *)parts[2].addr = cases[i].status;
        device_uses(&models[0], head, cases[i].length);
        assert_true(blk_wait(now + 1000));
        assert_int_equal(last[0], BLK_PROTOCOL);
    }
    /* Only a length beyond the buffers breaks a rule of the queue; the rest are lies about the disk. */
    after = blk_get_counters(disk[0]);
    assert_int_equal(after.protocol - before.protocol, 5);
    assert_int_equal(after.implausible - before.implausible, 3);
}

static void a_jumping_index_takes_nothing(void **state)
{
    u64 protocol = blk_get_counters(disk[0]).protocol;

    read_one(0, 0);
    models[0].used->idx += RING + 1;
    assert_false(blk_wait(now + 1000));
    assert_int_equal(done[0], 0);
    assert_int_equal(blk_get_counters(disk[0]).protocol, protocol + 1);
}

/* The next command must know what the disk has said since the last one. */
static void a_change_while_nobody_waits_is_followed(void **state)
{
    models[0].config.capacity = 77;
    models[0].handler[0](models[0].context[0]);
    assert_int_equal(blk_get_info(disk[0])->sectors, 1000);
    assert_ptr_equal(blk_find("vda"), disk[0]);
    assert_int_equal(blk_get_info(disk[0])->sectors, 77);
    models[0].config.capacity = 1000;
    models[0].handler[0](models[0].context[0]);
    assert_ptr_equal(blk_find("vda"), disk[0]);
}

static void a_reset_aborts_what_its_disk_had(void **state)
{
    u32 resets = models[1].resets;

    read_one(0, 0);
    read_one(1, 0);
    models[0].common.device_status |= VIRTIO_STATUS_NEEDS_RESET;
    models[0].handler[0](models[0].context[0]);
    assert_true(blk_wait(now + 1000000));
    assert_int_equal(last[0], BLK_ABORTED);
    assert_int_equal(done[1], 0);
    assert_int_equal(models[1].resets, resets);
    device_completes(&models[1], VIRTIO_BLK_S_OK);
    assert_true(blk_wait(now + 1000));
    assert_int_equal(last[1], BLK_OK);
    assert_int_equal(blk_release_device(disk[0])->bdf, BDF(0));
    assert_int_equal(blk_submit(disk[0], &requests[0][0]), ERR_NOT_FOUND);
}

static void random_completions_do_no_harm(void **state)
{
    struct random random = random_start("guestos_virtio_blk");

    for (u32 round = 0; round < 20000; round++) {
        struct model *model = &models[0];
        requests[0][round % RING] = (struct blk_request){
            .type = VIRTIO_BLK_T_IN, .device_writes = true, .segment = &segment, .segments = 1, .done = on_done};
        if (blk_in_flight(disk[0]) < RING / 2)
            (void)!blk_submit(disk[0], &requests[0][round % RING]);
        u32 id = random_one_in(&random, 20) ? (u32)random_bits(&random) : (u32)random_below(&random, RING);
        model->used->ring[model->used->idx % RING] = (struct virtq_used_elem){id, (u32)random_bits(&random)};
        model->used->idx += random_one_in(&random, 200) ? (u16)random_u64(&random) : 1;
        (void)blk_wait(0);
        assert_in_range(blk_in_flight(disk[0]), 0, RING);
    }
    assert_int_equal(blk_restart(disk[0]), OK);
    assert_int_equal(blk_in_flight(disk[0]), 0);
    read_one(0, 0);
    device_completes(&models[0], VIRTIO_BLK_S_OK);
    assert_true(blk_wait(now + 1000));
    assert_int_equal(last[0], BLK_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(disks_have_names_and_contents_of_their_own, begin),
        cmocka_unit_test_setup(requests_go_to_their_disk, begin),
        cmocka_unit_test_setup(one_wait_serves_all_disks, begin),
        cmocka_unit_test_setup(any_disk_ends_the_sleep, begin),
        cmocka_unit_test_setup(a_missing_interrupt_is_counted_for_its_disk, begin),
        cmocka_unit_test_setup(broken_rules_stay_with_their_disk, begin),
        cmocka_unit_test_setup(impossible_answers_are_not_believed, begin),
        cmocka_unit_test_setup(a_jumping_index_takes_nothing, begin),
        cmocka_unit_test_setup(a_change_while_nobody_waits_is_followed, begin),
        cmocka_unit_test_setup(a_reset_aborts_what_its_disk_had, begin),
        cmocka_unit_test_setup(random_completions_do_no_harm, begin),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
