/* SOURCES: drivervm/drivers/nvme/nvme.c drivervm/drivers/nvme/command.c drivervm/drivers/nvme/queue.c
   drivervm/runtime/blk.c drivervm/runtime/blk_layout.c drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The NVMe driver, with the block class above it, on a model of the controller. */
#include "tests/unit/drivervm_nvme_world.h"

/* ---- pure parts ---- */

static void identities_that_we_refuse(void **state)
{
    struct nvme_namespace space;
    struct nvme_controller controller;
    struct nvme_identify_namespace raw;

    assert_int_equal(nvme_parse_namespace(&space_raw, &space), OK);
    assert_int_equal(space.blocks, disk_blocks());
    assert_int_equal(space.block_exp, 9);
    raw = space_raw;
    raw.lba_format[1] |= 8; /* metadata */
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_UNSUPPORTED);
    raw = space_raw;
    raw.protection = 1;
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_UNSUPPORTED);
    raw = space_raw;
    raw.format = 2; /* there are two */
    raw.lba_format[2] = raw.lba_format[1];
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_UNSUPPORTED);
    raw = space_raw;
    raw.lba_format[1] = 16u << 16;
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_UNSUPPORTED);
    raw.lba_format[1] = 8u << 16;
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_UNSUPPORTED);
    raw = space_raw;
    raw.blocks = 0;
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_FORMAT);
    raw.blocks = ~0ull >> 2;
    assert_int_equal(nvme_parse_namespace(&raw, &space), ERR_FORMAT);
    controller_raw.sqes = 0x77;
    assert_int_equal(nvme_parse_controller(&controller_raw, &controller), ERR_UNSUPPORTED);
}

static void any_identity_is_survived(void **state)
{
    static struct nvme_identify_namespace space_in;
    static struct nvme_identify_controller controller_in;
    struct random random = random_start("identity");
    struct nvme_namespace space;
    struct nvme_controller controller;

    for (u32 round = 0; round < 500; round++) {
        random_fill(&random, &space_in, sizeof(space_in));
        random_fill(&random, &controller_in, sizeof(controller_in));
        controller_in.sqes = controller_in.cqes = 0xf0;
        space_in.protection = 0;
        for (u32 i = 0; i < 16; i++)
            space_in.lba_format[i] &= 0x0fff0000;
        if (nvme_parse_namespace(&space_in, &space) == OK)
            assert_true(space.block_exp >= 9 && space.block_exp <= 12 && space.blocks <= 1ull << 54);
        assert_int_equal(nvme_parse_controller(&controller_in, &controller), OK);
        assert_true(strlen(controller.serial) <= 20 && strlen(controller.model) <= 40);
        assert_true(controller.max_bytes >= 2 * PAGE_SIZE && controller.max_bytes <= NVME_MAX_BYTES);
        assert_int_equal(controller.max_bytes % PAGE_SIZE, 0);
    }
}

/* ---- bring-up ---- */

static void a_namespace_is_found_and_offered(void **state)
{
    struct virtio_blk_config config = started();

    assert_int_equal(config.capacity, DISK_BYTES / 512);
    assert_int_equal(config.blk_size, 512);
    assert_int_equal(config.max_discard_seg, 1);
    assert_int_equal(config.max_write_zeroes_seg, 1);
    assert_int_equal(offer.features & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES),
                     VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES);
    assert_int_equal(pci_command_register, 0x0101 | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(ctrl.disables, 0);
    assert_int_equal(ctrl.queue[1].size, NVME_ENTRIES);
    assert_true(ctrl.queue[1].interrupts);

    power_on(9);
    ctrl.oncs = 0;
    set_identities();
    info.interrupts = 0;
    started();
    assert_int_equal(offer.features & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES), 0);
    assert_false(ctrl.queue[1].interrupts);
}

