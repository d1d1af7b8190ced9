/* Attempts by calls and by time: what is offered, floods, the stash, a VM that never halts. */
#include "drivervm/drivers/rogue/rogue.h"
#include "shared/lib/string.h"

#define LAST_CALL HYPERCALL_READY
#define FLOOD 5000u
#define LOG_FLOOD 2500u /* more than the event log holds */
#define BUSY_US 1000000u
#define CAPACITY_LIE (1ull << 50)

static u64 random_state = 0x9e3779b97f4a7c15ull;

/* xorshift64: the same numbers each time. */
static u64 random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void every_number(void)
{
    u32 accepted = 0;

    for (u64 n = 0; n < 4096; n++)
        if (n - 1 >= LAST_CALL)
            accepted += hypercall((enum hypercall)n, ~0ull, ~0ull, ~0ull) != -ERR_INVALID;
    rogue_say("%s", accepted ? "some ACCEPTED" : "none accepted");
}

/* Small, near the top, near RAM's end, anything: what a check of ranges may get wrong. */
static u64 random_argument(void)
{
    u64 value = random_next();

    switch (value >> 60 & 3) {
    case 0:
        return value & 0xff;
    case 1:
        return 0 - (value & 0x1fff);
    case 2:
        return driver_info->ram_size - (value & 0x1fff);
    default:
        return value;
    }
}

/* Only what would end or stop this VM is left out: `fault`, and a `wait` that is longer than a microsecond. */
static void random_calls(void)
{
    for (u32 i = 0; i < FLOOD; i++) {
        u64 number = random_next() % (LAST_CALL + 1);
        u64 first = random_argument();
        if (number == HYPERCALL_FAULT || number == HYPERCALL_LOG)
            continue;
        hypercall(number, number == HYPERCALL_WAIT ? first & 1 : first, random_argument(), random_argument());
    }
    rogue_say("made");
}

/* Straight after it the log is still full: say so later. */
static void log_flood(void)
{
    u32 refused = 0;

    for (u32 i = 0; i < LOG_FLOOD; i++)
        refused += hypercall(HYPERCALL_LOG, (u64) "flood", 5, 0) == -ERR_BUSY;
    spin_us(150000);
    rogue_say("%s", refused > LOG_FLOOD / 2 ? "most lines refused" : "ALL LINES TAKEN");
}

static void log_foreign(void)
{
    rogue_call_result("log of foreign memory", hypercall(HYPERCALL_LOG, MIB(64), 200, 0));
    rogue_call_result("log across the end of RAM", hypercall(HYPERCALL_LOG, driver_info->ram_size - 8, 200, 0));
    rogue_call_result("log across 2^64", hypercall(HYPERCALL_LOG, ~0ull - 3, 200, 0));
    rogue_call_result("log of 201 bytes", hypercall(HYPERCALL_LOG, DRIVER_LOAD_ADDRESS, 201, 0));
}

static void stash_length(void)
{
    rogue_call_result("4097 bytes", hypercall(HYPERCALL_STASH, DRIVER_STASH_SIZE + 1, 0, 0));
    rogue_call_result("2^32 + 1 bytes", hypercall(HYPERCALL_STASH, (1ull << 32) + 1, 0, 0));
}

static void stash_broken(void)
{
    memset(driver_stash, 0x5a, DRIVER_STASH_SIZE);
    if (hypercall(HYPERCALL_STASH, DRIVER_STASH_SIZE, 0, 0) < 0)
        rogue_say("NOT kept");
    ((volatile u8 *)driver_stash)[DRIVER_STASH_SIZE - 1] ^= 1;
}

/* Accepted in part, written to as a whole: the rest is nobody's. */
static void stash_beyond(void)
{
    u32 left = 0;

    for (u32 i = 0; i < DRIVER_STASH_SIZE; i++)
        left += ((volatile u8 *)driver_stash)[i] != 0;
    rogue_say("handed down: %u, left of the broken one: %u", driver_info->stash_length, left);
    if (hypercall(HYPERCALL_STASH, 8, 0, 0) < 0)
        rogue_say("NOT kept");
    memset((u8 *)driver_stash + 8, 0x5a, DRIVER_STASH_SIZE - 8);
}

