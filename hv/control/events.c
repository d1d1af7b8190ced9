/* The event log: a ring in the hypervisor's own memory, always on. */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/printf.h"

#define EVENT_NAME(kind, name) [kind] = (name),
const char *const event_kind_name[EVENT_KINDS] = {EVENT_LIST(EVENT_NAME)};

static struct event ring[EVENT_LOG_SIZE];
static u64 last; /* sequence number of the newest; its slot is last % EVENT_LOG_SIZE */

void event_add(enum event_kind kind, u32 vm, const char *fmt, ...)
{
    struct event *event = &ring[++last % EVENT_LOG_SIZE];

    event->sequence = last;
    event->tsc = tsc_now();
    event->vm = vm;
    event->kind = kind;
    BH_FORMAT(event->text, sizeof(event->text), fmt);
}

const struct event *event_get(u64 sequence)
{
    const struct event *event = &ring[sequence % EVENT_LOG_SIZE];

    /* The slot of a number that is gone or not there yet holds another one; 0 is no number. */
    return sequence != 0 && event->sequence == sequence ? event : NULL;
}

u64 event_last(void)
{
    return last;
}
