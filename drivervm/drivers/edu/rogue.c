#include "drivervm/drivers/edu/rogue.h"

#include "shared/lib/string.h"

struct rogue_score rogue_score;

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

static void save_score(void)
{
    if (stash_save(&rogue_score, sizeof(rogue_score)) != OK)
        log_line("rogue: the stash does not take the score");
}

/* The note is made before the attempt: if it is our last, the successor takes the next. */
static void run_group(const struct rogue_group *group, u32 first)
{
    u32 count = group->count();

    while (rogue_score.next < first + count) {
        u32 n = rogue_score.next++ - first;
        save_score();
        group->attempt(n);
    }
}

static status_t start(struct driver_offer *offer)
{
    (void)offer; /* virtio_type stays 0: there is nothing for the guest */
    if (stash_load(&rogue_score, sizeof(rogue_score)))
        rogue_score.died++;
    else
        memset(&rogue_score, 0, sizeof(rogue_score));
    log_line("rogue: start, generation %u, attempt %u of %u", driver_info->generation, rogue_score.next,
             rogue_dma.count() + rogue_cpu.count());
    status_t status = rogue_dma_open();
    if (status != OK) {
        log_line("rogue: does not start: %s", status_text(status));
        return status;
    }
    run_group(&rogue_dma, 0);
    run_group(&rogue_cpu, rogue_dma.count());
    save_score();
    log_line("rogue: done reads_leaked=%u writes_ok=unknown denied=%u accepted=%u survived=%u died=%u",
             rogue_score.reads_leaked, rogue_score.denied, rogue_score.accepted, rogue_score.survived,
             rogue_score.died);
    return OK;
}

static void request(struct ring *ring, const struct ring_header_cell *header)
{
    (void)ring;
    driver_fault(DRIVER_FAULT_ASSERT, header->tag); /* nothing was offered, so nothing may come */
}

static bool poll(void)
{
    return false;
}

static void pump(void)
{
}

static u64 timeout(void)
{
    return WAIT_FOREVER;
}

const struct driver driver = {.start = start, .request = request, .poll = poll, .pump = pump, .timeout = timeout};
