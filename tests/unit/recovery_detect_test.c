/* The detectors of time and of VT-d. */
/* SOURCES: hv/recovery/detect.c hv/recovery/detect_progress.c hv/recovery/detect_dma.c hv/recovery/restart.c
   hv/recovery/replay.c hv/recovery/inject.c hv/control/events.c hv/exit/hypercall.c hv/core/vm.c */
/* INCLUDE_FAKES */
#include "tests/unit/recovery_fakes.h"

/* So much wall time of which the driver VM ran `us`, then the tick. */
static void late_tick(u64 wall_us, u64 us)
{
    fake_time_us += wall_us;
    fake_vm.vcpu.run_ticks += tsc_from_us(us);
    recovery_tick(&fake_driver, tsc_now());
}

static void tick(u64 us)
{
    late_tick(1000, us);
}

/* What the relay stamps requests with. */
static u64 machine_time(void)
{
    return tsc_now() - fake_driver.recovery.lost;
}

static void a_blocked_driver_is_healthy(void **state)
{
    fake_driver.waiting = true;
    for (u32 i = 0; i < 10000; i++)
        tick(0);
    assert_false(fake_driver.recovery.pending);
}

/* The machine gave it no time: runnable, not waiting, no progress, and not its fault. */
static void a_driver_without_cpu_time_is_healthy(void **state)
{
    for (u32 i = 0; i < 10000; i++)
        tick(0);
    assert_false(fake_driver.recovery.pending);
}

static void spinning_is_found_after_heartbeat_times_misses(void **state)
{
    for (u32 i = 0; i < 59; i++)
        tick(1000);
    assert_false(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.heartbeat_misses, 2);
    tick(1000);
    assert_true(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_HEARTBEAT);
    assert_int_equal(fake_driver.recovery.current.detail, 0x10040);
}

/* A busy host takes the CPU away while the VM is in guest mode: it seems to have run for half a second. */
static void a_stolen_cpu_is_no_hang(void **state)
{
    for (u32 i = 0; i < 29; i++)
        tick(500000);
    assert_false(fake_driver.recovery.pending);
    fake_driver.hypercalls++;
    for (u32 i = 0; i < 29; i++)
        tick(500000);
    assert_false(fake_driver.recovery.pending);
}

static void slow_progress_is_progress(void **state)
{
    u32 *counters[] = {&fake_completion_pages[0].heartbeat, &fake_completion_pages[3].consumed,
                       &fake_completion_pages[1].produced};

    for (u32 i = 0; i < 600; i++) {
        if (i % 59 == 58)
            ++*counters[i / 59 % ARRAY_SIZE(counters)];
        if (i == 300)
            fake_driver.hypercalls++;
        tick(1000);
    }
    assert_false(fake_driver.recovery.pending);
}

static void a_driver_that_never_offered_has_no_heartbeat_yet(void **state)
{
    fake_driver.state = DRIVER_STARTING;
    fake_driver.started = tsc_now();
    for (u32 i = 0; i < 400; i++)
        tick(1000);
    assert_false(fake_driver.recovery.pending);
}

static void a_heartbeat_alone_does_not_save_from_the_deadline(void **state)
{
    u64 start = fake_time_us;

    fake_oldest = tsc_now();
    while (!fake_driver.recovery.pending) {
        fake_completion_pages[0].heartbeat++;
        tick(1000);
        assert_true(fake_time_us - start <= 501000);
    }
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_DEADLINE);
    assert_int_equal(fake_time_us - start, 501000);
}

/* The guest has something in its ring, kicks are off, and the driver goes round and round without a `wait`. */
static void requests_that_nobody_fetches_have_a_deadline(void **state)
{
    u64 start = fake_time_us;

    fake_offered = true;
    while (!fake_driver.recovery.pending) {
        fake_completion_pages[0].heartbeat++;
        tick(1000);
        assert_true(fake_time_us - start <= 502000);
    }
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_DEADLINE);
}

