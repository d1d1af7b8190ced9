/* The way of a fault, after detection: decide, quiesce, reset, restart. Replay follows when the successor offers. */
#include "hv/control/control.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"

bool recovery_due(const struct driver *driver, u64 now)
{
    return driver->recovery.pending || (driver->state == DRIVER_WAITING && now >= driver->recovery.restart_at);
}

static u64 us_since(u64 start)
{
    return tsc_to_us(tsc_now() - start);
}

/*
 * After the pause, if there is one: what the device, blocked and without bus mastering, still has under way may come to
 * its end first. Not every device takes a reset in the middle of it well (docs/FAULTS.md, "nvme").
 */
static void run_reset(struct driver *driver)
{
    struct fault_record *record = &driver->recovery.current;

    record->t_reset = tsc_now();
    recovery_reset_device(driver);
    record->t_reset_end = tsc_now();
    event_add(EVENT_RESET, driver->vm->id, "%s, %lu us", pci_reset_name[record->reset_kind], us_since(record->t_reset));
}

static void run_restart(struct driver *driver)
{
    struct fault_record *record = &driver->recovery.current;

    run_reset(driver);
    record->t_restart = tsc_now();
    recovery_restart_vm(driver);
    event_add(EVENT_RESTART, driver->vm->id, "generation %u, %lu us", driver->generation, us_since(record->t_restart));
}

/* The device stays where quiesce has put it: nothing but a restart by the operator attaches it again. */
static void run_end(struct driver *driver, const struct recovery_decision *decision)
{
    bool answer = !decision->stop && driver->config->give_up == MANIFEST_GIVE_UP_ERRORS;

    run_reset(driver);
    driver->state = decision->stop ? DRIVER_STOPPED : DRIVER_FAILED;
    inject_clear(driver);
    record_close(driver, decision->stop ? FAULT_STOPPED : FAULT_GAVE_UP);
    event_add(decision->stop ? EVENT_STOPPED : EVENT_GAVE_UP, driver->vm->id, "%s; the device %s", decision->why,
              answer ? "answers with errors" : "is silent");
    hv_log("%s: %s: %s", driver->vm->name, decision->stop ? "stopped" : "given up", decision->why);
    relay_give_up(driver->relay, answer);
}

static void run_stages(struct driver *driver)
{
    struct recovery *recovery = &driver->recovery;
    struct fault_record *record = &recovery->current;
    const char *why;

    recovery->pending = false;
    driver->state = DRIVER_RECOVERING;

    record->t_decide = tsc_now();
    struct recovery_decision decision = recovery_decide(driver->config, recovery, record->t_decide);
    event_add(EVENT_DECIDE, driver->vm->id, "%s, %u of %u, pause %lu us", decision.why, recovery->restarts_in_window,
              driver->config->limit, tsc_to_us(decision.delay));

    record->t_quiesce = tsc_now();
    recovery_quiesce(driver);
    driver->crash = *record;
    driver->crash_vcpu = driver->vm->vcpu;
    record->t_quiesce_end = tsc_now();
    event_add(EVENT_QUIESCE, driver->vm->id, "device blocked, grants revoked, %lu us", us_since(record->t_quiesce));

    recovery->trial &= !decision.back;
    if (decision.back)
        driver_swap_images(driver);
    /* plan_check() has seen that it fits: memory may be short, and then the image stays. */
    if (decision.fallback &&
        driver_load(driver, hpa_to_ptr(HPA(driver->fallback->base)), driver->fallback->size, "fallback", &why) != OK)
        event_add(EVENT_DECIDE, driver->vm->id, "no fallback: %s", why);
    if (!decision.restart) {
        run_end(driver, &decision);
    } else if (decision.delay > 0) {
        driver->state = DRIVER_WAITING;
        recovery->restart_at = record->t_decide + decision.delay;
    } else {
        run_restart(driver);
    }
}

void recovery_run(struct driver *driver)
{
    if (driver->recovery.pending)
        run_stages(driver);
    else if (recovery_due(driver, tsc_now()))
        run_restart(driver);
}

status_t recovery_restart(struct driver *driver)
{
    if (driver->recovery.pending)
        return ERR_STATE;
    if (driver->state == DRIVER_WAITING)
        driver->recovery.restart_at = 0;
    else
        recovery_report(driver, FAULT_OPERATOR, ORDER_RESTART, 0, "restart by the operator");
    return OK;
}

status_t recovery_replace(struct driver *driver, const void *file, u64 size, const char **why)
{
    *why = "a recovery is under way";
    if (driver->recovery.pending || driver->recovery.trial || driver->recovery.current.sequence != 0)
        return ERR_STATE;
    status_t status = driver_load(driver, file, size, "uploaded", why);
    if (status == OK) {
        driver->recovery.trial = true;
        recovery_report(driver, FAULT_OPERATOR, ORDER_RESTART, 0, "its image is replaced");
    }
    return status;
}

status_t recovery_stop(struct driver *driver)
{
    if (driver->recovery.pending || driver->state == DRIVER_STOPPED)
        return ERR_STATE;
    for (u32 i = 0; i < driver_count; i++)
        if (driver_needs(drivers[i], driver) && drivers[i]->state != DRIVER_STOPPED)
            return ERR_BUSY;
    recovery_report(driver, FAULT_OPERATOR, ORDER_STOP, 0, "stop by the operator");
    return OK;
}

const char *recovery_state(const struct driver *driver)
{
    static const char *const names[] = {"stopped", "starting", "running", "recovering", "recovering", "failed"};
    const struct recovery *recovery = &driver->recovery;

    if (driver->state == DRIVER_STARTING && recovery->current.sequence != 0)
        return "recovering";
    if (driver->state == DRIVER_RUNNING &&
        (recovery->heartbeat_misses > 0 || (2 * recovery->restarts_in_window > driver->config->limit &&
                                            recovery_window_open(driver->config, recovery, tsc_now()))))
        return "degraded";
    return names[driver->state];
}
