/* The way of a fault through all stages: order, invariant, records, policy. */
/* SOURCES: hv/recovery/detect.c hv/recovery/detect_progress.c hv/recovery/detect_dma.c hv/recovery/decide.c
   hv/recovery/quiesce.c hv/recovery/reset_device.c hv/recovery/restart.c hv/recovery/replay.c hv/recovery/crash.c
   hv/recovery/recovery.c hv/recovery/inject.c hv/control/events.c hv/exit/hypercall.c hv/core/vm.c */
/* INCLUDE_FAKES */
#include "tests/unit/recovery_fakes.h"

static const struct driver_offer offer = {.virtio_type = 2, .queues = 1, .queue_size = 128};

static void fail_and_run(void)
{
    recovery_report(&fake_driver, FAULT_EXCEPTION, 6, 0x10040, "exception 6");
    fake_time_us += 3;
    assert_true(recovery_due(&fake_driver, tsc_now()));
    recovery_run(&fake_driver);
}

static void stages_come_in_their_order(void **state)
{
    u64 event = event_last();

    fake_in_flight = 7;
    fail_and_run();
    assert_string_equal(fake_calls, "stop close master-off message-off block revoke reset rings message-on start");
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_int_equal(fake_driver.generation, 1);
    assert_int_equal(fake_driver.vm->vcpu.state, VCPU_RUNNABLE);
    fake_assert_contained(); /* until the successor itself asks for bus mastering */
    assert_false(recovery_due(&fake_driver, tsc_now()));

    fake_time_us += 500;
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(fake_driver.state, DRIVER_RUNNING);
    fake_time_us += 40;
    recovery_first_completion(&fake_driver);

    const struct fault_record *record = fake_last_record();
    assert_int_equal(record->outcome, FAULT_RECOVERED);
    assert_int_equal(record->kind, FAULT_EXCEPTION);
    assert_int_equal(record->generation, 0);
    assert_int_equal(record->replayed, 7);
    assert_int_equal(record->reset_kind, PCI_RESET_FLR);
    assert_int_equal(record->address, 0x10040);
    assert_string_equal(record->text, "exception 6");
    assert_string_equal(record->injected, "");
    assert_int_equal(tsc_to_us(record->t_decide - record->t_detect), 3);
    assert_true(record->t_decide <= record->t_quiesce && record->t_quiesce <= record->t_quiesce_end);
    assert_true(record->t_quiesce_end <= record->t_reset);
    assert_true(record->t_reset <= record->t_reset_end && record->t_reset_end <= record->t_restart);
    assert_int_equal(tsc_to_us(record->t_offer - record->t_restart), 500);
    assert_int_equal(tsc_to_us(record->t_first_completion - record->t_replay), 40);

    static const enum event_kind kinds[] = {EVENT_FAULT,   EVENT_DECIDE, EVENT_QUIESCE, EVENT_RESET,
                                            EVENT_RESTART, EVENT_OFFER,  EVENT_REPLAY,  EVENT_RECOVERED};
    for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
        assert_int_equal(fake_events_since(event, kinds[i]), 1);
}

/* For `status`: from the first entry to the offer, the part of it in guest mode, and what the driver says of its waits.
 */
static void a_start_is_measured(void **state)
{
    struct driver_offer slow = offer;

    slow.device_wait_us = 250;
    fail_and_run();
    fake_time_us += 1000; /* others run first */
    fake_driver.entered = tsc_now();
    fake_driver.run_before = fake_driver.vm->vcpu.run_ticks;
    fake_time_us += 400;
    fake_driver.vm->vcpu.run_ticks += tsc_from_us(300);
    assert_int_equal(recovery_offer(&fake_driver, &slow), OK);
    assert_int_equal(fake_driver.start_us, 400);
    assert_int_equal(fake_driver.start_run_us, 300);
    assert_int_equal(fake_driver.device_wait_us, 250);
}