static void stash_found(void)
{
    u32 left = 0;

    for (u32 i = 8; i < DRIVER_STASH_SIZE; i++)
        left += ((volatile u8 *)driver_stash)[i] != 0;
    rogue_say("handed down: %u, left beyond it: %u", driver_info->stash_length, left);
}

static const struct rogue_attempt calls[] = {
    {"every-number", "a call that does not exist does nothing", every_number, ROGUE_AFTER_OFFER},
    {"random-calls", "arguments are checked before they are used", random_calls, ROGUE_AFTER_OFFER},
    {"log-flood", "nobody's log pushes out the events of others", log_flood, ROGUE_AFTER_OFFER},
    {"log-foreign", "the hypervisor reads for a VM what that VM could", log_foreign, ROGUE_AFTER_OFFER},
    {"stash-length", "arguments are checked before they are used", stash_length, ROGUE_AFTER_OFFER},
    {"stash-broken", "a stash that was changed is not handed down", stash_broken, ROGUE_AFTER_OFFER},
    {"stash-beyond", "a stash that was changed is not handed down", stash_beyond, ROGUE_AFTER_OFFER},
    {"stash-found", "of a stash no more is kept than was accepted", stash_found, ROGUE_AFTER_OFFER},
};

/* ---- time ---- */

static void spin(void)
{
    for (;;)
        asm volatile("");
}

/* Nothing is asked of this one: it may burn its own share of the CPU, and takes nobody else's. */
static void busy(void)
{
    u64 beats = 0;

    for (u64 end = deadline_after(BUSY_US); !deadline_passed(end); beats++)
        ring_heartbeat(&driver_rings[0]);
    rogue_say("alive after %u us, %s", BUSY_US, beats ? "which harms nobody" : "without a beat");
}

static void call_storm(void)
{
    u64 made = 0;

    for (u64 end = deadline_after(BUSY_US); !deadline_passed(end); made++)
        hypercall(HYPERCALL_TIME, 0, 0, 0);
    rogue_say("%llu calls in %u us", (unsigned long long)made, BUSY_US);
}

static void no_offer(void)
{
    for (;;)
        ring_heartbeat(&driver_rings[0]);
}

static void interrupt_storm(void)
{
    if (!edu_open())
        return;
    for (u64 end = deadline_after(BUSY_US); !deadline_passed(end);) {
        edu_raise_interrupt(100);
        ring_heartbeat(&driver_rings[0]);
    }
    rogue_say("over its time");
}

static const struct rogue_attempt times[] = {
    {"spin", "a VM that never halts is ended", spin, ROGUE_AFTER_OFFER},
    {"busy", "a busy VM takes nobody else's time", busy, ROGUE_AFTER_OFFER},
    {"call-storm", "a busy VM takes nobody else's time", call_storm, ROGUE_AFTER_OFFER},
    {"interrupt-storm", "a storm of interrupts ends, and takes nobody else's time", interrupt_storm, ROGUE_AFTER_OFFER},
    {"no-offer", "signs of life are no offer", no_offer, ROGUE_BEFORE_OFFER},
};

/* ---- offers: the guest holds the device to what its first generation has said ---- */

static struct driver_offer changed;

static void make_offer(void)
{
    rogue_call_result("offer", hypercall(HYPERCALL_OFFER, (u64)&changed, 0, 0));
}

static void offer_features(void)
{
    changed = disk_offer;
    changed.features ^= 1u << 5; /* VIRTIO_BLK_F_RO */
    make_offer();
}

static void offer_type(void)
{
    changed = disk_offer;
    changed.virtio_type = 1;
    make_offer();
}

static void offer_queues(void)
{
    changed = disk_offer;
    changed.queues++;
    make_offer();
}

static void offer_size(void)
{
    changed = disk_offer;
    changed.queue_size *= 2;
    make_offer();
}

