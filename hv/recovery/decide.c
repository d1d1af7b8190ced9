/*
 * Decide: the policy of the manifest. Restart at once, restart later, or give up. Pure; no side effect, no clock of its
 * own.
 */
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"

#define DELAY_MAX_US 60000000u
#define DOUBLINGS_MAX 16u /* backoff is 10 s at most, so 16 doublings stay far below 64 bits */

static u64 delay_us(u64 first, u32 restarts)
{
    u64 delay = first << (restarts < DOUBLINGS_MAX ? restarts : DOUBLINGS_MAX);

    return delay < DELAY_MAX_US ? delay : DELAY_MAX_US;
}

struct recovery_decision recovery_decide(const struct manifest_vm *config, const struct recovery *recovery, u64 now)
{
    struct recovery_decision out = {
        .window_start = recovery->window_start,
        .restarts_in_window = recovery->restarts_in_window,
    };

    /* A person asked for it: that says nothing about how reliable the driver is, and a limit must not stand in the way.
     */
    if (recovery->current.kind == FAULT_OPERATOR)
        return (struct recovery_decision){.restart = true, .window_start = now, .why = "the operator's wish"};

    if (out.restarts_in_window == 0 ||
        (now > out.window_start && now - out.window_start > tsc_from_us(config->window_us))) {
        out.window_start = now;
        out.restarts_in_window = 0;
    }
    if (!config->restart) {
        out.why = "restart = never";
        return out;
    }
    if (out.restarts_in_window >= config->limit) {
        out.why = "too many restarts in its window";
        return out;
    }
    out.restart = true;
    out.delay = tsc_from_us(delay_us(config->backoff_us, out.restarts_in_window));
    /* Time spent waiting is no proof of health. If the window ran on, long back-offs would empty it and nothing would
     * end the loop. */
    out.window_start += out.delay;
    out.restarts_in_window++;
    out.why = out.delay == 0 ? "restart at once" : "restart after a pause";
    return out;
}