static void without_an_iommu_bus_mastering_alone_is_cut(void **state)
{
    fake_iommu = false;
    fail_and_run();
    assert_string_equal(fake_calls, "stop close master-off message-off revoke reset rings message-on start");
}

static void the_first_report_wins(void **state)
{
    recovery_report(&fake_driver, FAULT_DMA, 5, 0x1000, "the cause");
    recovery_report(&fake_driver, FAULT_HEARTBEAT, 0, 0, "a consequence");
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_DMA);
    assert_int_equal(fake_driver.recovery.faults_total, 1);
    assert_int_equal(fake_driver.recovery.reports_later, 1);
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.generation, 1);
    assert_false(fake_driver.recovery.pending);
}

static void who_does_not_run_cannot_be_at_fault(void **state)
{
    static const enum driver_state states[] = {DRIVER_STOPPED, DRIVER_RECOVERING, DRIVER_WAITING, DRIVER_FAILED};

    for (u32 i = 0; i < ARRAY_SIZE(states); i++) {
        fake_driver.state = states[i];
        recovery_report(&fake_driver, FAULT_DMA, 0, 0, "late");
        assert_false(fake_driver.recovery.pending);
    }
    assert_int_equal(fake_driver.recovery.reports_later, 4);
}

static void a_blocked_vm_is_woken_for_its_recovery(void **state)
{
    fake_driver.waiting = true;
    fake_vm.vcpu.state = VCPU_BLOCKED;
    recovery_report(&fake_driver, FAULT_OPERATOR, 0, 0, "now");
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
    recovery_run(&fake_driver);
    assert_false(fake_driver.waiting);
}

static void with_nothing_in_flight_the_offer_ends_it(void **state)
{
    fail_and_run();
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
    assert_int_equal(fake_last_record()->t_first_completion, 0);
    u32 count = recovery_history_count();
    recovery_first_completion(&fake_driver); /* of later work */
    assert_int_equal(recovery_history_count(), count);
}

/* Receive buffers may wait for the outside world for ever: no first completion is waited for, if they are all there is.
 */
static void requests_that_may_wait_hold_up_no_recovery(void **state)
{
    fake_in_flight = fake_patient = 5;
    fail_and_run();
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
    assert_int_equal(fake_last_record()->replayed, 5);
    u32 count = recovery_history_count();
    fake_in_flight = 6; /* one that may not */
    fail_and_run();
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(recovery_history_count(), count);
    recovery_first_completion(&fake_driver);
    assert_int_equal(recovery_history_count(), count + 1);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
}

static void an_answer_during_the_replay_is_the_first_completion(void **state)
{
    fail_and_run();
    fake_in_flight = 1;
    fake_last_completion = tsc_now();
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
    assert_int_equal(fake_last_record()->t_first_completion, fake_last_completion);
}

static void a_second_offer_is_refused(void **state)
{
    assert_int_equal(recovery_offer(&fake_driver, &offer), ERR_STATE);
    assert_string_equal(fake_calls, "");
}

static void a_successor_with_another_offer_is_at_fault(void **state)
{
    fail_and_run();
    fake_offer_status = ERR_INVALID;
    assert_int_equal(recovery_offer(&fake_driver, &offer), ERR_INVALID);
    assert_true(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_OFFER);
    assert_int_equal(fake_last_record()->outcome, FAULT_SUPERSEDED);
}

static void a_first_offer_may_be_corrected(void **state)
{
    fake_driver.state = DRIVER_STARTING;
    fake_offer_status = ERR_INVALID;
    assert_int_equal(recovery_offer(&fake_driver, &offer), ERR_INVALID);
    assert_false(fake_driver.recovery.pending);
    fake_offer_status = OK;
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
}

/* The event log is everybody's. */
static void refused_offers_leave_room_in_the_log(void **state)
{
    fake_driver.state = DRIVER_STARTING;
    fake_offer_status = ERR_INVALID;
    u64 before = event_last();
    for (u32 i = 0; i < 1000; i++)
        assert_int_equal(recovery_offer(&fake_driver, &offer), ERR_INVALID);
    assert_in_range(event_last() - before, 1, 100);
}

