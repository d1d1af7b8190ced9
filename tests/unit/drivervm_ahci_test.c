/* SOURCES: drivervm/drivers/ahci/ahci.c drivervm/drivers/ahci/command.c drivervm/drivers/ahci/port.c
   drivervm/drivers/ahci/recover.c drivervm/drivers/ata/identity.c drivervm/runtime/blk.c drivervm/runtime/blk_layout.c
   drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The AHCI driver, with the block class above it, on a model of the controller and its disk. */
#include "tests/unit/drivervm_ahci_world.h"

/* ---- pure parts ---- */

static void fis_of_reads_and_writes(void **state)
{
    struct blk_io io = {.op = BLK_READ, .lba = 0x123456789abcull, .bytes = 65536 * 512};
    struct fis_h2d fis;

    fis_build_io(&fis, &io, false, 5);
    assert_int_equal(fis.command, 0x25);
    assert_int_equal(fis.device, 0x40);
    assert_int_equal(fis_lba(&fis), io.lba);
    assert_int_equal(fis.count_low | fis.count_high << 8, 0); /* 0 means 65536 */
    io.op = BLK_WRITE;
    io.bytes = 0x1234 * 512;
    fis_build_io(&fis, &io, true, 31);
    assert_int_equal(fis.command, 0x61);
    assert_int_equal(fis.feature_low | fis.feature_high << 8, 0x1234);
    assert_int_equal(fis.count_low, 31 << 3);
    assert_int_equal(fis.count_high, 0);
    io.op = BLK_FLUSH;
    fis_build_io(&fis, &io, true, 3);
    assert_int_equal(fis.command, 0xea);
}

static void the_error_log_needs_its_checksum(void **state)
{
    u8 log[512] = {7};
    u32 tag = 99;

    assert_int_equal(ncq_log_tag(log, &tag), ERR_FORMAT);
    log[511] = (u8)-7;
    assert_int_equal(ncq_log_tag(log, &tag), OK);
    assert_int_equal(tag, 7);
    log[0] = 0x87; /* NQ: no queued command was it */
    log[511] = (u8)-0x87;
    assert_int_equal(ncq_log_tag(log, &tag), ERR_FORMAT);
}

/* ---- bring-up ---- */

static void a_disk_is_found_and_offered(void **state)
{
    hba.has_handoff = true;
    hba.bohc = BOHC_BOS;
    info.stash_length = 0;
    struct virtio_blk_config config = started();

    assert_int_equal(config.capacity, DISK_SECTORS);
    assert_int_equal(config.physical_block_exp, 3);
    assert_int_equal(config.alignment_offset, 2);
    assert_int_equal(hba.resets, 1);
    assert_true(hba.bohc & BOHC_OOS);
    assert_ptr_equal(port_in_use(), &hba.port[2]);
    assert_int_equal(pci_command_register, 0x0101 | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    assert_true(hba.ghc & GHC_IE);
    assert_int_equal(hba.port[2].is & INT_ERRORS, 0);
}

static void a_cdrom_is_passed_over(void **state)
{
    hba.port[0].device = hba.port[0].cdrom = true;
    started();
    assert_ptr_equal(port_in_use(), &hba.port[2]);
    assert_int_equal(hba.port[0].cmd & (CMD_ST | CMD_FRE), 0);
}

static void bring_up_errors(void **state)
{
    hba.stuck_reset = true;
    assert_int_equal(driver.start(&offer), ERR_TIMEOUT);
    power_on(true);
    hba.port[2].device = false;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    assert_null(port_in_use());
    power_on(true);
    hba.identify_fails = 1;
    assert_int_equal(driver.start(&offer), ERR_IO);
    power_on(true);
    hba.short_transfer = true;
    assert_int_equal(driver.start(&offer), ERR_IO);
    static const u32 missing[][2] = {{49, 1u << 9}, {83, 1u << 14 | 1u << 13}, {83, 1u << 14 | 1u << 10}};
    for (u32 i = 0; i < ARRAY_SIZE(missing); i++) { /* no DMA, no 48-bit addresses, no FLUSH CACHE EXT */
        power_on(true);
        identity[missing[i][0]] = (u16)missing[i][1];
        assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    }
    power_on(true);
    info.bar[5].kind = DRIVER_BAR_PORTS;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(true);
    info.bar[5].size = 0x40;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(true);
    info.bar[5].size = HBA_PORT(2); /* the disk's registers lie outside the BAR */
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
}

/* ---- work ---- */

static void queued_commands_use_all_slots(void **state)
{
    started();
    for (u16 t = 0; t < BUFFERS; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 16, 4096);
    loop_once();
    assert_int_equal(hba.port[2].queued, ~0u);
    complete(BUFFERS);
    check_reads(BUFFERS, 4096);
    assert_int_equal(hba.queued_count, BUFFERS);
    assert_true(hba.interrupts > 0);
    assert_int_equal(hba.port[2].is & INT_ERRORS, 0);
}

static void without_ncq_one_at_a_time(void **state)
{
    power_on(false);
    started();
    for (u16 t = 0; t < BUFFERS; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 16, 4096);
    complete(BUFFERS);
    check_reads(BUFFERS, 4096);
    assert_int_equal(hba.queued_count, 0);
    assert_int_equal(hba.plain_count, BUFFERS + 1);
}

static void ncq_needs_both_ends(void **state)
{
    hba.cap &= ~CAP_SNCQ;
    started();
    submit(0, VIRTIO_BLK_T_IN, 0, 512);
    complete(1);
    assert_int_equal(hba.queued_count, 0);

    power_on(true);
    hba.cap = (hba.cap & ~(0x1fu << 8)) | 3u << 8; /* four slots in the HBA, 32 tags in the disk */
    started();
    for (u16 t = 0; t < 20; t++)
        submit(t, VIRTIO_BLK_T_IN, t, 512);
    loop_once();
    assert_int_equal(hba.port[2].queued, 0xf);
    complete(20);
}

static void random_work(u32 rounds, bool ncq)
{
    struct random random = random_start("work");

    power_on(ncq);
    started();
    for (u32 round = 0; round < rounds; round++) {
        u32 count = (u32)random_between(&random, 1, BUFFERS), flushes = 0;
        u32 before = hba.flushes;
        for (u16 t = 0; t < count; t++) {
            u32 bytes = 512 * (u32)random_between(&random, 1, BUFFER_BYTES / 512);
            u64 zone = DISK_SECTORS / BUFFERS, sector = t * zone + random_below(&random, zone - bytes / 512 + 1);
            u32 type = random_one_in(&random, 2) ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
            if (random_one_in(&random, 10)) {
                flushes++;
                submit(t, VIRTIO_BLK_T_FLUSH, 0, 0);
                continue;
            }
            random_fill(&random, guest[t].data, bytes);
            submit(t, type, sector, bytes);
        }
        complete(count);
        assert_int_equal(hba.flushes - before, flushes);
        for (u32 t = 0; t < count; t++) {
            assert_int_equal(guest[t].status, VIRTIO_BLK_S_OK);
            if (guest[t].header.type != VIRTIO_BLK_T_FLUSH) /* read or written: both sides hold the same now */
                assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, 512);
        }
    }
}

