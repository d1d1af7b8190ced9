/* SOURCES: drivervm/drivers/ahci/ahci.c drivervm/drivers/ahci/command.c drivervm/drivers/ahci/port.c
   drivervm/drivers/ahci/recover.c drivervm/drivers/ata/identity.c drivervm/runtime/blk.c drivervm/runtime/blk_layout.c
   drivervm/runtime/ring.c drivervm/runtime/service.c */
/* Restarts of the AHCI driver: the disk it must find again, and what its predecessor left in the controller. */
#include "tests/unit/drivervm_ahci_world.h"

static void a_restart_wants_the_same_disk(void **state)
{
    started();
    u32 length = info.stash_length;
    assert_true(length > 0);
    u64 before = now_us;
    power_on(true);
    info.stash_length = length;
    hba.port[0].device = true; /* a new disk in front of it must not be taken */
    started();
    assert_ptr_equal(port_in_use(), &hba.port[2]);
    assert_true(now_us - before < 1000); /* looks at the clock: there is no fixed pause */

    power_on(true);
    info.stash_length = length;
    set_string(&identity[10], 10, "SN-OTHER");
    assert_int_equal(driver.start(&offer), ERR_STATE);
    power_on(true);
    info.stash_length = length;
    hba.port[2].device = false;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
}

/* The controller as a crashed driver leaves it: running, with addresses of its own. */
static void a_predecessors_work_is_gone(void **state)
{
    struct virtio_blk_config config;

    for (u32 n = 0; n < ARRAY_SIZE(hba.port); n++) {
        hba.port[n].clb = hba.port[n].fb = 0xdead0000;
        hba.port[n].cmd = CMD_ST | CMD_CR | CMD_FRE | CMD_FR;
        hba.port[n].queued = hba.port[n].sact = 0xff;
        hba.port[n].ie = hba.port[n].is = ~0u;
    }
    hba.ghc = GHC_AE | GHC_IE;
    pci_command_register |= PCI_COMMAND_MASTER; /* the model insists that it is off during the reset */
    config = started();
    assert_int_equal(config.capacity, DISK_SECTORS);
    for (u32 n = 0; n < ARRAY_SIZE(hba.port); n++) {
        assert_int_not_equal(hba.port[n].clb, 0xdead0000);
        assert_int_equal(hba.port[n].queued | hba.port[n].sact, 0);
        if (n != 2)
            assert_int_equal(hba.port[n].cmd & (CMD_ST | CMD_FRE), 0);
    }
    submit(0, VIRTIO_BLK_T_IN, 8, 4096);
    complete(1);
    assert_memory_equal(guest[0].data, disk_data + 8 * 512, 4096);
}

/* ---- restarts after a refused DMA (docs/decisions/006) ---- */

#define DRAIN_US 100000u

static u32 stash_length;
static u8 clean_stash[DRIVER_STASH_SIZE]; /* as the first start leaves it */

/* A driver that dies with these queued commands in the controller, some of which never end. */
static void crash(u32 slots, u32 refused)
{
    struct port *port = &hba.port[2];

    pci_command_register &= ~PCI_COMMAND_MASTER;
    hba.ends_alone = true;
    port->sact = port->queued = slots;
    port->refused |= refused;
    port->seen = 0;
    info.stash_length = stash_length;
}

static int setup_crash(void **state)
{
    setup(state);
    started();
    stash_length = info.stash_length;
    memcpy(clean_stash, stash, sizeof(clean_stash));
    hba.resets = 0;
    return 0;
}

/* The driver's variables outlive its restarts in this program: one without lost slots cleans up. */
static int teardown_crash(void **state)
{
    power_on(true);
    memcpy(stash, clean_stash, sizeof(clean_stash));
    info.stash_length = stash_length;
    started();
    return teardown(state);
}

static void read_all(u32 slots_in_use)
{
    hba.ends_alone = false;
    for (u16 t = 0; t < BUFFERS; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 16, 4096);
    loop_once();
    assert_int_equal(hba.port[2].queued & ~hba.port[2].refused, slots_in_use);
    complete(BUFFERS);
    check_reads(BUFFERS, 4096);
}