/* Dies before it offers, and between offer and first completion: both supersede, both count. */
static void a_fault_during_recovery_supersedes(void **state)
{
    u32 records = recovery_history_count();

    fake_in_flight = 1;
    fail_and_run();
    fail_and_run();
    assert_int_equal(recovery_history_count(), records + 1);
    assert_int_equal(fake_last_record()->outcome, FAULT_SUPERSEDED);
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    fail_and_run();
    assert_int_equal(recovery_history_count(), records + 2);
    assert_int_equal(fake_last_record()->outcome, FAULT_SUPERSEDED);
    assert_true(fake_last_record()->t_offer != 0);
    assert_int_equal(fake_last_record()->t_first_completion, 0);
    assert_int_equal(fake_driver.recovery.restarts_in_window, 3);
    assert_int_equal(fake_driver.generation, 3);
}

static void die_until_given_up(void)
{
    for (u32 i = 0; i < 5; i++) {
        fail_and_run();
        assert_int_equal(fake_driver.state, DRIVER_STARTING);
    }
    fake_calls[0] = '\0';
    fake_bus_master = true; /* the last generation had got as far as this */
    fake_blocked = false;
    fail_and_run();
}

static void the_limit_gives_up(void **state)
{
    die_until_given_up();
    assert_int_equal(fake_driver.state, DRIVER_FAILED);
    assert_string_equal(fake_calls, "stop close master-off message-off block revoke reset give-up-errors");
    assert_int_equal(fake_last_record()->outcome, FAULT_GAVE_UP);
    assert_int_equal(fake_vm.vcpu.state, VCPU_STOPPED);
    assert_false(recovery_due(&fake_driver, ~0ull));
    recovery_tick(&fake_driver, tsc_now() + tsc_from_us(60000000));
    assert_false(fake_driver.recovery.pending);
    fake_assert_contained();
}

static void giving_up_may_be_silent(void **state)
{
    fake_config.give_up = MANIFEST_GIVE_UP_STOP;
    fake_config.restart = false;
    fail_and_run();
    assert_non_null(strstr(fake_calls, "give-up-silent"));
}

static void the_operator_revives(void **state)
{
    die_until_given_up();
    fake_calls[0] = '\0';
    assert_int_equal(recovery_restart(&fake_driver), OK);
    assert_true(recovery_due(&fake_driver, tsc_now()));
    recovery_run(&fake_driver);
    assert_string_equal(fake_calls, "stop close message-off block revoke reset rings message-on start");
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_int_equal(fake_driver.recovery.restarts_in_window, 0);
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_int_equal(fake_last_record()->kind, FAULT_OPERATOR);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
    die_until_given_up(); /* with all of its attempts */
    assert_int_equal(fake_driver.state, DRIVER_FAILED);
}

static void the_operator_restarts_what_runs(void **state)
{
    assert_int_equal(recovery_restart(&fake_driver), OK);
    assert_int_equal(recovery_restart(&fake_driver), ERR_STATE); /* under way */
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.generation, 1);
    assert_int_equal(fake_driver.recovery.restarts_in_window, 0);
}

