/* Detect: where every detector reports, and the records of what was reported. */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define RATE_WINDOW_US 100000u

#define FAULT_NAME(kind, name) [kind] = (name),
const char *const fault_kind_name[FAULT_KINDS] = {FAULT_LIST(FAULT_NAME)};

const char *const fault_outcome_name[] = {"open", "recovered", "gave-up", "superseded", "stopped"};

static struct fault_record history[RECOVERY_HISTORY];
static u32 history_total; /* ever closed; the slot of the next one is history_total % RECOVERY_HISTORY */
static u32 last_sequence;

bool rate_allows(struct rate *rate, u32 limit)
{
    u64 now = tsc_now();

    if (now - rate->start > tsc_from_us(RATE_WINDOW_US))
        *rate = (struct rate){.start = now};
    return rate->count++ < limit;
}

u32 recovery_history_count(void)
{
    return history_total < RECOVERY_HISTORY ? history_total : RECOVERY_HISTORY;
}

const struct fault_record *recovery_history(u32 i)
{
    u32 count = recovery_history_count();

    return i < count ? &history[(history_total - count + i) % RECOVERY_HISTORY] : NULL;
}

void record_close(struct driver *driver, enum fault_outcome outcome)
{
    struct fault_record *record = &driver->recovery.current;

    record->outcome = outcome;
    history[history_total++ % RECOVERY_HISTORY] = *record;
    record->sequence = 0;
}

void recovery_report(struct driver *driver, enum fault_kind kind, u64 detail, u64 address, const char *fmt, ...)
{
    struct recovery *recovery = &driver->recovery;
    struct fault_record *record = &recovery->current;
    bool runs = driver->state == DRIVER_STARTING || driver->state == DRIVER_RUNNING;

    /* One fault often shows in several places; the first one names the cause. A VM that does not run cannot be at
     * fault, but the operator may want it to run. */
    if (recovery->pending || (!runs && kind != FAULT_OPERATOR)) {
        recovery->reports_later++;
        return;
    }
    if (record->sequence != 0)
        record_close(driver, FAULT_SUPERSEDED);
    *record = (struct fault_record){
        .sequence = ++last_sequence,
        .vm = driver->vm->id,
        .generation = driver->generation,
        .kind = kind,
        .outcome = FAULT_OPEN,
        .detail = detail,
        .address = address,
        .t_injected = recovery->inject_time,
        .t_detect = tsc_now(),
    };
    BH_FORMAT(record->text, sizeof(record->text), fmt);
    /* An injection that was armed only has not happened: then this fault is a real one. */
    if (recovery->inject_time != 0)
        (void)str_copy(record->injected, sizeof(record->injected), recovery->inject_name);
    event_add(EVENT_FAULT, driver->vm->id, "%s: %s", fault_kind_name[kind], record->text);
    recovery->faults_total++;
    recovery->crashes += kind < FAULT_PLANNED;
    recovery->pending = true;

    /* The stages run on its own CPU, which may be idle or in guest mode now. */
    vcpu_wake(&driver->vm->vcpu);
    vcpu_kick(&driver->vm->vcpu);
}
