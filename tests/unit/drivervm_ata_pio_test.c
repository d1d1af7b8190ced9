/* SOURCES: drivervm/drivers/ata_pio/ata_pio.c drivervm/drivers/ata_pio/channel.c drivervm/drivers/ata/identity.c
   drivervm/runtime/blk.c drivervm/runtime/blk_layout.c drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The driver of IDE disks, with the block class above it, on a model of the controller and its disk. */
#include "tests/unit/drivervm_ide_model.h"

#define PRIMARY_MASTER ide[0].device[0]

/* Forget everything, as a restart does, except what the disk and the stash hold. */
static void power_on(void)
{
    memset(ide, 0, sizeof(ide));
    memset(&ide_world, 0, sizeof(ide_world));
    ide_world.bad_sector = ide_world.defect_sector = ide_world.silent_sector = ~0ull;
    ide_world.slow = 3;
    set_identity();
    identity[47] = 0x8010;
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end), .tsc_khz = 1000, .interrupts = 1};
    for (u32 c = 0; c < 2; c++) {
        info.bar[2 * c] = (struct driver_bar){.address = command_base[c], .size = 8, .kind = DRIVER_BAR_PORTS};
        info.bar[2 * c + 1] = (struct driver_bar){.address = control_port[c], .size = 1, .kind = DRIVER_BAR_PORTS};
    }
    pci_command_register = 0x0105; /* the firmware used DMA */
    pci_command_ever = 0;
    cut_at = 0;
}

/* What the firmware leaves behind: ready devices. */
static void insert(u32 channel, u32 device, enum ide_content content)
{
    ide[channel].device[device].content = content;
    reset_device(&ide[channel].device[device]);
}

static int setup(void **state)
{
    ide_random = random_start("ide");
    guest_begin(&ide_random);
    power_on();
    insert(0, 0, IDE_DISK);
    return 0;
}

/* Run until `count` more requests are answered. */
static void complete(u32 count)
{
    for (u32 n = 0; completions->produced - seen < count; n++) {
        assert_true(n < 1000000);
        loop_once();
        devices_work();
    }
    assert_int_equal(completions->produced - seen, count);
    seen = completions->produced;
}

/* ---- bring-up ---- */

static void a_disk_is_found_and_offered(void **state)
{
    struct virtio_blk_config config = started();

    assert_int_equal(config.capacity, DISK_SECTORS);
    assert_int_equal(config.physical_block_exp, 3);
    assert_int_equal(ide_world.resets, 1);
    assert_int_equal(PRIMARY_MASTER.multiple, 16);
    assert_int_equal(ide[0].control & CONTROL_NIEN, 0);
    assert_int_equal(pci_command_register, 0x0101); /* ports, no bus mastering */
    assert_int_equal(pci_command_ever & PCI_COMMAND_MASTER, 0);
}

/* Each place, behind others that hold nothing or something else; nothing but the disk is sent a command. */
static void the_first_disk_is_taken(void **state)
{
    static const enum ide_content others[] = {IDE_EMPTY, IDE_PACKET, IDE_STUCK};

    for (u32 position = 0; position < 4; position++) {
        for (u32 i = 0; i < ARRAY_SIZE(others) * 2; i++) {
            if (others[i / 2] == IDE_STUCK && position % 2)
                continue; /* there is no talking past a busy master */
            power_on();
            ide_world.floats_low = i % 2;
            for (u32 before = 0; before < position; before++)
                insert(before / 2, before % 2, others[i / 2]);
            if (others[i / 2] == IDE_STUCK && i % 2 && position)
                insert(0, 0, IDE_EMPTY); /* only the slave is stuck */
            for (u32 at = position; at < 4; at++)
                insert(at / 2, at % 2, at == position || i % 2 ? IDE_DISK : IDE_EMPTY);
            info.stash_length = 0;
            u64 before = now_us;
            started();
            assert_true(others[i / 2] == IDE_STUCK || now_us - before < 10000);
            for (u32 at = 0; at < 4; at++)
                assert_int_equal(ide[at / 2].device[at % 2].multiple, at == position ? 16 : 0);
            submit(0, VIRTIO_BLK_T_IN, 80, 4096);
            complete(1);
            check_reads(1, 4096);
        }
    }
}

