/*
 * Decide: the policy of the manifest. Restart at once, restart later, or give up. No side effect but on its own
 * window, no clock of its own.
 */
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"

#define DELAY_MAX_US 60000000u
#define DOUBLINGS_MAX 16u /* backoff is 10 s at most, so 16 doublings stay far below 64 bits */

static u64 backoff_us(u64 first, u32 restarts)
{
    u64 delay = first << (restarts < DOUBLINGS_MAX ? restarts : DOUBLINGS_MAX);

    return delay < DELAY_MAX_US ? delay : DELAY_MAX_US;
}

bool recovery_window_open(const struct manifest_vm *config, const struct recovery *recovery, u64 now)
{
    return recovery->restarts_in_window > 0 &&
           (now <= recovery->window_start || now - recovery->window_start <= tsc_from_us(config->window_us));
}

/* The end of the line: the manifest's step before giving up, which gets all attempts anew, or no more. */
static struct recovery_decision escalate(const struct manifest_vm *config, struct recovery *recovery, const char *why)
{
    bool image = config->escalate == MANIFEST_ESCALATE_IMAGE;

    if (recovery->escalated || config->escalate == MANIFEST_ESCALATE_NONE)
        return (struct recovery_decision){.why = why};
    recovery->escalated = true;
    recovery->restarts_in_window = 0;
    recovery->wakes_dependents = !image;
    return (struct recovery_decision){
        .restart = true, .fallback = image, .why = image ? "the fallback image" : "restart, and all that need it"};
}

struct recovery_decision recovery_decide(const struct manifest_vm *config, struct recovery *recovery, u64 now)
{
    bool by_operator = recovery->current.kind == FAULT_OPERATOR;

    if (recovery->current.kind == FAULT_PLANNED) /* says nothing about the driver: nothing is counted, nor forgotten */
        return (struct recovery_decision){.restart = true, .why = "planned"};
    if (by_operator || !recovery_window_open(config, recovery, now)) {
        recovery->window_start = now;
        recovery->restarts_in_window = 0;
    }
    /* A person asked for it: that says nothing about how reliable the driver is, and a limit must not stand in the way.
     */
    recovery->escalated &= !by_operator;
    if (by_operator)
        return (struct recovery_decision){.restart = recovery->current.detail == ORDER_RESTART,
                                          .stop = recovery->current.detail == ORDER_STOP,
                                          .why = "the operator's wish"};
    if (recovery->trial)
        return (struct recovery_decision){.restart = true, .back = true, .why = "back to the image before"};
    if (!config->restart)
        return escalate(config, recovery, "restart = never");
    if (recovery->restarts_in_window >= config->limit)
        return escalate(config, recovery, "too many restarts in its window");

    u64 delay = tsc_from_us(backoff_us(config->backoff_us, recovery->restarts_in_window++));
    /* Time spent waiting is no proof of health. If the window ran on, long back-offs would empty it and nothing would
     * end the loop. */
    recovery->window_start += delay;
    return (struct recovery_decision){
        .restart = true, .delay = delay, .why = delay == 0 ? "restart at once" : "restart after a pause"};
}