/* Each breaks one thing; the start ends in bounded time with this status. */
static void bring_up_errors(void **state)
{
    info.bar[0].kind = DRIVER_BAR_PORTS;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(9);
    info.bar[0].size = NVME_DOORBELLS; /* doorbells outside the BAR */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(9);
    ctrl.cap |= 15ull << 32; /* the same, by a stride of 128 KiB */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(9);
    ctrl.cap |= 1ull << 48; /* 8 KiB pages at least */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(9);
    ctrl.cap &= ~(1ull << 37); /* no NVM commands */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(9);
    ctrl.stuck = true;
    u64 before = now_us;
    assert_int_equal(driver.start(&offer), ERR_TIMEOUT);
    assert_true(now_us - before < 1100000); /* CAP.TO: 1 s */
    power_on(9);
    ctrl.deaf = true;
    assert_int_equal(driver.start(&offer), ERR_TIMEOUT);
    power_on(9);
    ctrl.wrong_admin_id = true;
    assert_int_equal(driver.start(&offer), ERR_FORMAT);
    power_on(9);
    ctrl.nsid = 0;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(9);
    ctrl.silent_about_active = true; /* says success and has written nothing: no list, not the answer before it */
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    static const u8 opcodes[] = {ADMIN_IDENTIFY, ADMIN_SET_FEATURES, ADMIN_CREATE_CQ, ADMIN_CREATE_SQ};
    for (u32 i = 0; i < sizeof(opcodes); i++) {
        power_on(9);
        ctrl.admin_fails = opcodes[i];
        assert_int_equal(driver.start(&offer), ERR_IO);
    }
}

static void few_entries_and_far_doorbells(void **state)
{
    ctrl.cap = (ctrl.cap & ~0xffffull) | 3 | 2ull << 32; /* queues of 4, doorbells 16 bytes apart */
    ctrl.stride = 16;
    started();
    for (u16 t = 0; t < 40; t++)
        put_data(t, VIRTIO_BLK_T_IN, t, 512, 0);
    complete(40);
    assert_int_equal(ctrl.most_at_once, 3);
}

/* The controller as a driver leaves it that dies without a reset after it: enabled, with queues and commands. */
static void leave_predecessor(void)
{
    ctrl.cc = CC_EN | CC_IOSQES | CC_IOCQES;
    ctrl.csts = CSTS_RDY;
    ctrl.asq = ctrl.acq = 0xdead0000;
    ctrl.fetched[0] = (struct nvme_command){.opcode = NVM_READ, .nsid = 3, .prp1 = 0xdead0000};
    ctrl.fetched_count = 1;
    pci_command_register |= PCI_COMMAND_MASTER; /* the model insists that it is off when EN goes */
}