static void expect_failure(status_t status)
{
    info.stash_length = 0;
    assert_int_equal(driver.start(&offer), status);
    power_on();
    insert(0, 0, IDE_DISK);
}

static void bring_up_errors(void **state)
{
    insert(0, 0, IDE_EMPTY);
    expect_failure(ERR_NOT_FOUND);
    insert(0, 0, IDE_PACKET);
    insert(1, 1, IDE_PACKET);
    expect_failure(ERR_NOT_FOUND);
    insert(0, 0, IDE_STUCK);
    insert(0, 1, IDE_DISK);
    expect_failure(ERR_NOT_FOUND);
    info.bar[0].kind = DRIVER_BAR_MEMORY;
    expect_failure(ERR_NOT_FOUND);
    info.bar[0].size = 7;
    expect_failure(ERR_NOT_FOUND);
    info.bar[1].size = 0;
    expect_failure(ERR_NOT_FOUND);
    identity[83] = 1u << 14 | 1u << 10; /* no flush of any kind */
    expect_failure(ERR_UNSUPPORTED);
    identity[49] = 0;
    expect_failure(ERR_UNSUPPORTED);
    ide_world.bad_sector = 0; /* the disk's own sector 0 does not matter */
    info.stash_length = 0;
    started();
}

static void blocks_are_as_large_as_both_can(void **state)
{
    static const u16 cases[][2] = {{0x8000, 0}, {0x8001, 0}, {0x8002, 2}, {0x8018, 16}, {0x8080, 128}, {0x80ff, 128}};

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        power_on();
        insert(0, 0, IDE_DISK);
        identity[47] = cases[i][0];
        started();
        assert_int_equal(PRIMARY_MASTER.multiple, cases[i][1]);
        submit(0, VIRTIO_BLK_T_IN, 3, 8192);
        complete(1);
        check_reads(1, 8192);
        assert_int_equal(ide_world.multiples, cases[i][1] ? 1 : 0);
    }
    power_on();
    insert(0, 0, IDE_DISK);
    ide_world.multiple_refused = true;
    started();
    submit(0, VIRTIO_BLK_T_IN, 3, 8192);
    complete(1);
    check_reads(1, 8192);
    assert_int_equal(ide_world.multiples, 0);
}

/* ---- work ---- */

static void random_work(u32 rounds)
{
    struct random random = random_start("work");

    started();
    for (u32 round = 0; round < rounds; round++) {
        u32 count = (u32)random_between(&random, 1, BUFFERS);
        for (u16 t = 0; t < count; t++) {
            u32 bytes = 512 * (u32)random_between(&random, 1, BUFFER_BYTES / 512);
            u64 zone = DISK_SECTORS / BUFFERS, sector = t * zone + random_below(&random, zone - bytes / 512 + 1);
            u32 type = random_one_in(&random, 2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
            if (random_one_in(&random, 10)) {
                submit(t, VIRTIO_BLK_T_FLUSH, 0, 0);
                continue;
            }
            random_fill(&random, guest[t].data, bytes);
            cut_at = (u32)random_between(&random, 1, bytes - 1); /* odd ones need a bounce buffer, even ones do not */
            submit(t, type, sector, bytes);
        }
        complete(count);
        for (u32 t = 0; t < count; t++) {
            assert_int_equal(guest[t].status, VIRTIO_BLK_S_OK);
            if (guest[t].header.type != VIRTIO_BLK_T_FLUSH) /* read or written: both sides hold the same now */
                assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, 512);
        }
    }
    assert_true(ide_world.flushes_ext > 0);
    assert_int_equal(ide_world.resets, 1);
    assert_int_equal(pci_command_ever & PCI_COMMAND_MASTER, 0);
}

static void mixed_work_with_interrupts(void **state)
{
    random_work(200);
    assert_int_equal(ide_world.guard_polls, 0); /* whatever has an interrupt was waited for */
    assert_true(ide_world.edges > 0);
}

static void mixed_work_polled(void **state)
{
    info.interrupts = 0;
    random_work(200);
    assert_int_equal(driver.timeout(), WAIT_FOREVER); /* idle */
}

