#include "drivervm/drivers/edu/rogue.h"

#include "shared/lib/string.h"

#define VIRTIO_TYPE_ENTROPY 4u /* VirtIO 1.2 5.4: one queue, no features, no configuration */
#define QUEUE_SIZE 8u
#define PACE_US 20000u /* between attempts: the event log takes 50 lines of ours in 0.1 s, and none may be lost */

struct rogue_score rogue_score;
static bool opened, done;

void rogue_expect_denied(const char *what, i64 result)
{
    if (result < 0) {
        rogue_score.denied++;
        log_line("rogue: %s denied: %s", what, status_text((status_t)-result));
    } else {
        rogue_score.accepted++;
        log_line("rogue: %s ACCEPTED", what);
    }
}

void rogue_save_score(void)
{
    if (stash_save(&rogue_score, sizeof(rogue_score)) != OK)
        log_line("rogue: the stash does not take the score");
}

/* The next attempt if it is one of this group, which begins with number `first`. */
static bool run_one(const struct rogue_group *group, u32 first)
{
    if (rogue_score.next - first >= group->count())
        return false;
    u32 n = rogue_score.next++ - first;
    rogue_save_score(); /* before the attempt: if it is our last, the successor takes the next */
    hypercall(HYPERCALL_WAIT, PACE_US, 0, 0);
    group->attempt(n);
    return true;
}

static status_t start(struct driver_offer *offer)
{
    if (stash_load(&rogue_score, sizeof(rogue_score)))
        rogue_score.died++;
    else
        memset(&rogue_score, 0, sizeof(rogue_score));
    log_line("rogue: start, generation %u, attempt %u of %u", driver_info->generation, rogue_score.next,
             rogue_offer.count() + rogue_dma.count() + rogue_cpu.count());
    while (run_one(&rogue_offer, 0))
        ;
    *offer = (struct driver_offer){.virtio_type = VIRTIO_TYPE_ENTROPY, .queues = 1, .queue_size = QUEUE_SIZE};
    return OK;
}

static void open_device(void)
{
    if (opened)
        return;
    status_t status = rogue_dma_open();
    if (status != OK) {
        log_line("rogue: the device does not open: %s", status_text(status));
        driver_fault(DRIVER_FAULT_DEVICE, status);
    }
    opened = true;
}

static void finish(void)
{
    rogue_save_score();
    hypercall(HYPERCALL_WAIT, PACE_US, 0, 0);
    log_line("rogue: done reads_leaked=%u writes_ok=unknown denied=%u accepted=%u survived=%u died=%u",
             rogue_score.reads_leaked, rogue_score.denied, rogue_score.accepted, rogue_score.survived,
             rogue_score.died);
    done = true;
}

static bool poll(void)
{
    return false;
}

/* One thing each time round, requests first: they wait for an answer. */
static void pump(void)
{
    u32 first = rogue_offer.count();

    open_device();
    if (rogue_probe_run() || run_one(&rogue_dma, first) || run_one(&rogue_cpu, first + rogue_dma.count()))
        return;
    if (!done)
        finish();
}

static u64 timeout(void)
{
    return done ? WAIT_FOREVER : 0;
}

const struct driver driver = {
    .start = start, .request = rogue_probe_request, .poll = poll, .pump = pump, .timeout = timeout};