/* Silent, not failed: what is in flight waits for the next start, and nothing that policy counts has happened. */
static void the_operator_stops_and_starts(void **state)
{
    u64 event = event_last();

    fake_config.limit = 1;
    assert_int_equal(recovery_stop(&fake_driver), OK);
    assert_int_equal(recovery_stop(&fake_driver), ERR_STATE); /* under way */
    recovery_run(&fake_driver);
    assert_string_equal(fake_calls, "stop close master-off message-off block revoke reset give-up-silent");
    assert_int_equal(fake_driver.state, DRIVER_STOPPED);
    assert_string_equal(recovery_state(&fake_driver), "stopped");
    assert_int_equal(fake_last_record()->outcome, FAULT_STOPPED);
    assert_int_equal(fake_events_since(event, EVENT_STOPPED), 1);
    assert_int_equal(recovery_stop(&fake_driver), ERR_STATE);
    recovery_tick(&fake_driver, tsc_now() + tsc_from_us(60000000));
    assert_false(recovery_due(&fake_driver, ~0ull));
    fake_assert_contained();

    fake_in_flight = 3;
    assert_int_equal(recovery_restart(&fake_driver), OK);
    recovery_run(&fake_driver);
    assert_string_equal(recovery_state(&fake_driver), "recovering");
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    recovery_first_completion(&fake_driver);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
    assert_int_equal(fake_last_record()->replayed, 3);
    assert_int_equal(fake_driver.recovery.crashes, 0);
    fail_and_run(); /* its one restart is still there */
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_int_equal(fake_driver.recovery.crashes, 1);
}

static void a_stop_ends_a_pause_and_a_failure(void **state)
{
    fake_config.backoff_us = 7000;
    fail_and_run();
    assert_string_equal(recovery_state(&fake_driver), "recovering");
    assert_int_equal(recovery_stop(&fake_driver), OK);
    assert_int_equal(fake_last_record()->outcome, FAULT_SUPERSEDED);
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_STOPPED);
    fake_time_us += 8000;
    assert_false(recovery_due(&fake_driver, tsc_now()));

    fake_config.restart = false;
    fake_driver.state = DRIVER_RUNNING;
    fail_and_run();
    assert_string_equal(recovery_state(&fake_driver), "failed");
    assert_int_equal(recovery_stop(&fake_driver), OK);
    recovery_run(&fake_driver);
    assert_string_equal(recovery_state(&fake_driver), "stopped");
}

/* More than half of its restarts used, as long as the window is open; or heartbeats missed now. */
static void running_may_be_degraded(void **state)
{
    assert_string_equal(recovery_state(&fake_driver), "running");
    for (u32 i = 1; i <= 3; i++) {
        fail_and_run();
        assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
        assert_string_equal(recovery_state(&fake_driver), i < 3 ? "running" : "degraded");
    }
    fake_time_us = tsc_to_us(fake_driver.recovery.window_start) + fake_config.window_us;
    assert_string_equal(recovery_state(&fake_driver), "degraded");
    fake_time_us++;
    assert_string_equal(recovery_state(&fake_driver), "running");
    fake_driver.recovery.heartbeat_misses = 1;
    assert_string_equal(recovery_state(&fake_driver), "degraded");
}

/* The device spends it blocked, but not yet reset: what it has under way may end by itself. */
static void a_pause_is_waited_for(void **state)
{
    u64 event = event_last();

    fake_config.backoff_us = 7000;
    fail_and_run();
    assert_int_equal(fake_driver.state, DRIVER_WAITING);
    assert_string_equal(fake_calls, "stop close master-off message-off block revoke");
    assert_int_equal(fake_events_since(event, EVENT_RESET), 0);
    fake_assert_contained();
    assert_false(recovery_due(&fake_driver, tsc_now()));
    fake_time_us += 6999;
    assert_false(recovery_due(&fake_driver, tsc_now()));
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_WAITING);
    fake_time_us += 1;
    assert_true(recovery_due(&fake_driver, tsc_now()));
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_string_equal(fake_calls, "stop close master-off message-off block revoke reset rings message-on start");
    assert_int_equal(fake_events_since(event, EVENT_RESET), 1);
    assert_int_equal(tsc_to_us(fake_driver.recovery.current.t_reset - fake_driver.recovery.current.t_quiesce_end),
                     7000);
}

static void the_operator_ends_a_pause(void **state)
{
    fake_config.backoff_us = 7000;
    fail_and_run();
    assert_int_equal(recovery_restart(&fake_driver), OK);
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
}

/* ---- images ---- */

static const char *why;

static void offer_and_complete(void)
{
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    fake_time_us += 10;
    recovery_first_completion(&fake_driver);
    assert_int_equal(fake_last_record()->outcome, FAULT_RECOVERED);
}

