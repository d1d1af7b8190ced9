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

struct recovery_decision recovery_decide(const struct manifest_vm *config, struct recovery *recovery, u64 now)
{
    bool by_operator = recovery->current.kind == FAULT_OPERATOR;

    if (by_operator || !recovery_window_open(config, recovery, now)) {
        recovery->window_start = now;
        recovery->restarts_in_window = 0;
    }
    /* A person asked for it: that says nothing about how reliable the driver is, and a limit must not stand in the way.
     */
    if (by_operator)
        return (struct recovery_decision){.restart = recovery->current.detail == ORDER_RESTART,
                                          .stop = recovery->current.detail == ORDER_STOP,
                                          .why = "the operator's wish"};
    if (!config->restart)
        return (struct recovery_decision){.why = "restart = never"};
    if (recovery->restarts_in_window >= config->limit)
        return (struct recovery_decision){.why = "too many restarts in its window"};

    u64 delay = tsc_from_us(backoff_us(config->backoff_us, recovery->restarts_in_window++));
    /* Time spent waiting is no proof of health. If the window ran on, long back-offs would empty it and nothing would
     * end the loop. */
    recovery->window_start += delay;
    return (struct recovery_decision){
        .restart = true, .delay = delay, .why = delay == 0 ? "restart at once" : "restart after a pause"};
}