static void mixed_work_without_blocks(void **state)
{
    identity[47] = 0;
    random_work(50);
    assert_int_equal(ide_world.multiples, 0);
}

/* One interrupt a block: the VM sleeps meanwhile. */
static void each_block_is_an_event(void **state)
{
    static u8 data[256 * 512];
    struct ring_segment_cell segment[] = {
        {.address = (u64)&guest[0].header, .length = sizeof(guest[0].header)},
        {.address = (u64)data, .length = sizeof(data), .flags = RING_SEGMENT_WRITABLE},
        {.address = (u64)&guest[0].status, .length = 1, .flags = RING_SEGMENT_WRITABLE}};

    started();
    guest[0].header = (struct virtio_blk_req){.type = VIRTIO_BLK_T_IN, .sector = 100};
    request_ring->cells[0].header = (struct ring_header_cell){.tag = 0, .segments = 3, .readable = 1};
    for (u32 i = 0; i < 3; i++)
        request_ring->cells[1 + i].segment = segment[i];
    request_ring->page.produced = 4;
    complete(1);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_OK);
    assert_memory_equal(data, disk_data + 100 * 512, sizeof(data));
    assert_int_equal(ide_world.short_commands, 1); /* count 0: 256 sectors */
    assert_int_equal(ide_world.edges, 256 / 16);
}

static void addresses_beyond_28_bits(void **state)
{
    static const u64 sectors[] = {0, 0xffffff, 0x1000000, 0xfffffee, 0xfffffef, 0xffffff0, 0x10000000, 0x123456789aull};

    identity[60] = 0xffff;
    identity[61] = 0x0fff;
    identity[100] = identity[101] = identity[102] = 0xffff; /* 2^48 - 1 */
    started();
    for (u32 i = 0; i < ARRAY_SIZE(sectors); i++) {
        u64 last = sectors[i] + 16;
        u32 before = ide_world.long_commands;
        u8 *place = disk_data + sectors[i] % DISK_SECTORS * 512;
        if (sectors[i] % DISK_SECTORS + 16 > DISK_SECTORS)
            continue;
        random_fill(&ide_random, guest[0].data, 8192);
        submit(0, VIRTIO_BLK_T_OUT, sectors[i], 8192);
        complete(1);
        assert_int_equal(guest[0].status, VIRTIO_BLK_S_OK);
        assert_memory_equal(place, guest[0].data, 8192);
        assert_int_equal(PRIMARY_MASTER.lba, last);
        assert_int_equal(ide_world.long_commands - before, last > 0xfffffff);
        memset(guest[0].data, 0, 8192);
        submit(0, VIRTIO_BLK_T_IN, sectors[i], 8192);
        complete(1);
        assert_memory_equal(place, guest[0].data, 8192);
    }
}

static void a_disk_of_28_bits(void **state)
{
    identity[83] = 1u << 14 | 1u << 12;
    identity[100] = 0;
    assert_int_equal(started().capacity, DISK_SECTORS);
    submit(0, VIRTIO_BLK_T_OUT, DISK_SECTORS - 16, 8192);
    submit(1, VIRTIO_BLK_T_FLUSH, 0, 0);
    complete(2);
    assert_int_equal(guest[0].status | guest[1].status, VIRTIO_BLK_S_OK);
    assert_memory_equal(disk_data + (DISK_SECTORS - 16) * 512, guest[0].data, 8192);
    assert_int_equal(ide_world.long_commands + ide_world.flushes_ext, 0);
    assert_int_equal(ide_world.flushes, 1);
}

/* A write is answered when the device has it, not when the words have gone. */
static void a_write_ends_when_the_device_says_so(void **state)
{
    started();
    ide_world.slow = 1;
    random_fill(&ide_random, guest[0].data, 512);
    submit(0, VIRTIO_BLK_T_OUT, 7, 512);
    for (u32 n = 0; !(PRIMARY_MASTER.block == 1 && PRIMARY_MASTER.moved == 512); n++) {
        assert_true(n < 100);
        loop_once();
        if (!PRIMARY_MASTER.block)
            devices_work();
    }
    for (u32 n = 0; n < 10; n++)
        loop_once();
    assert_int_equal(completions->produced, seen);
    complete(1);
    assert_memory_equal(disk_data + 7 * 512, guest[0].data, 512);
}