static void a_new_image_replaces_the_old_one(void **state)
{
    fake_config.limit = 1;
    fake_in_flight = 2;
    assert_int_equal(recovery_replace(&fake_driver, "ELF", 3, &why), OK);
    assert_int_equal(recovery_replace(&fake_driver, "ELF", 3, &why), ERR_STATE); /* under way */
    recovery_run(&fake_driver);
    assert_int_equal(recovery_replace(&fake_driver, "ELF", 3, &why), ERR_STATE); /* and still */
    assert_string_equal(fake_calls, "load stop close master-off message-off block revoke reset rings message-on start");
    offer_and_complete();
    assert_int_equal(fake_last_record()->kind, FAULT_OPERATOR);
    assert_string_equal(fake_driver.image.origin, "uploaded");
    fail_and_run(); /* no trial any more */
    assert_string_equal(fake_driver.image.origin, "uploaded");
    assert_int_equal(fake_driver.recovery.restarts_in_window, 1);
}

static void a_refused_image_changes_nothing(void **state)
{
    fake_load_status = ERR_FORMAT;
    assert_int_equal(recovery_replace(&fake_driver, "ELF", 3, &why), ERR_FORMAT);
    assert_string_equal(why, "damaged");
    assert_string_equal(fake_calls, "load");
    assert_false(fake_driver.recovery.pending || fake_driver.recovery.trial);
    assert_string_equal(fake_driver.image.origin, "manifest");
}

/* Dead before its offer, another offer, dead before the first completion: the image before comes back, uncounted. */
static void an_image_that_fails_is_taken_back(void **state)
{
    for (u32 way = 0; way < 3; way++) {
        fake_in_flight = 1;
        assert_int_equal(recovery_replace(&fake_driver, "ELF", 3, &why), OK);
        recovery_run(&fake_driver);
        assert_string_equal(fake_driver.image.origin, "uploaded");
        fake_offer_status = way == 1 ? ERR_INVALID : OK;
        if (way > 0)
            assert_int_equal(recovery_offer(&fake_driver, &offer), fake_offer_status);
        fake_offer_status = OK;
        if (way == 1)
            recovery_run(&fake_driver);
        else
            fail_and_run();
        assert_string_equal(fake_driver.image.origin, "manifest");
        assert_false(fake_driver.recovery.trial);
        assert_int_equal(fake_driver.recovery.restarts_in_window, 0);
        offer_and_complete();
    }
}

static void the_fallback_image_comes_at_the_limit(void **state)
{
    struct boot_module file = {.base = FAKE_RAM, .size = 77};

    fake_config.escalate = MANIFEST_ESCALATE_IMAGE;
    fake_driver.fallback = &file;
    die_until_given_up();
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_string_equal(fake_driver.image.origin, "fallback");
    assert_int_equal(fake_driver.image.entry, 77);
    assert_non_null(strstr(fake_calls, "revoke load reset"));
    die_until_given_up();
    assert_int_equal(fake_driver.state, DRIVER_FAILED);
}

static void without_memory_for_the_fallback_the_image_stays(void **state)
{
    struct boot_module file = {.base = FAKE_RAM, .size = 77};

    fake_config.escalate = MANIFEST_ESCALATE_IMAGE;
    fake_config.restart = false;
    fake_driver.fallback = &file;
    fake_load_status = ERR_NO_MEMORY;
    fail_and_run();
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_string_equal(fake_driver.image.origin, "manifest");
}

/* ---- several driver VMs ---- */

static struct manifest_vm next_config;
static struct vm next_vm;
static struct driver next_driver; /* "net0"; it needs blk0 */