static void commands_that_end_are_waited_for(void **state)
{
    crash(0x00ff00ff, 0);
    started();
    assert_int_equal(hba.resets, 1);
    read_all(~0u);
}

/* Time in which nobody ran says nothing about a command. */
static void a_busy_host_loses_no_slots(void **state)
{
    crash(0x00ff00ff, 0);
    hba.away_us = 2 * DRAIN_US;
    started();
    hba.away_us = 0;
    assert_int_equal(hba.resets, 1);
    read_all(~0u);
}

static void refused_commands_keep_their_slots(void **state)
{
    u32 lost = 1u << 0 | 1u << 17;
    u64 before = now_us;

    crash(0xff | lost, lost);
    started();
    assert_int_equal(hba.resets, 0);
    assert_int_equal(hba.ignored, 2); /* tried once each, both at once */
    assert_true(now_us - before >= DRAIN_US && now_us - before < 3 * DRAIN_US);
    assert_true(hba.ghc & GHC_IE);
    read_all(~lost);

    crash(1u << 5 | 0xf000, 1u << 5); /* the stash remembers those of before, the controller need not */
    started();
    assert_int_equal(hba.resets, 0);
    assert_int_equal(hba.ignored, 3);
    read_all(~(lost | 1u << 5));

    crash(0, 0); /* a crash of another kind does not free them */
    before = now_us;
    started();
    assert_true(now_us - before < DRAIN_US);
    assert_int_equal(hba.resets + hba.link_resets, 0);
    assert_int_equal(hba.ignored, 3); /* one try each for good */
    read_all(~(lost | 1u << 5));
}

/* A driver that dies between its writes to PxSACT and PxCI: the slot is announced, and nothing is in it. */
static void died_between_the_writes(u32 slots, u32 announced)
{
    crash(slots & ~announced, 0);
    hba.port[2].sact |= announced;
}

static void an_announced_slot_is_free_again(void **state)
{
    for (u32 turn = 0; turn < 6; turn++) {
        u64 before = now_us;

        hba.keeps_slots = turn % 2;
        hba.resets = hba.ignored = 0;
        died_between_the_writes(0xff, 1u << 6 * turn);
        started();
        assert_true(now_us - before < DRAIN_US + DRAIN_US / 10);
        assert_int_equal(hba.resets + hba.ignored, 0);
        read_all(~0u);
        crash(0xf0, 0); /* nothing is held against the controller */
        started();
        assert_int_equal(hba.resets, 1);
    }
}

/* What came of it is known only when the slot was tried. */
static void an_announced_slot_outlives_a_start_without_disk(void **state)
{
    for (u32 qemu = 0; qemu < 2; qemu++) {
        hba.keeps_slots = qemu;
        hba.resets = 0;
        died_between_the_writes(0, 1u << 20);
        hba.port[2].ssts = 0;
        assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
        pci_command_register &= ~PCI_COMMAND_MASTER;
        hba.port[2].ssts = 0x113;
        started();
        assert_int_equal(hba.resets, 0);
        read_all(~0u);
    }
}

static void a_refused_one_beside_an_announced_one(void **state)
{
    hba.keeps_slots = true;
    crash(1u << 3, 1u << 3);
    hba.port[2].sact |= 1u << 20;
    started();
    assert_int_equal(hba.ignored, 1);
    read_all(~(1u << 3));
    for (u32 turn = 0; turn < 6; turn++) { /* the refused one forbids resets from now on; no further slot is lost */
        hba.port[2].sact |= 1u << 5 * turn;
        pci_command_register &= ~PCI_COMMAND_MASTER;
        hba.ends_alone = true;
        started();
        read_all(~(1u << 3));
    }
    assert_int_equal(hba.ignored, 1);
    assert_int_equal(hba.resets + hba.link_resets, 0);
}

static bool start_is_killed(void)
{
    hba.die_at = now_us + 3 * DRAIN_US / 10;
    if (setjmp(hba_killed))
        return true;
    assert_int_equal(driver.start(&offer), OK);
    hba.die_at = 0;
    return false;
}