static void mixed_work_queued(void **state)
{
    random_work(300, true);
}

static void mixed_work_not_queued(void **state)
{
    random_work(100, false);
}

/* ---- errors ---- */

static void the_log_names_the_failed_command(void **state)
{
    started();
    one_bad_sector();
    assert_int_equal(hba.log_reads, 1);
    assert_int_equal(hba.link_resets, 0);
}

static void without_a_log_the_commands_run_singly(void **state)
{
    hba.log_works = false;
    started();
    one_bad_sector();
    assert_true(hba.link_resets >= 1);
}

static void a_log_that_lies_is_not_believed(void **state)
{
    hba.log_lies = true;
    hba.cap = (hba.cap & ~(0x1fu << 8)) | 15u << 8; /* 16 slots, so tag 31 cannot be */
    started();
    one_bad_sector();
    assert_true(hba.link_resets >= 1);
}

static void an_hba_that_keeps_its_slots_when_stopped(void **state)
{
    hba.keeps_slots = hba.clears_failed = true;
    hba.log_works = false;
    started();
    one_bad_sector();
}

static void errors_without_ncq(void **state)
{
    power_on(false);
    started();
    one_bad_sector();
    assert_int_equal(hba.log_reads, 0);
    power_on(false);
    hba.clears_failed = true;
    started();
    one_bad_sector();
}

static void a_disk_that_hangs_busy_is_reset(void **state)
{
    hba.busy_after_error = true;
    started();
    one_bad_sector();
    assert_true(hba.link_resets >= 1);
}

static void an_interface_error_fails_nothing(void **state)
{
    started();
    for (u16 t = 0; t < 20; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 8, 4096);
    loop_once();
    disk_work(&hba.port[2]);
    raise_bits(&hba.port[2], INT_IFS);
    complete(20);
    check_reads(20, 4096);
    assert_int_equal(hba.link_resets, 1);
}

static void a_short_transfer_is_an_error(void **state)
{
    power_on(false);
    started();
    hba.short_transfer = true;
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    complete(1);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_IOERR);
}

static void unplug(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    loop_once();
    hba.port[2].device = false;
    reset_device(&hba.port[2]);
    hba.port[2].serr = 1u << 26 | 1u << 16;
    raise_bits(&hba.port[2], INT_PCS | INT_PRCS);
    loop_once();
}

static void claim_foreign_slots(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    loop_once();
    hba.port[2].sact |= 1u << 9;
    loop_once();
}

static void never_stop(void)
{
    hba.stuck_engine = true;
    hba.bad_sector = 3;
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    for (u32 n = 0; n < 10; n++) {
        loop_once();
        disk_work(&hba.port[2]);
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
    assert_int_equal(fault_of(unplug), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(claim_foreign_slots), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(never_stop), DRIVER_FAULT_DEVICE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fis_of_reads_and_writes),
        TEST(the_error_log_needs_its_checksum),
        TEST(a_disk_is_found_and_offered),
        TEST(a_cdrom_is_passed_over),
        TEST(bring_up_errors),
        TEST(queued_commands_use_all_slots),
        TEST(without_ncq_one_at_a_time),
        TEST(ncq_needs_both_ends),
        TEST(mixed_work_queued),
        TEST(mixed_work_not_queued),
        TEST(the_log_names_the_failed_command),
        TEST(without_a_log_the_commands_run_singly),
        TEST(a_log_that_lies_is_not_believed),
        TEST(an_hba_that_keeps_its_slots_when_stopped),
        TEST(errors_without_ncq),
        TEST(a_disk_that_hangs_busy_is_reset),
        TEST(an_interface_error_fails_nothing),
        TEST(a_short_transfer_is_an_error),
        TEST(broken_devices_end_in_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
