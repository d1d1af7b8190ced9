/* Attempts with the guest's requests: lies in the completion ring, and pages that are ours in part or no longer. */
#include "drivervm/drivers/rogue/rogue.h"
#include "shared/lib/string.h"

#define FIRST (&disk_held[0])
#define BEAT_US 1000u

static void complete(const struct disk_request *request, u32 length)
{
    disk_execute(request);
    ring_complete(request->ring, request->tag, length);
}

/* Whoever is still here afterwards was believed. */
static void deliver_lie(void)
{
    disk_deliver();
    rogue_say("BELIEVED");
}

static bool is_held(u16 tag)
{
    for (u32 i = 0; i < disk_held_count; i++)
        if (disk_held[i].tag == tag)
            return true;
    return false;
}

static void forge(void)
{
    u16 tag = RING_TAGS - 1;

    while (is_held(tag))
        tag--;
    ring_complete(FIRST->ring, tag, 1);
    deliver_lie();
}

static void forge_range(void)
{
    ring_complete(FIRST->ring, RING_TAGS + 7, 1);
    deliver_lie();
}

static void repeat(void)
{
    complete(FIRST, FIRST->written);
    ring_complete(FIRST->ring, FIRST->tag, FIRST->written);
    deliver_lie();
}

/* The tag may be in flight again by then, for another request: of the newest held one it is not. */
static void repeat_later(void)
{
    complete(FIRST, FIRST->written);
    disk_deliver();
    ring_complete(FIRST->ring, FIRST->tag, 0xffffff);
    deliver_lie();
}

static void longer(void)
{
    complete(FIRST, FIRST->written + 1);
    deliver_lie();
}

static void longest(void)
{
    complete(FIRST, ~0u);
    deliver_lie();
}

/* No lie that the hypervisor could know of: to the guest it is a device that wrote less than it should have. */
static void shorter(void)
{
    complete(FIRST, 0);
    disk_deliver();
    rogue_say("believed, which is the guest's to judge");
}

static void reorder(void)
{
    disk_serve(true);
    disk_deliver();
    rogue_say("believed: a device may answer in any order");
}

static void move_produced(u32 by)
{
    __atomic_fetch_add(&FIRST->ring->completion->produced, by, __ATOMIC_RELEASE);
    deliver_lie();
}

static void produced_jumps(void)
{
    move_produced(RING_COMPLETIONS + 1);
}

static void produced_back(void)
{
    move_produced(~0u);
}

static void move_consumed(u32 by)
{
    ring_release(FIRST->ring);
    __atomic_fetch_add(&FIRST->ring->completion->consumed, by, __ATOMIC_RELEASE);
    deliver_lie();
}

static void consumed_jumps(void)
{
    move_consumed(RING_CELLS);
}

static void consumed_back(void)
{
    disk_serve(false);
    ring_release(FIRST->ring);
    disk_deliver();
    move_consumed(-2u);
}

/* Rings that are mapped, of queues that the offer did not have: nobody reads them, and nothing comes of it. */
static void other_queue(void)
{
    ring_complete(&driver_rings[RING_MAX_QUEUES - 1], FIRST->tag, FIRST->written);
    disk_deliver();
    rogue_say("ignored");
}

static void beat(u64 us)
{
    ring_heartbeat(&driver_rings[0]);
    hypercall(HYPERCALL_WAIT, us, 0, 0);
}

/* All others are answered, and new ones taken; one is not. */
static void withhold(void)
{
    for (u32 i = 1; i < disk_held_count; i++)
        complete(&disk_held[i], disk_held[i].written);
    for (;;)
        beat(BEAT_US);
}

/* Signs of life without end, from a CPU that never leaves its loop. */
static void heartbeat_only(void)
{
    for (;;)
        ring_heartbeat(&driver_rings[0]);
}

/* The counters of the ring are signs of life as well: this one reads on what it has read already. */
static void wait_only(void)
{
    for (;;)
        hypercall(HYPERCALL_WAIT, 0, 0, 0);
}