/* A successor that is killed sooner than it can know of a slot that nothing moves in it leaves word. */
static void kills_come_faster_than_the_wait(void **state)
{
    hba.keeps_slots = true;
    died_between_the_writes(0, 1u << 11);
    u32 kills = 0;
    while (start_is_killed())
        assert_true(++kills < 5);
    assert_true(kills >= 3);
    info.stash_length = stash_length;
    pci_command_register &= ~PCI_COMMAND_MASTER;
    hba.ends_alone = true;
    started();
    assert_int_equal(hba.resets, 1); /* free again */
    read_all(~0u);
    u64 before = now_us; /* that word is not held against what is in the same slot later */
    died_between_the_writes(0, 1u << 11);
    started();
    assert_true(now_us - before >= DRAIN_US);
}

/* In QEMU it goes on while we try its slot, and nobody is served before it has ended. */
static void a_slow_command_ends_before_anybody_is_served(void **state)
{
    hba.keeps_slots = true;
    crash(1u << 7, 0);
    hba.slow_until = now_us + DRAIN_US + DRAIN_US / 2;
    started();
    assert_true(now_us >= hba.slow_until);
    assert_int_equal(hba.ignored, 1);
    assert_int_equal(hba.port[2].queued | hba.port[2].sact, 0);
    read_all(~0u);
    crash(1u << 7, 0); /* without progress, but not for so long: nothing is tried */
    hba.slow_until = now_us + DRAIN_US / 2;
    started();
    assert_int_equal(hba.ignored, 1);
    assert_int_equal(hba.resets, 1);
}

/* On silicon the disk objects to the next command, and gets the reset that it wants. */
static void a_disk_that_objects_is_reset(void **state)
{
    crash(1u << 7, 0);
    hba.slow_until = now_us + 10 * DRAIN_US;
    started();
    assert_int_equal(hba.resets, 1);
    read_all(~0u);
    crash(0, 0);
    started();
    assert_int_equal(hba.resets, 2);
}

static void a_try_that_meets_a_bad_sector(void **state)
{
    for (u32 qemu = 0; qemu < 2; qemu++) {
        hba.keeps_slots = qemu;
        died_between_the_writes(0, 1u << (20 + qemu));
        hba.bad_sector = 0;
        started();
        assert_int_equal(hba.log_reads, 1 + qemu);
        hba.bad_sector = ~0ull;
        read_all(qemu ? ~(3u << 20) : ~(1u << 20));
    }
    assert_int_equal(hba.resets + hba.link_resets, 0);
}

/* The lost slot forbids a reset, so the flush that the predecessor was waiting for must end by itself. */
static void a_flush_ends_beside_lost_slots(void **state)
{
    static const u32 looks[] = {1, 900, 3000}; /* 0.1 ms apart: the last is beyond DRAIN_US */

    for (u32 i = 0; i < ARRAY_SIZE(looks); i++) {
        crash(1u << 9, 1u << 9);
        hba.port[2].ci = 1;
        hba.lingers = looks[i];
        started();
        assert_int_equal(hba.lingers, 0);
        assert_int_equal(hba.resets, 0);
        read_all(~(1u << 9));
    }
}

/* A command that never starts, as after a wrong list: the offer has 2 s, which a busy host halves. */
static void what_never_ends_fits_into_the_time_for_an_offer(void **state)
{
    u64 before = now_us;

    crash(1u << 9, 1u << 9);
    hba.port[2].ci = 1u << 9;
    started();
    assert_true(now_us - before < 1000000);
    assert_int_equal(hba.resets, 0);
    read_all(~(1u << 9));
}

/* On silicon the controller says that the bus refused it, and a reset is what it wants. */
static void a_bus_error_is_no_lost_slot(void **state)
{
    u64 before = now_us;

    crash(0xff, 0);
    hba.ends_alone = false;
    hba.port[2].is = INT_HBFS;
    started();
    assert_true(now_us - before < DRAIN_US);
    assert_int_equal(hba.resets, 1);
    read_all(~0u);
}