static void add_next(enum driver_state state)
{
    next_config = fake_config;
    next_config.index = 1;
    next_config.after = next_config.needs = 1u << 0;
    next_vm = (struct vm){.id = 2, .name = "net0", .config = &next_config, .vcpu = {.state = VCPU_RUNNABLE}};
    next_driver = fake_driver;
    next_driver.vm = &next_vm;
    next_driver.config = &next_config;
    next_driver.state = state;
    next_driver.started = state == DRIVER_STOPPED ? 0 : 1;
    drivers[1] = &next_driver;
    driver_count = 2;
}

static void dependents_start_anew_when_it_is_back(void **state)
{
    fake_config.escalate = MANIFEST_ESCALATE_DEPENDENTS;
    add_next(DRIVER_RUNNING);
    die_until_given_up();
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    assert_false(next_driver.recovery.pending);
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_true(next_driver.recovery.pending);
    assert_int_equal(next_driver.recovery.current.kind, FAULT_PLANNED);
    assert_int_equal(next_driver.recovery.crashes, 0);
    next_driver.recovery.pending = false;
    next_driver.recovery.current.sequence = 0;
    fail_and_run(); /* an ordinary restart is nobody else's business */
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    assert_false(next_driver.recovery.pending);
    driver_count = 1;
}

static void what_is_needed_does_not_stop(void **state)
{
    add_next(DRIVER_RUNNING);
    assert_int_equal(recovery_stop(&fake_driver), ERR_BUSY);
    assert_false(fake_driver.recovery.pending);
    next_driver.state = DRIVER_STOPPED;
    assert_int_equal(recovery_stop(&fake_driver), OK);
    driver_count = 1;
}

static void starts_come_in_order(void **state)
{
    static const struct {
        enum driver_state first;
        bool needs;
        enum driver_state expected;
    } cases[] = {
        {DRIVER_STOPPED, true, DRIVER_STOPPED},     {DRIVER_STARTING, true, DRIVER_STOPPED},
        {DRIVER_RECOVERING, false, DRIVER_STOPPED}, {DRIVER_WAITING, true, DRIVER_STOPPED},
        {DRIVER_RUNNING, true, DRIVER_STARTING},    {DRIVER_RUNNING, false, DRIVER_STARTING},
        {DRIVER_FAILED, true, DRIVER_FAILED},       {DRIVER_FAILED, false, DRIVER_STARTING},
    };

    fake_bus_master = false;
    fake_blocked = true;
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        add_next(DRIVER_STOPPED);
        fake_driver.state = cases[i].first;
        if (!cases[i].needs)
            next_config.needs = 0;
        recovery_tick(&next_driver, tsc_now());
        assert_int_equal(next_driver.state, cases[i].expected);
    }
    driver_count = 1;
}

static void old_age_is_a_planned_restart(void **state)
{
    fake_config.rejuvenate_us = 5000000;
    fake_config.restart = false;
    fake_driver.started = tsc_now();
    recovery_tick(&fake_driver, fake_driver.started + tsc_from_us(5000000));
    assert_false(fake_driver.recovery.pending);
    recovery_tick(&fake_driver, fake_driver.started + tsc_from_us(5000001));
    assert_true(fake_driver.recovery.pending);
    fake_time_us += 5000001;
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_STARTING);
    offer_and_complete();
    assert_int_equal(fake_last_record()->kind, FAULT_PLANNED);
    recovery_tick(&fake_driver, tsc_now());
    assert_false(fake_driver.recovery.pending);
}

static void the_stash_survives_when_its_checksum_holds(void **state)
{
    u8 *stash = hpa_to_ptr(fake_driver.stash_page);

    memcpy(stash, "checkpoint", 10);
    memset(stash + 10, 0xee, 20);
    fake_driver.stash_length = 10;
    fake_driver.stash_checksum = recovery_checksum(hpa_to_ptr(fake_driver.stash_page), 10);
    fail_and_run();
    assert_int_equal(fake_driver.stash_length, 10);
    assert_memory_equal(stash, "checkpoint", 10);
    for (u32 i = 10; i < DRIVER_STASH_SIZE; i++)
        assert_int_equal(stash[i], 0); /* what was not accepted is not handed down */

    stash[3] ^= 0x10;
    fail_and_run();
    assert_int_equal(fake_driver.stash_length, 0);
    assert_int_equal(stash[0], 0);
}

