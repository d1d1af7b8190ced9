/*
 * Pages that are ours no longer. A request hands us one page, which CPU and device reach until it is answered. We use
 * it while we may, so that whatever caches translations knows it, answer, and use it again: in turns by the device
 * (IOTLB) and by the CPU (nested TLB). With `grants = strict` the second use must end this VM. The guest's command
 * `probe` is the other half: it knows the two patterns, too, and looks whether the second ever arrives.
 */
#include "drivervm/drivers/edu/rogue.h"
#include "shared/lib/string.h"

#define PATTERN_GRANTED 0xa1 /* guestos: command_probe.c */
#define PATTERN_REVOKED 0xb2

static struct {
    struct ring *ring; /* NULL: none waits */
    u16 tag;
    bool usable;
    u64 address;
} waiting;

void rogue_probe_request(struct ring *ring, const struct ring_header_cell *header)
{
    static struct ring_segment_cell segments[RING_MAX_SEGMENTS];

    ring_take(ring, header, segments);
    if (waiting.ring) { /* one at a time */
        ring_complete(ring, header->tag, 0);
        return;
    }
    waiting.ring = ring;
    waiting.tag = header->tag;
    waiting.address = segments[0].address;
    waiting.usable = header->segments == 1 && header->readable == 0 && segments[0].length >= ROGUE_TRANSFER;
}

/* What an honest driver would do. The device writes, and reads back: afterwards the translation is known to work. */
static bool use_by_device(void)
{
    return rogue_fill_buffer(PATTERN_GRANTED) && rogue_device_writes(waiting.address) && rogue_fill_buffer(0) &&
           rogue_device_reads(waiting.address) && rogue_buffer_holds(PATTERN_GRANTED);
}

static bool use_by_cpu(void)
{
    volatile u8 *page = (volatile u8 *)waiting.address;
    bool same = true;

    for (u32 i = 0; i < ROGUE_TRANSFER; i++)
        page[i] = PATTERN_GRANTED;
    for (u32 i = 0; i < ROGUE_TRANSFER; i++)
        same = same && page[i] == PATTERN_GRANTED;
    return same;
}

static void answer(u32 length)
{
    ring_complete(waiting.ring, waiting.tag, length);
    waiting.ring = NULL;
    hypercall(HYPERCALL_WAIT, 0, 0, 0); /* when it returns, the answer is out and the page taken back */
}

bool rogue_probe_run(void)
{
    u32 n = rogue_score.probes;
    bool by_device = n % 2 == 0;

    if (!waiting.ring)
        return false;
    if (!waiting.usable) {
        answer(0);
        return true;
    }
    rogue_score.probes++;
    rogue_save_score(); /* if this is our end, the successor takes the other kind */
    bool works = by_device ? use_by_device() : use_by_cpu();
    /* Filled before the answer: afterwards only the one access is left to do. */
    bool ready = !by_device || rogue_fill_buffer(PATTERN_REVOKED);
    log_line("rogue: probe %u by %s: %llx %s", n, by_device ? "device" : "CPU", (unsigned long long)waiting.address,
             works && ready ? "reached while granted" : "NOT reached while granted");
    answer(works && ready ? ROGUE_TRANSFER : 0);
    if (!works || !ready)
        return true;
    if (by_device && !rogue_device_writes(waiting.address))
        log_line("rogue: probe %u: no answer: the device is cut off", n);
    for (u32 i = 0; !by_device && i < ROGUE_TRANSFER; i++)
        ((volatile u8 *)waiting.address)[i] = PATTERN_REVOKED;
    log_line("rogue: probe %u survived the access after its answer", n);
    return true;
}
