/*
 * Detect by time: a driver VM that runs without getting anywhere, a request that takes too long, an offer that does not
 * come, an interrupt storm. Called every millisecond.
 *
 * Time here is time in which the machine ran us: between two looks never more than LOOK_MAX. Where an outer hypervisor
 * or a busy host takes the CPU away, ticks come late, and the driver and its device may have stood still as long.
 */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/exit/hypercall.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"

#define OFFER_MAX_US 2000000u
#define LOOK_MAX tsc_from_us(2000)
/* A device that completes nothing and still interrupts 100,000 times a second is broken; the fastest disks complete
 * with each. */
#define STORM_WINDOW_US 100000u
#define STORM_INTERRUPTS 10000u

/*
 * Any change counts. The ring counters are the driver's own word: one that spins and counts up its heartbeat passes
 * here, and fails by the deadline of the request that it does not serve.
 */
static u64 progress_value(const struct driver *driver)
{
    u64 value = driver->hypercalls;

    for (u32 queue = 0; queue < RING_MAX_QUEUES; queue++) {
        const struct ring_completion_page *page = relay_completion_page(driver->relay, queue);
        value += __atomic_load_n(&page->heartbeat, __ATOMIC_RELAXED);
        value += __atomic_load_n(&page->consumed, __ATOMIC_RELAXED);
        value += __atomic_load_n(&page->produced, __ATOMIC_RELAXED);
    }
    return value;
}

static void storm_restart(struct driver *driver, u64 now)
{
    driver->recovery.storm_start = now;
    driver->recovery.storm_interrupts = driver->device_interrupts;
    driver->recovery.storm_completions = relay_stats(driver->relay).completions;
}

void progress_reset(struct driver *driver)
{
    struct recovery *recovery = &driver->recovery;

    recovery->last_progress = progress_value(driver);
    recovery->last_run = driver->vm->vcpu.run_ticks;
    recovery->silent = 0;
    recovery->heartbeat_misses = 0;
    storm_restart(driver, tsc_now());
}

/*
 * Only time in guest mode counts: a driver that waits for an event is healthy, and so is one that the machine gave no
 * time.
 */
static void check_heartbeat(struct driver *driver, u64 passed)
{
    struct recovery *recovery = &driver->recovery;
    u64 ran = driver->vm->vcpu.run_ticks - recovery->last_run;
    u64 value = progress_value(driver);

    recovery->last_run += ran;
    recovery->silent += ran < passed ? ran : passed;
    if (value != recovery->last_progress)
        recovery->silent = 0;
    recovery->last_progress = value;
    recovery->heartbeat_misses = (u32)(recovery->silent / tsc_from_us(driver->config->heartbeat_us));
    if (recovery->heartbeat_misses >= driver->config->misses)
        recovery_report(driver, FAULT_HEARTBEAT, driver->vm->vcpu.rip, 0, "ran %lu us without progress, last at 0x%lx",
                        tsc_to_us(recovery->silent), driver->vm->vcpu.rip);
}

static void check_deadline(struct driver *driver, u64 now)
{
    u64 oldest = relay_oldest(driver->relay);

    /* `now` was read before the lock was taken perhaps: a request may be younger than it. */
    if (oldest >= now || now - oldest <= tsc_from_us(driver->config->deadline_us))
        return;
    recovery_report(driver, FAULT_DEADLINE, now - oldest, 0, "a request is in flight for %lu us",
                    tsc_to_us(now - oldest));
}

static void check_offer(struct driver *driver, u64 passed)
{
    u64 limit = driver->config->deadline_us < OFFER_MAX_US ? driver->config->deadline_us : OFFER_MAX_US;
    u64 *silent = &driver->recovery.silent;

    *silent += passed; /* it has no heartbeat yet */
    if (*silent > tsc_from_us(limit))
        recovery_report(driver, FAULT_OFFER, *silent, 0, "no offer within %lu us of its start", limit);
}

static void check_storm(struct driver *driver, u64 now)
{
    struct recovery *recovery = &driver->recovery;
    u64 interrupts = driver->device_interrupts - recovery->storm_interrupts;

    if (interrupts > STORM_INTERRUPTS && relay_stats(driver->relay).completions == recovery->storm_completions) {
        /* Masked here and not in quiesce only: each of them costs its CPU the time that recovery needs. */
        driver_interrupt_close(driver);
        recovery_report(driver, FAULT_INTERRUPT, interrupts, 0, "%lu interrupts without a completion", interrupts);
    } else if (now > recovery->storm_start && now - recovery->storm_start > tsc_from_us(STORM_WINDOW_US)) {
        storm_restart(driver, now);
    }
}

/* The first start, at boot: when all that it comes after have offered, or will not and are not needed. */
static void start_in_order(struct driver *driver)
{
    for (u32 i = 0; i < driver_count; i++) {
        u32 bit = 1u << drivers[i]->config->index;
        bool failed = drivers[i]->state == DRIVER_FAILED;

        if (!(driver->config->after & bit) || drivers[i]->state == DRIVER_RUNNING ||
            (failed && !(driver->config->needs & bit)))
            continue;
        if (failed) {
            driver->state = DRIVER_FAILED;
            event_add(EVENT_GAVE_UP, driver->vm->id, "%s, which it needs, has failed", drivers[i]->vm->name);
        }
        return;
    }
    driver_start(driver);
}

static void check_age(struct driver *driver, u64 now)
{
    u64 limit = driver->config->rejuvenate_us;

    if (limit != 0 && now > driver->started && now - driver->started > tsc_from_us(limit))
        recovery_report(driver, FAULT_PLANNED, 0, 0, "rejuvenation after %lu s", limit / 1000000);
}

void recovery_tick(struct driver *driver, u64 now)
{
    u64 since = now - driver->recovery.last_look, passed = since < LOOK_MAX ? since : LOOK_MAX;

    driver->recovery.last_look = now;
    driver->recovery.lost += since - passed;
    if (driver->recovery.pending)
        return;
    if (driver_wait_expired(driver, now)) {
        driver->wait_deadline = ~0ull;
        driver_signal(driver, DRIVER_EVENT_TIMEOUT);
    }
    if (driver->state == DRIVER_STARTING) {
        check_offer(driver, passed);
        check_storm(driver, now);
    } else if (driver->state == DRIVER_STOPPED && driver->started == 0) {
        start_in_order(driver);
    } else if (driver->state == DRIVER_RUNNING) {
        /* One that never waits again must not keep the guest's requests out of the log: no deadline would notice. */
        if (!driver->waiting)
            (void)relay_forward(driver->relay);
        check_age(driver, now);
        check_heartbeat(driver, passed);
        check_deadline(driver, now - driver->recovery.lost);
        check_storm(driver, now);
        driver_prepare_spare(driver);
    }
}
