/* Replay: the successor's offer puts the log back into its rings, and the first completion after that closes the
 * record. */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"

#define REFUSALS 50u /* in the event log in 100 ms: before its first offer a driver VM may make one after the other */

static void recovered(struct driver *driver)
{
    struct fault_record *record = &driver->recovery.current;

    event_add(EVENT_RECOVERED, driver->vm->id, "generation %u, %lu us after the fault was seen", driver->generation,
              tsc_to_us(tsc_now() - record->t_detect));
    driver->recovery.trial = false;
    record_close(driver, FAULT_RECOVERED);
}

/* Those that need this driver, or need one that does, start anew, once it is back. */
static void wake_dependents(struct driver *driver)
{
    for (u32 i = 0; driver->recovery.wakes_dependents && i < driver_count; i++)
        if (driver_needs(drivers[i], driver))
            recovery_report(drivers[i], FAULT_PLANNED, 0, 0, "%s, which it needs, was restarted", driver->vm->name);
    driver->recovery.wakes_dependents = false;
}

status_t recovery_offer(struct driver *driver, const struct driver_offer *offer)
{
    struct fault_record *record = &driver->recovery.current;
    u32 in_flight = relay_in_flight(driver->relay);
    u64 arrived = tsc_now();

    if (driver->state != DRIVER_STARTING)
        return ERR_STATE;
    status_t status = relay_offer(driver->relay, offer);
    if (status != OK) {
        if (rate_allows(&driver->recovery.log_rate, REFUSALS))
            event_add(EVENT_OFFER, driver->vm->id, "refused: %s", status_text(status));
        if (driver->generation > 0)
            recovery_report(driver, FAULT_OFFER, status, 0, "its offer was refused: %s", status_text(status));
        return status;
    }
    driver->state = DRIVER_RUNNING;
    driver->start_us = tsc_to_us(arrived - driver->entered);
    driver->start_run_us = tsc_to_us(driver->vm->vcpu.run_ticks - driver->run_before);
    driver->device_wait_us = offer->device_wait_us;
    progress_reset(driver);
    wake_dependents(driver);
    event_add(EVENT_OFFER, driver->vm->id, "type %u, %u queues, %lu us after its start", offer->virtio_type,
              offer->queues, tsc_to_us(arrived - driver->started));
    if (record->sequence == 0)
        return OK;

    record->t_offer = arrived;
    record->t_replay = tsc_now();
    record->replayed = in_flight;
    event_add(EVENT_REPLAY, driver->vm->id, "%u requests, %lu us", in_flight, tsc_to_us(record->t_replay - arrived));
    /* A request that could not be replayed was answered at once: then the guest has had its first completion already.
     */
    u64 last_completion = relay_stats(driver->relay).last_completion;
    if (in_flight != 0 && last_completion >= arrived)
        record->t_first_completion = last_completion;
    if (relay_oldest(driver->relay) == ~0ull || record->t_first_completion != 0) /* else a completion must follow */
        recovered(driver);
    return OK;
}

void recovery_first_completion(struct driver *driver)
{
    struct recovery *recovery = &driver->recovery;

    if (recovery->current.sequence == 0 || recovery->pending || driver->state != DRIVER_RUNNING)
        return;
    recovery->current.t_first_completion = tsc_now();
    recovered(driver);
}