static void lost_interrupts_only_cost_time(void **state)
{
    started();
    ide_world.loses_interrupts = true;
    for (u16 t = 0; t < 20; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 16, 8192);
    complete(20);
    check_reads(20, 8192);
    assert_true(ide_world.guard_polls >= 20);
}

/* ---- errors ---- */

/* Requests around one that fails; the disk works afterwards, in blocks as before. */
static void one_fails(u32 type, u64 failing)
{
    for (u16 t = 0; t < 40; t++)
        submit(t, type, t * 16, 8192);
    complete(40);
    for (u32 t = 0; t < 40; t++) {
        assert_int_equal(guest[t].status, t == failing ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
        if (t != failing)
            assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, 8192);
    }
    ide_world.bad_sector = ide_world.defect_sector = ide_world.silent_sector = ~0ull;
    ide_world.ends_early = ide_world.wants_more = false;
    u32 multiples = ide_world.multiples;
    submit(0, VIRTIO_BLK_T_IN, failing * 16, 8192);
    submit(1, VIRTIO_BLK_T_FLUSH, 0, 0);
    complete(2);
    check_reads(1, 8192);
    assert_int_equal(ide_world.multiples, multiples + 1);
    assert_int_equal(ide[0].control & CONTROL_NIEN, info.interrupts ? 0 : CONTROL_NIEN);
}

static void a_bad_sector_fails_one_request(void **state)
{
    for (u32 i = 0; i < 4; i++) {
        power_on();
        insert(0, 0, IDE_DISK);
        info.stash_length = 0;
        info.interrupts = i % 2;
        identity[47] = 0x8004; /* the first block goes well */
        started();
        ide_world.bad_sector = 17 * 16 + 5;
        one_fails(i / 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 17);
        assert_int_equal(ide_world.resets, 1); /* the device is clean: an error of its own ends a command */
    }
}

static void an_error_with_data_needs_a_reset(void **state)
{
    ide_world.data_with_error = true;
    started();
    ide_world.bad_sector = 20 * 16;
    one_fails(VIRTIO_BLK_T_IN, 20);
    assert_int_equal(ide_world.resets, 2);
}

static void a_device_fault_needs_a_reset(void **state)
{
    started();
    ide_world.defect_sector = 3 * 16 + 1;
    one_fails(VIRTIO_BLK_T_OUT, 3);
    assert_int_equal(ide_world.resets, 2);
}

static void a_request_that_never_ends(void **state)
{
    for (u32 i = 0; i < 4; i++) {
        power_on();
        insert(0, 0, IDE_DISK);
        info.stash_length = 0;
        info.interrupts = i % 2;
        started();
        u64 before = now_us;
        ide_world.silent_sector = 9 * 16 + 3;
        one_fails(i / 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 9);
        assert_true(now_us - before >= 10000000 && now_us - before < 13000000);
        assert_int_equal(ide_world.resets, 2);
    }
}

static void data_out_of_step(void **state)
{
    identity[47] = 0x8004; /* four blocks to a request */
    started();
    submit(0, VIRTIO_BLK_T_IN, 0, 8192);
    ide_world.ends_early = true;
    complete(1);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_IOERR);
    submit(0, VIRTIO_BLK_T_OUT, 0, 8192);
    complete(1);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_IOERR);
    ide_world.ends_early = false;
    ide_world.wants_more = true;
    submit(0, VIRTIO_BLK_T_IN, 0, 8192);
    complete(1);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_IOERR);
    ide_world.wants_more = false;
    submit(0, VIRTIO_BLK_T_IN, 0, 8192);
    complete(1);
    check_reads(1, 8192);
}

static void die_for_good(void)
{
    ide_world.silent_sector = 0;
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    for (u32 n = 0; n < 100000; n++) {
        loop_once();
        devices_work();
        ide_world.dies_in_reset = true;
    }
}

