/* Which attempt it is, and when its time has come. */
#include "drivervm/drivers/rogue/rogue.h"

#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define CODE_NEXT 0x100u /* of HYPERCALL_FAULT: no fault, make room for the next attempt */
#define TEXT_SIZE 120u
#define SETTLE_US 2000u /* before an attempt: what the one before caused late is then not taken for its own */

/* VirtIO 1.2 5.4: one queue, no features, no configuration */
static const struct driver_offer entropy_offer = {.virtio_type = 4, .queues = 1, .queue_size = 8};

static const struct rogue_group *group;
static const struct rogue_attempt *attempt; /* of this generation; NULL: none */

void rogue_say(const char *format, ...)
{
    char text[TEXT_SIZE];

    BH_FORMAT(text, sizeof(text), format);
    log_line("rogue: %s: %s", attempt->name, text);
}

void rogue_call_result(const char *what, i64 result)
{
    if (result < 0)
        rogue_say("%s denied: %s", what, status_text((status_t)-result));
    else
        rogue_say("%s ACCEPTED: %llx", what, (unsigned long long)result);
}

static const struct rogue_group *find(const struct rogue_group *groups, u32 count)
{
    for (u32 i = 0; i < count; i++)
        if (strcmp(groups[i].name, driver_info->name) == 0)
            return &groups[i];
    return NULL;
}

static void choose(void)
{
#define FIND(groups) find(groups, ARRAY_SIZE(groups))
    group = FIND(rogue_cpu_groups);
    group = group ? group : FIND(rogue_device_groups);
    group = group ? group : FIND(rogue_call_groups);
    group = group ? group : FIND(rogue_ring_groups);
    if (group == NULL) {
        log_line("rogue: no group is called %s", driver_info->name);
        driver_fault(DRIVER_FAULT_ASSERT, __LINE__);
    }
    u32 generation = driver_info->generation + (strcmp(group->name, "first") == 0);
    if (generation > 0 && generation <= group->count)
        attempt = &group->attempts[generation - 1];
    else if (generation > group->count)
        log_line("rogue: %s has made %u attempts", group->name, group->count);
}

/* The log has to be out before the attempt, which may be the last that is heard of this generation. */
static void make_attempt(void)
{
    hypercall(HYPERCALL_WAIT, SETTLE_US, 0, 0);
    log_line("rogue: %s attacks: %s", attempt->name, attempt->invariant);
    attempt->run();
    rogue_say("over");
    hypercall(HYPERCALL_FAULT, CODE_NEXT, driver_info->generation, 0);
}

static status_t start(struct driver_offer *offer)
{
    choose();
    *offer = group->is_disk ? disk_offer : entropy_offer;
    if (attempt && attempt->when == ROGUE_BEFORE_OFFER)
        make_attempt();
    return OK;
}

static bool poll(void)
{
    return false;
}

static bool is_time(void)
{
    switch (attempt->when) {
    case ROGUE_AFTER_OFFER:
        return true;
    case ROGUE_WITH_REQUEST:
        return disk_held_count >= 1;
    case ROGUE_WITH_REQUESTS:
        return disk_held_count >= 2;
    case ROGUE_WITH_WRITE:
        return disk_find_write() != NULL;
    case ROGUE_BEFORE_OFFER:
        break;
    }
    return false;
}

static void pump(void)
{
    if (attempt && is_time())
        make_attempt();
    /* One request waits for a second one, but not a flush: while there is one, the guest may ask for nothing else. */
    if (!attempt || attempt->when != ROGUE_WITH_REQUESTS || (disk_held_count == 1 && disk_held[0].segments < 3))
        disk_serve(driver_info->generation > 0);
}

static u64 timeout(void)
{
    return WAIT_FOREVER;
}

const struct driver driver = {.start = start, .request = disk_take, .poll = poll, .pump = pump, .timeout = timeout};