/* Who waits has armed the guest's kicks. */
static void a_waiting_driver_is_not_looked_after(void **state)
{
    fake_offered = fake_driver.waiting = true;
    for (u32 i = 0; i < 1000; i++)
        tick(0);
    assert_true(fake_oldest == ~0ull);
    assert_false(fake_driver.recovery.pending);
}

/*
 * The machine itself stood still for 10 s between any two ticks: neither the request's deadline nor the offer's is
 * over, until the ticks that there were have added up to it. 500 ms are 250 looks of 2 ms.
 */
static void time_in_which_the_machine_stood_still_does_not_count(void **state)
{
    fake_oldest = machine_time();
    for (u32 i = 0; i < 250; i++) {
        fake_completion_pages[0].heartbeat++;
        late_tick(10000000, 10000000);
        assert_false(fake_driver.recovery.pending);
    }
    fake_completion_pages[0].heartbeat++;
    tick(1000);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_DEADLINE);
}

static void a_start_that_the_machine_delays_has_time(void **state)
{
    fake_driver.state = DRIVER_STARTING;
    fake_driver.started = tsc_now();
    for (u32 i = 0; i < 250; i++) {
        late_tick(10000000, 0);
        assert_false(fake_driver.recovery.pending);
    }
    tick(0);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_OFFER);
}

/* Submitted while the tick that tells of the standstill is still to come: that must not make it older than it is. */
static void a_request_of_the_end_of_a_standstill_is_young(void **state)
{
    fake_time_us += 9000000;
    fake_oldest = machine_time();
    late_tick(1000000, 0);
    assert_true(machine_time() < fake_oldest);
    assert_false(fake_driver.recovery.pending);
    while (!fake_driver.recovery.pending) {
        fake_completion_pages[0].heartbeat++;
        tick(1000);
    }
    /* What it costs: that much of the standstill is left out of the request's time, too. */
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_DEADLINE);
}

/* A start that is given 0.4 s does not leave them to the next one, nor to the heartbeat. */
static void each_start_has_its_own_time(void **state)
{
    for (u32 start = 0; start < 3; start++) {
        fake_driver.state = DRIVER_STARTING;
        progress_reset(&fake_driver);
        for (u32 i = 0; i < 400; i++)
            tick(1000);
    }
    assert_false(fake_driver.recovery.pending);
}

static void a_request_younger_than_the_tick_has_time(void **state)
{
    fake_oldest = tsc_now() + 5000;
    recovery_tick(&fake_driver, tsc_now());
    assert_false(fake_driver.recovery.pending);
}

static void an_offer_must_come_in_time(void **state)
{
    fake_driver.state = DRIVER_STARTING;
    fake_driver.started = tsc_now();
    for (u32 i = 0; i < 500; i++)
        tick(0);
    assert_false(fake_driver.recovery.pending);
    tick(0);
    assert_true(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_OFFER);
}

static void an_offer_has_two_seconds_at_most(void **state)
{
    fake_config.deadline_us = 600000000;
    fake_driver.state = DRIVER_STARTING;
    fake_driver.started = tsc_now();
    for (u32 i = 0; i < 2001; i++) {
        assert_false(fake_driver.recovery.pending);
        tick(0);
    }
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_OFFER);
}

static void an_interrupt_storm_is_masked(void **state)
{
    for (u32 i = 0; i < 60 && !fake_driver.recovery.pending; i++) {
        fake_driver.device_interrupts += 300;
        tick(0);
    }
    assert_true(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_INTERRUPT);
    assert_false(fake_message);
}

static void interrupts_with_completions_are_no_storm(void **state)
{
    for (u32 i = 0; i < 2000; i++) {
        fake_driver.device_interrupts += 300;
        fake_completions += i % 20 == 0;
        tick(0);
    }
    assert_false(fake_driver.recovery.pending);
}

static void few_interrupts_are_no_storm(void **state)
{
    for (u32 i = 0; i < 20000; i++) {
        fake_driver.device_interrupts += 90;
        tick(0);
    }
    assert_false(fake_driver.recovery.pending);
}