static void errors_beside_lost_slots(void **state)
{
    crash(1u << 0, 1u << 0);
    started();
    hba.ends_alone = false;
    one_bad_sector();
    assert_int_equal(hba.log_reads, 1);
    assert_int_equal(hba.resets + hba.link_resets, 0);
}

static void need_a_link_reset(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 4096);
    loop_once();
    raise_bits(&hba.port[2], INT_IFS);
    loop_once();
}

/* Rather broken than reset: the machine would stand still. */
static void no_reset_touches_lost_slots(void **state)
{
    crash(1u << 9, 1u << 9);
    started();
    hba.ends_alone = false;
    assert_int_equal(fault_of(need_a_link_reset), DRIVER_FAULT_DEVICE);
}

static void without_a_slot_the_device_is_broken(void **state)
{
    crash(~0u, ~0u);
    assert_int_equal(driver.start(&offer), ERR_NO_SPACE);
    assert_int_equal(hba.resets + hba.link_resets, 0);
    crash(0, 0); /* known from then on, although that start did not get far */
    assert_int_equal(driver.start(&offer), ERR_NO_SPACE);
    assert_int_equal(hba.resets + hba.link_resets, 0);
}

/* A fault that saves rubbish leaves its successor without word of slots that hang, and a reset would stop the machine.
 */
static void without_a_stash_each_slot_is_tried(void **state)
{
    crash(1u << 3, 1u << 3);
    started();
    crash(1u << 21, 1u << 21); /* one that nobody knows of yet; the other one is in no register any more */
    info.stash_length = 97;
    info.generation = 2;
    hba.ignored = 0;
    started();
    assert_int_equal(hba.resets + hba.link_resets, 0);
    assert_int_equal(hba.ignored, 2);
    read_all(~(1u << 3 | 1u << 21));
    stash_length = info.stash_length;
    crash(0xf0, 0); /* known again from here on */
    started();
    assert_int_equal(hba.resets, 0);
    assert_int_equal(hba.ignored, 2);
    read_all(~(1u << 3 | 1u << 21));
}

static void nothing_to_hide_and_no_stash(void **state)
{
    crash(0xff, 0);
    info.stash_length = 0;
    info.generation = 1;
    started();
    assert_int_equal(hba.resets, 0);
    read_all(~0u);
    crash(0xf0, 0); /* nothing is held against the controller */
    started();
    assert_int_equal(hba.resets, 1);
}

static void a_stash_that_makes_no_sense(void **state)
{
    crash(0, 0);
    memset(stash, 0xff, stash_length);
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    assert_int_equal(hba.resets, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_CRASH(name) cmocka_unit_test_setup_teardown(name, setup_crash, teardown_crash)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_restart_wants_the_same_disk),
        TEST(a_predecessors_work_is_gone),
        TEST_CRASH(commands_that_end_are_waited_for),
        TEST_CRASH(a_busy_host_loses_no_slots),
        TEST_CRASH(refused_commands_keep_their_slots),
        TEST_CRASH(an_announced_slot_is_free_again),
        TEST_CRASH(an_announced_slot_outlives_a_start_without_disk),
        TEST_CRASH(a_refused_one_beside_an_announced_one),
        TEST_CRASH(kills_come_faster_than_the_wait),
        TEST_CRASH(a_slow_command_ends_before_anybody_is_served),
        TEST_CRASH(a_disk_that_objects_is_reset),
        TEST_CRASH(a_try_that_meets_a_bad_sector),
        TEST_CRASH(a_flush_ends_beside_lost_slots),
        TEST_CRASH(errors_beside_lost_slots),
        TEST_CRASH(what_never_ends_fits_into_the_time_for_an_offer),
        TEST_CRASH(a_bus_error_is_no_lost_slot),
        TEST_CRASH(no_reset_touches_lost_slots),
        TEST_CRASH(without_a_slot_the_device_is_broken),
        TEST_CRASH(without_a_stash_each_slot_is_tried),
        TEST_CRASH(nothing_to_hide_and_no_stash),
        TEST_CRASH(a_stash_that_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