static void a_predecessors_work_is_gone(void **state)
{
    leave_predecessor();
    started();
    assert_int_equal(ctrl.disables, 1);
    put_data(0, VIRTIO_BLK_T_IN, 8, 4096, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_memory_equal(request[0].data, disk_data + 8 * 512, 4096);

    power_on(9); /* it died between EN = 1 and RDY = 1 */
    leave_predecessor();
    ctrl.csts = 0;
    ctrl.waiting = 10;
    started();
    assert_int_equal(ctrl.disables, 1);

    power_on(9); /* it died of a fatal error, after which RDY does not come */
    leave_predecessor();
    ctrl.csts = CSTS_CFS;
    ctrl.waiting = 10;
    started();
    assert_int_equal(ctrl.disables, 1);
}

static void a_restart_wants_the_same_namespace(void **state)
{
    started();
    u32 length = info.stash_length;
    assert_true(length > 0);
    power_on(9);
    info.stash_length = length;
    started();

    power_on(9);
    info.stash_length = length;
    ctrl.nsid = 2; /* another one is first now, and ours is not there */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(9);
    info.stash_length = length;
    controller_raw.serial[3] = 'X';
    assert_int_equal(driver.start(&offer), ERR_STATE);
    power_on(9);
    info.stash_length = length;
    space_raw.blocks--;
    assert_int_equal(driver.start(&offer), ERR_STATE);
}

/* ---- work ---- */

static void all_commands_at_once(void **state)
{
    started();
    for (u32 round = 0; round < 5; round++) { /* several times round the queues */
        for (u16 t = 0; t < RING_TAGS; t++)
            put_data(t, VIRTIO_BLK_T_IN, t * 16, 8192, 4 * t);
        loop_once();
        fetch();
        assert_int_equal(ctrl.fetched_count, NVME_DEPTH);
        complete(RING_TAGS);
        for (u32 t = 0; t < RING_TAGS; t++) {
            assert_int_equal(request[t].status, VIRTIO_BLK_S_OK);
            assert_memory_equal(request[t].data, disk_data + t * 16 * 512, 8192);
        }
    }
    assert_int_equal(ctrl.reads, 5 * RING_TAGS); /* no copy, no split */
    assert_int_equal(ctrl.interrupts, ctrl.reads);
}

static void many_pages_need_a_list(void **state)
{
    static u8 large[MIB(2)] __attribute__((aligned(4096)));
    static const u32 offsets[] = {0, 4, 4092};

    ctrl.mdts = 0;
    set_identities();
    started();
    for (u32 i = 0; i < ARRAY_SIZE(offsets); i++) {
        u32 bytes = MIB(1);
        struct ring_segment_cell segment = {.address = (u64)large + offsets[i], .length = bytes};
        u32 before = ctrl.reads;
        put_request(0, VIRTIO_BLK_T_IN, 1, &segment, 1);
        assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
        assert_memory_equal(large + offsets[i], disk_data + 512, bytes);
        assert_int_equal(ctrl.reads - before, bytes / NVME_MAX_BYTES);
    }
}

static void mdts_is_obeyed(void **state)
{
    ctrl.mdts = 1; /* 8 KiB: less than a bounce buffer; the model checks each command */
    set_identities();
    started();
    put_data(0, VIRTIO_BLK_T_IN, 0, 20480, 8);
    put_data(1, VIRTIO_BLK_T_IN, 0, 20480, 1); /* odd: bounced */
    complete(2);
    assert_memory_equal(request[0].data, disk_data, 20480);
    assert_memory_equal(request[1].data, disk_data, 20480);
    assert_int_equal(ctrl.reads, 6);
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 8, 64, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(ctrl.zeroes, 4);
}

/* Cut `bytes` in memory of this tag into segments; most follow each other, some leave a gap, some begin a page. */
static u16 cut(struct random *random, u16 tag, u32 bytes, struct ring_segment_cell *segment)
{
    static const u32 units[] = {1, 4, 512, PAGE_SIZE};
    u32 unit = units[random_below(random, ARRAY_SIZE(units))];
    u32 at = (u32)random_below(random, PAGE_SIZE / unit) * unit;
    u16 count = 0;

    while (bytes > 0) {
        u32 length = bytes;
        if (count < 20 && at < PLACE_BYTES - bytes - 2 * PAGE_SIZE)
            length = unit * (u32)random_between(random, 1, 3 * PAGE_SIZE / unit);
        if (length > bytes)
            length = bytes;
        segment[count++] = (struct ring_segment_cell){.address = (u64)place[tag].data + at, .length = length};
        at += length;
        bytes -= length;
        if (at + bytes + 4 < PLACE_BYTES && random_one_in(random, 3))
            at += 4;
        else if (PAGE_UP(at) + bytes < PLACE_BYTES && random_one_in(random, 3))
            at = (u32)PAGE_UP(at);
    }
    return count;
}

static void copy_segments(const struct ring_segment_cell *segment, u16 count, u8 *out)
{
    for (u32 i = 0; i < count; i++) {
        memcpy(out, (void *)segment[i].address, segment[i].length);
        out += segment[i].length;
    }
}

static void any_layout(u32 block_exp)
{
    struct random random = random_start("layouts");
    static struct ring_segment_cell segment[RING_TAGS][RING_MAX_SEGMENTS];
    static u8 flat[PLACE_BYTES];

    power_on(block_exp);
    assert_int_equal(started().blk_size, 1u << block_exp);
    for (u32 round = 0; round < 300; round++) {
        u16 count = (u16)random_between(&random, 1, 100), parts[RING_TAGS];
        for (u16 t = 0; t < count; t++) {
            u32 sectors = (u32)random_between(&random, 1, 3 * PAGE_SIZE >> block_exp) << (block_exp - 9);
            u64 zone = (DISK_BYTES / 512 / RING_TAGS), sector = t * zone + 8 * random_below(&random, 4);
            random_fill(&random, place[t].data, 64);
            parts[t] = cut(&random, t, sectors * 512, segment[t]);
            put_request(t, random_one_in(&random, 2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, sector, segment[t],
                        parts[t]);
        }
        complete(count);
        for (u32 t = 0; t < count; t++) { /* read or written: both sides hold the same now */
            u32 bytes = 0;
            for (u32 i = 0; i < parts[t]; i++)
                bytes += segment[t][i].length;
            assert_int_equal(request[t].status, VIRTIO_BLK_S_OK);
            copy_segments(segment[t], parts[t], flat);
            assert_memory_equal(flat, disk_data + request[t].sector * 512, bytes);
        }
    }
    assert_true(ctrl.reads > 1000 && ctrl.writes > 1000);
}

static void any_layout_works(void **state)
{
    any_layout(9);
}

static void any_layout_works_in_4_kib_blocks(void **state)
{
    any_layout(12);
}

static void parts_of_blocks_are_refused(void **state)
{
    power_on(12);
    struct virtio_blk_config config = started();
    assert_int_equal(config.blk_size, 4096);
    assert_int_equal(config.capacity, DISK_BYTES / 512);
    assert_int_equal(config.discard_sector_alignment, 8);
    put_data(0, VIRTIO_BLK_T_IN, 0, 512, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    put_data(0, VIRTIO_BLK_T_IN, 1, 4096, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 8, 12, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 8, 16, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(disk_data[4096] | disk_data[3 * 4096 - 1], 0);
    assert_int_equal(ctrl.reads, 0);
}

static void zeroes_and_discards(void **state)
{
    u8 before = disk_data[100 * 512 - 1], after = disk_data[500 * 512];

    started();
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 100, 400, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    for (u32 i = 100 * 512; i < 500 * 512; i++)
        assert_int_equal(disk_data[i], 0);
    assert_int_equal(disk_data[100 * 512 - 1], before);
    assert_int_equal(disk_data[500 * 512], after);
    assert_int_equal(ctrl.zeroes, 2); /* 128 KiB each: MDTS */
    assert_int_equal(ctrl.deallocating_zeroes, 0);
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 100, 1, VIRTIO_BLK_RANGE_UNMAP);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(ctrl.deallocating_zeroes, 1);
    put_range(0, VIRTIO_BLK_T_DISCARD, 1000, 2000, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(ctrl.discards, 1);
    assert_int_equal(disk_data[1000 * 512], 0xdd);
    assert_int_equal(disk_data[3000 * 512 - 1], 0xdd);

    events.features = 0; /* a guest that cannot flush: zeroes are to last when they are answered */
    u32 flushes = ctrl.flushes;
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(ctrl.flushes, flushes + 1);
}

static void ranges_that_fail_their_checks(void **state)
{
    static const struct {
        u32 type, sectors, flags;
        u64 sector;
        u8 status;
    } cases[] = {
        {VIRTIO_BLK_T_DISCARD, 8, VIRTIO_BLK_RANGE_UNMAP, 0, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 8, 2, 0, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 8, 2, 0, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 9, 0, DISK_BYTES / 512 - 8, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, 8, 0, ~0ull, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, ~0u, 0, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, 0, 0, VIRTIO_BLK_S_OK}, /* nothing to do */
    };

    started();
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        put_range(0, cases[i].type, cases[i].sector, cases[i].sectors, cases[i].flags);
        assert_int_equal(status_after(0), cases[i].status);
    }
    put_data(0, VIRTIO_BLK_T_DISCARD, 0, 32, 0); /* two ranges, one is allowed */
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    put_data(0, VIRTIO_BLK_T_WRITE_ZEROES, 0, 15, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(ctrl.zeroes + ctrl.discards, 0);
    power_on(9);
    space_raw.blocks = 1u << 20;
    started();
    put_range(0, VIRTIO_BLK_T_DISCARD, 0, BLK_MAX_RANGE + 1, 0); /* more than the offer allows */
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(ctrl.discards, 0);
    power_on(9);
    ctrl.oncs = 0;
    set_identities();
    started();
    put_range(0, VIRTIO_BLK_T_DISCARD, 0, 8, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_UNSUPP);
    put_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_UNSUPP);
}

static void flushes_reach_the_controller(void **state)
{
    started();
    for (u16 t = 0; t < 20; t++)
        put_data(t, t % 4 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_FLUSH, t % 4 ? t : 0, t % 4 ? 512 : 0, 0);
    complete(20);
    assert_int_equal(ctrl.flushes, 5);
    assert_int_equal(ctrl.writes, 15);
}

static void an_error_fails_one_request_only(void **state)
{
    started();
    ctrl.bad_block = 17 * 8 + 5;
    for (u16 t = 0; t < 100; t++)
        put_data(t, VIRTIO_BLK_T_IN, t * 8, 4096, 0);
    complete(100);
    for (u32 t = 0; t < 100; t++) {
        assert_int_equal(request[t].status, t == 17 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
        if (t != 17)
            assert_memory_equal(request[t].data, disk_data + request[t].sector * 512, 4096);
    }
}

/* ---- a hostile controller ---- */

static void one_read(void)
{
    put_data(0, VIRTIO_BLK_T_IN, 0, 4096, 0);
    loop_once();
}

static void work_well(void)
{
    one_read();
    complete(1);
}

static void complete_what_is_not_out(void)
{
    one_read();
    post(1, 7, 0);
    loop_once();
}

static void complete_beyond_all(void)
{
    one_read();
    post(1, 0xffff, 0);
    loop_once();
}

static void complete_twice(void)
{
    one_read();
    fetch();
    u16 id = ctrl.fetched[0].id;
    disk_work();
    post(1, id, 0);
    loop_once();
}

/* Every entry says "new" in both rounds: the poll must end all the same. */
static void turn_all_phases(void)
{
    one_read();
    struct nvme_completion *entry = ctrl.queue[1].completions;
    for (u32 i = 0; i < ctrl.queue[1].size; i++)
        entry[i] = (struct nvme_completion){.id = 0, .status = 1};
    loop_once();
}

static void fail_fatally(void)
{
    ctrl.csts |= CSTS_CFS;
    loop_once();
}

static void vanish(void)
{
    ctrl.stuck = true;
    ctrl.csts = ~0u;
    loop_once();
}

static void reset_itself(void)
{
    ctrl.stuck = true;
    ctrl.csts = 0;
    loop_once();
}

static void broken_controllers_end_in_a_fault(void **state)
{
    started();
    assert_int_equal(fault_of(work_well), 0);
    assert_int_equal(fault_of(complete_what_is_not_out), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(complete_beyond_all), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(complete_twice), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(turn_all_phases), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(fail_fatally), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(vanish), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(reset_itself), DRIVER_FAULT_DEVICE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(identities_that_we_refuse),
        TEST(any_identity_is_survived),
        TEST(a_namespace_is_found_and_offered),
        TEST(bring_up_errors),
        TEST(few_entries_and_far_doorbells),
        TEST(a_predecessors_work_is_gone),
        TEST(a_restart_wants_the_same_namespace),
        TEST(all_commands_at_once),
        TEST(many_pages_need_a_list),
        TEST(mdts_is_obeyed),
        TEST(any_layout_works),
        TEST(any_layout_works_in_4_kib_blocks),
        TEST(parts_of_blocks_are_refused),
        TEST(zeroes_and_discards),
        TEST(ranges_that_fail_their_checks),
        TEST(flushes_reach_the_controller),
        TEST(an_error_fails_one_request_only),
        TEST(broken_controllers_end_in_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