static void a_wait_ends_with_its_time_out(void **state)
{
    struct driver_events *events = hpa_to_ptr(fake_driver.events_page);

    fake_driver.waiting = true;
    fake_driver.wait_deadline = tsc_now() + tsc_from_us(2500);
    fake_vm.vcpu.state = VCPU_BLOCKED;
    tick(0);
    tick(0);
    assert_int_equal(fake_vm.vcpu.state, VCPU_BLOCKED);
    tick(0);
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
    assert_int_equal(events->pending, DRIVER_EVENT_TIMEOUT);
}

static struct iommu_fault dma_write = {.source = FAKE_BDF, .address = 0x7fff0000, .reason = 5, .write = true};

static void a_dma_fault_finds_its_owner(void **state)
{
    u64 event = event_last();

    recovery_iommu_fault(&dma_write);
    assert_true(fake_driver.recovery.pending);
    const struct fault_record *record = &fake_driver.recovery.current;
    assert_int_equal(record->kind, FAULT_DMA);
    assert_int_equal(record->address, 0x7fff0000);
    assert_int_equal(record->detail, 5);
    assert_string_equal(record->text, "DMA write 0x7fff0000: write not allowed");
    assert_string_equal(event_get(event + 1)->text, "00:1f.2 DMA write 0x7fff0000 reason 5: write not allowed");
    assert_int_equal(event_get(event + 1)->vm, 0);
}

static void a_forged_interrupt_is_its_own_kind(void **state)
{
    struct iommu_fault fault = {.source = FAKE_BDF, .reason = 0x26, .interrupt = true};

    fake_time_us += 200000;
    recovery_iommu_fault(&fault);
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_INTERRUPT);
}

static void strangers_and_blocked_devices_are_events_only(void **state)
{
    struct iommu_fault stranger = {.source = 0x0100, .address = 0x1000};
    u64 event = event_last();

    fake_time_us += 400000;
    recovery_iommu_fault(&stranger);
    assert_int_equal(event_get(event + 1)->vm, EVENT_NO_VM);
    fake_blocked = true;
    recovery_iommu_fault(&dma_write);
    assert_int_equal(fake_events_since(event, EVENT_IOMMU_FAULT), 2);
    assert_false(fake_driver.recovery.pending);
}

static void a_flood_of_dma_faults_leaves_room_in_the_log(void **state)
{
    u64 event = event_last();

    fake_time_us += 600000;
    fake_blocked = true;
    for (u32 i = 0; i < 10000; i++)
        recovery_iommu_fault(&dma_write);
    assert_true(event_last() - event <= 32);
    fake_time_us += 100001;
    event = event_last();
    recovery_iommu_fault(&dma_write);
    assert_int_equal(event_last(), event + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_machine, fake_machine_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_blocked_driver_is_healthy),
        TEST(a_driver_without_cpu_time_is_healthy),
        TEST(spinning_is_found_after_heartbeat_times_misses),
        TEST(a_stolen_cpu_is_no_hang),
        TEST(slow_progress_is_progress),
        TEST(a_driver_that_never_offered_has_no_heartbeat_yet),
        TEST(a_heartbeat_alone_does_not_save_from_the_deadline),
        TEST(requests_that_nobody_fetches_have_a_deadline),
        TEST(a_waiting_driver_is_not_looked_after),
        TEST(time_in_which_the_machine_stood_still_does_not_count),
        TEST(a_start_that_the_machine_delays_has_time),
        TEST(a_request_of_the_end_of_a_standstill_is_young),
        TEST(each_start_has_its_own_time),
        TEST(a_request_younger_than_the_tick_has_time),
        TEST(an_offer_must_come_in_time),
        TEST(an_offer_has_two_seconds_at_most),
        TEST(an_interrupt_storm_is_masked),
        TEST(interrupts_with_completions_are_no_storm),
        TEST(few_interrupts_are_no_storm),
        TEST(a_wait_ends_with_its_time_out),
        TEST(a_dma_fault_finds_its_owner),
        TEST(a_forged_interrupt_is_its_own_kind),
        TEST(strangers_and_blocked_devices_are_events_only),
        TEST(a_flood_of_dma_faults_leaves_room_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