static void events_are_cleared_and_features_kept(void **state)
{
    struct driver_events *events = hpa_to_ptr(fake_driver.events_page);

    *events = (struct driver_events){.pending = DRIVER_EVENT_INTERRUPT | DRIVER_EVENT_TIMEOUT, .features = 0x40};
    fail_and_run();
    assert_int_equal(events->pending, DRIVER_EVENT_FEATURES);
    assert_int_equal(events->features, 0x40);
}

static void late_dma_fault(void (*each)(const struct iommu_fault *fault))
{
    struct iommu_fault fault = {.source = FAKE_BDF, .address = 0x123000, .write = true, .reason = 5};
    fake_blocked = false; /* even if nobody could tell from the blocking domain */
    each(&fault);
    fake_blocked = true;
}

/* What the old generation's device left in the fault registers is not the successor's doing. */
static void old_dma_faults_are_read_during_quiesce(void **state)
{
    u64 event = event_last();

    fake_on_drain = late_dma_fault;
    fail_and_run();
    assert_int_equal(fake_driver.generation, 1);
    assert_false(fake_driver.recovery.pending);
    assert_int_equal(fake_events_since(event, EVENT_IOMMU_FAULT), 1);
}

static void history_keeps_the_newest(void **state)
{
    fake_config.limit = 1000;
    for (u32 i = 0; i < RECOVERY_HISTORY + 10; i++) {
        fail_and_run();
        assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    }
    assert_int_equal(recovery_history_count(), RECOVERY_HISTORY);
    for (u32 i = 1; i < RECOVERY_HISTORY; i++)
        assert_int_equal(recovery_history(i)->sequence, recovery_history(i - 1)->sequence + 1);
    assert_null(recovery_history(RECOVERY_HISTORY));
    assert_int_equal(fake_last_record()->generation, RECOVERY_HISTORY + 9);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_machine, fake_machine_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stages_come_in_their_order),
        TEST(a_start_is_measured),
        TEST(without_an_iommu_bus_mastering_alone_is_cut),
        TEST(the_first_report_wins),
        TEST(who_does_not_run_cannot_be_at_fault),
        TEST(a_blocked_vm_is_woken_for_its_recovery),
        TEST(with_nothing_in_flight_the_offer_ends_it),
        TEST(requests_that_may_wait_hold_up_no_recovery),
        TEST(an_answer_during_the_replay_is_the_first_completion),
        TEST(a_second_offer_is_refused),
        TEST(refused_offers_leave_room_in_the_log),
        TEST(a_successor_with_another_offer_is_at_fault),
        TEST(a_first_offer_may_be_corrected),
        TEST(a_fault_during_recovery_supersedes),
        TEST(the_limit_gives_up),
        TEST(giving_up_may_be_silent),
        TEST(the_operator_revives),
        TEST(the_operator_restarts_what_runs),
        TEST(the_operator_stops_and_starts),
        TEST(a_stop_ends_a_pause_and_a_failure),
        TEST(running_may_be_degraded),
        TEST(a_new_image_replaces_the_old_one),
        TEST(a_refused_image_changes_nothing),
        TEST(an_image_that_fails_is_taken_back),
        TEST(the_fallback_image_comes_at_the_limit),
        TEST(without_memory_for_the_fallback_the_image_stays),
        TEST(dependents_start_anew_when_it_is_back),
        TEST(what_is_needed_does_not_stop),
        TEST(starts_come_in_order),
        TEST(old_age_is_a_planned_restart),
        TEST(a_pause_is_waited_for),
        TEST(the_operator_ends_a_pause),
        TEST(the_stash_survives_when_its_checksum_holds),
        TEST(events_are_cleared_and_features_kept),
        TEST(old_dma_faults_are_read_during_quiesce),
        TEST(history_keeps_the_newest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