static void offer_patience(void)
{
    changed = disk_offer;
    changed.patient_queues = 1; /* no deadline any more */
    make_offer();
}

static void offer_garbage(void)
{
    memset(&changed, 0xff, sizeof(changed));
    make_offer();
}

static void offer_nowhere(void)
{
    rogue_call_result("offer from foreign memory", hypercall(HYPERCALL_OFFER, MIB(64), 0, 0));
    rogue_call_result("offer across 2^64", hypercall(HYPERCALL_OFFER, ~0ull - 8, 0, 0));
}

static void offer_twice(void)
{
    changed = disk_offer;
    make_offer();
}

/* A capacity may change (VirtIO 1.2 5.2.6.1); one that is a lie is for the guest to believe or not. */
static void offer_capacity(void)
{
    changed = disk_offer;
    memcpy(changed.config, &(u64){CAPACITY_LIE}, sizeof(u64));
    rogue_say("result %lld", (long long)hypercall(HYPERCALL_OFFER, (u64)&changed, 0, 0));
}

static void config_flood(void)
{
    static u64 capacity;

    for (u32 i = 0; i < FLOOD / 2; i++) {
        capacity = DISK_SECTORS + i % 2;
        hypercall(HYPERCALL_CONFIG, (u64)&capacity, sizeof(capacity), 0);
    }
    rogue_say("made");
}

static void config_range(void)
{
    rogue_call_result("config of 97 bytes", hypercall(HYPERCALL_CONFIG, DRIVER_LOAD_ADDRESS, 97, 0));
    rogue_call_result("config of 2^32 bytes", hypercall(HYPERCALL_CONFIG, DRIVER_LOAD_ADDRESS, 1ull << 32, 0));
    rogue_call_result("config from foreign memory", hypercall(HYPERCALL_CONFIG, MIB(64), 8, 0));
}

#define PROMISE "what the guest has negotiated holds across restarts"

static const struct rogue_attempt offers[] = {
    {"offer-features", PROMISE, offer_features, ROGUE_BEFORE_OFFER},
    {"offer-type", PROMISE, offer_type, ROGUE_BEFORE_OFFER},
    {"offer-queues", PROMISE, offer_queues, ROGUE_BEFORE_OFFER},
    {"offer-size", PROMISE, offer_size, ROGUE_BEFORE_OFFER},
    {"offer-patience", PROMISE, offer_patience, ROGUE_BEFORE_OFFER},
    {"offer-garbage", "arguments are checked before they are used", offer_garbage, ROGUE_BEFORE_OFFER},
    {"offer-nowhere", "the hypervisor reads for a VM what that VM could", offer_nowhere, ROGUE_BEFORE_OFFER},
    {"offer-twice", "a device is offered once", offer_twice, ROGUE_AFTER_OFFER},
    {"offer-capacity", "a lie about itself harms nobody but who believes it", offer_capacity, ROGUE_BEFORE_OFFER},
    {"config-range", "arguments are checked before they are used", config_range, ROGUE_AFTER_OFFER},
    {"config-flood", "a driver's news do not take the guest's time for ever", config_flood, ROGUE_AFTER_OFFER},
};

/* In the very first generation nothing has been promised, and a refused offer is no fault. */
static void offer_flood(void)
{
    u32 refused = 0;

    memset(&changed, 0xff, sizeof(changed));
    for (u32 i = 0; i < LOG_FLOOD; i++)
        refused += hypercall(HYPERCALL_OFFER, (u64)&changed, 0, 0) == -ERR_INVALID;
    rogue_say("%s", refused == LOG_FLOOD ? "all refused" : "some ACCEPTED");
}

static const struct rogue_attempt firsts[] = {
    {"offer-flood", "nobody's log pushes out the events of others", offer_flood, ROGUE_BEFORE_OFFER},
};

const struct rogue_group rogue_call_groups[4] = {ROGUE_GROUP("first", firsts, false),
                                                 ROGUE_GROUP("calls", calls, false), ROGUE_GROUP("time", times, false),
                                                 ROGUE_GROUP("offers", offers, true)};