static void lose_the_disk(void)
{
    ide_world.silent_sector = 0;
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    loop_once();
    insert(0, 0, IDE_EMPTY);
    for (u32 n = 0; n < 100000; n++) {
        loop_once();
        devices_work();
    }
}

static void work_well(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    complete(1);
}

static void broken_devices_end_in_a_fault(void **state)
{
    started();
    assert_int_equal(fault_of(work_well), 0);
    assert_int_equal(fault_of(die_for_good), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(lose_the_disk), DRIVER_FAULT_DEVICE);
}

/* ---- restarts ---- */

static void a_restart_wants_the_same_disk(void **state)
{
    insert(0, 0, IDE_EMPTY);
    insert(0, 1, IDE_DISK);
    started();
    u32 length = info.stash_length;
    assert_true(length > 0);

    power_on();
    info.stash_length = length;
    insert(0, 0, IDE_DISK); /* a new disk in front of it must not be taken */
    insert(0, 1, IDE_DISK);
    u64 before = now_us;
    started();
    assert_int_equal(ide[0].device[0].multiple, 0);
    assert_int_equal(ide[0].device[1].multiple, 16);
    assert_true(now_us - before < 2500); /* the reset's own 2 ms, and little else */

    set_string(&identity[10], 10, "SN-OTHER");
    assert_int_equal(driver.start(&offer), ERR_STATE);
    set_identity();
    insert(0, 1, IDE_EMPTY);
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    memset(stash, 0xff, length);
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
}

/* The predecessor died with half a block moved: DRQ set, an interrupt pending, interrupts on. */
static void a_transfer_cut_in_the_middle(void **state)
{
    static const u8 codes[] = {ATA_READ_MULTIPLE, ATA_WRITE_MULTIPLE, ATA_FLUSH_CACHE_EXT};
    static u8 before[sizeof(disk_data)];

    started();
    for (u32 i = 0; i < 3 * ARRAY_SIZE(codes); i++) {
        struct ide_device *device = &PRIMARY_MASTER;
        u32 length = info.stash_length, looks = i / 3;
        power_on();
        info.stash_length = length;
        insert(0, 0, IDE_DISK);
        device->multiple = 16;
        *device = (struct ide_device){.content = IDE_DISK,
                                      .status = STATUS_DRDY | (looks == 1 ? STATUS_BSY : STATUS_DRQ),
                                      .code = codes[i % 3],
                                      .write = codes[i % 3] == ATA_WRITE_MULTIPLE,
                                      .lba = 64,
                                      .sectors = 32,
                                      .block = 16,
                                      .moved = looks == 2 ? 16 * 512 - 2 : 1234,
                                      .multiple = 16};
        ide[0].interrupt = true;
        ide_world.edge = i % 2;
        memcpy(before, disk_data, sizeof(before));
        started();
        assert_int_equal(ide_world.resets, 1);
        assert_memory_equal(disk_data, before, sizeof(before));
        assert_int_equal(device->multiple, 16);
        submit(0, VIRTIO_BLK_T_IN, 64, 8192); /* the replay */
        submit(1, VIRTIO_BLK_T_OUT, 64 + 16, 8192);
        complete(2);
        check_reads(2, 8192);
        assert_int_equal(ide_world.guard_polls, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_disk_is_found_and_offered),
        TEST(the_first_disk_is_taken),
        TEST(bring_up_errors),
        TEST(blocks_are_as_large_as_both_can),
        TEST(mixed_work_with_interrupts),
        TEST(mixed_work_polled),
        TEST(mixed_work_without_blocks),
        TEST(each_block_is_an_event),
        TEST(addresses_beyond_28_bits),
        TEST(a_disk_of_28_bits),
        TEST(a_write_ends_when_the_device_says_so),
        TEST(lost_interrupts_only_cost_time),
        TEST(a_bad_sector_fails_one_request),
        TEST(an_error_with_data_needs_a_reset),
        TEST(a_device_fault_needs_a_reset),
        TEST(a_request_that_never_ends),
        TEST(data_out_of_step),
        TEST(broken_devices_end_in_a_fault),
        TEST(a_restart_wants_the_same_disk),
        TEST(a_transfer_cut_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