static const struct rogue_attempt rings[] = {
    {"reorder", "each request is answered once, in whatever order", reorder, ROGUE_WITH_REQUESTS},
    {"forge", "no request is published that is not in flight", forge, ROGUE_WITH_REQUESTS},
    {"forge-range", "a tag is checked before it is used", forge_range, ROGUE_WITH_REQUESTS},
    {"repeat", "no request is published twice", repeat, ROGUE_WITH_REQUESTS},
    {"repeat-later", "no request is published twice", repeat_later, ROGUE_WITH_REQUESTS},
    {"longer", "no length beyond the request's reaches the guest", longer, ROGUE_WITH_REQUESTS},
    {"longest", "no length beyond the request's reaches the guest", longest, ROGUE_WITH_REQUESTS},
    {"shorter", "a wrong answer harms nobody but its reader", shorter, ROGUE_WITH_REQUESTS},
    {"produced-jumps", "a ring's index is checked before it is used", produced_jumps, ROGUE_WITH_REQUESTS},
    {"produced-back", "a ring's index is checked before it is used", produced_back, ROGUE_WITH_REQUESTS},
    {"consumed-jumps", "a ring's index is checked before it is used", consumed_jumps, ROGUE_WITH_REQUESTS},
    {"consumed-back", "a ring's index is checked before it is used", consumed_back, ROGUE_WITH_REQUESTS},
    {"other-queue", "queues that were not offered do not exist", other_queue, ROGUE_WITH_REQUESTS},
};

static const struct rogue_attempt stalls[] = {
    {"withhold", "no request stays unanswered", withhold, ROGUE_WITH_REQUEST},
    {"heartbeat-only", "signs of life are no work", heartbeat_only, ROGUE_WITH_REQUEST},
    {"wait-only", "signs of life are no work", wait_only, ROGUE_WITH_REQUEST},
};

/* ---- grants (`grants = strict`) ---- */

static u64 data_of_a_write(void)
{
    u64 address = disk_find_write()->segment[1].address;

    rogue_say("page %llx", (unsigned long long)address & ~PAGE_MASK);
    return address;
}

static void touch(u64 address)
{
    *(volatile u8 *)address = 0xb2;
    rogue_say("WROTE %llx", (unsigned long long)address);
}

/* During the grant: it was given for reading. */
static void readable_by_cpu(void)
{
    touch(data_of_a_write());
}

static void readable_by_dma(void)
{
    u64 address = data_of_a_write();

    if (edu_open())
        edu_write(address, 0xb2);
}

static void answer_all(void)
{
    ring_release(FIRST->ring);
    disk_serve(false);
    disk_deliver();
}

static void after_by_cpu(void)
{
    u64 address = data_of_a_write();
    u8 seen = *(volatile u8 *)address; /* the translation is known now */

    answer_all();
    rogue_say("read %x while granted", seen);
    rogue_say("READ %x afterwards", *(volatile u8 *)address);
}

/* The IOTLB knows the page from a read that was in order; a write would be refused for its right, not for its age. */
static void after_by_dma(void)
{
    u64 address = data_of_a_write();

    if (!edu_open())
        return;
    edu_start(address, false, EDU_TRANSFER);
    rogue_say("the device has %s while granted", edu_finish() ? "read" : "NOT read");
    answer_all();
    edu_start(address, false, EDU_TRANSFER);
    rogue_say("the device %s afterwards", edu_finish_awake() ? "is DONE" : "is cut off");
}

/* Begun while it is ours: the device moves nothing for 100 ms, and by then the request is answered. */
static void across_the_answer(void)
{
    u64 address = data_of_a_write();

    if (!edu_open())
        return;
    edu_start(address, false, EDU_TRANSFER);
    answer_all();
    rogue_say("answered %s", edu_is_busy() ? "before the device has begun" : "TOO LATE");
    rogue_say("the device %s afterwards", edu_finish_awake() ? "is DONE" : "is cut off");
}

static const struct rogue_attempt grants[] = {
    {"readable-by-cpu", "a page is reached with the rights of its descriptor", readable_by_cpu, ROGUE_WITH_WRITE},
    {"readable-by-dma", "a page is reached with the rights of its descriptor", readable_by_dma, ROGUE_WITH_WRITE},
    {"after-by-cpu", "a page is out of reach when its request is answered", after_by_cpu, ROGUE_WITH_WRITE},
    {"after-by-dma", "a page is out of reach when its request is answered", after_by_dma, ROGUE_WITH_WRITE},
    {"across-the-answer", "a page is out of reach when its request is answered", across_the_answer, ROGUE_WITH_WRITE},
};

const struct rogue_group rogue_ring_groups[3] = {ROGUE_GROUP("rings", rings, true), ROGUE_GROUP("stall", stalls, true),
                                                 ROGUE_GROUP("grants", grants, true)};
