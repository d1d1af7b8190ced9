/*
 * Driver VMs that are ill for good, for tests of the supervisor: one image, and the name of the VM says how.
 *
 *   dies    an exception at each start
 *   slow    never comes to an offer
 *   mute    offers its device, then never calls `wait` again
 *   stash   changes its stash after it was accepted, and dies; a successor that finds it all the same says so. The
 * third generation stays.
 */
#include "drivervm/runtime/runtime.h"
#include "shared/lib/string.h"

#define VIRTIO_TYPE_ENTROPY 4u /* VirtIO 1.2 5.4: one queue, no features, no configuration */
#define QUEUE_SIZE 8u
#define LAST_GENERATION 3u

static const u8 checkpoint[] = "checkpoint";

static bool is(const char *name)
{
    return strcmp(driver_info->name, name) == 0;
}

static void die(void)
{
    __asm__ volatile("ud2");
}

static void spin(void)
{
    for (;;)
        __asm__ volatile("pause");
}

static void break_stash(void)
{
    u8 found[sizeof(checkpoint)];

    if (stash_load(found, sizeof(found)))
        log_line("ill: a broken stash was handed down");
    if (driver_info->generation == LAST_GENERATION)
        return;
    DRIVER_CHECK(stash_save(checkpoint, sizeof(checkpoint)) == OK);
    ((volatile u8 *)driver_stash)[3] ^= 1;
    die();
}

static status_t start(struct driver_offer *offer)
{
    if (is("dies"))
        die();
    if (is("stash"))
        break_stash();
    if (is("slow"))
        spin();
    *offer = (struct driver_offer){.virtio_type = VIRTIO_TYPE_ENTROPY, .queues = 1, .queue_size = QUEUE_SIZE};
    return OK;
}

static void request(struct ring *ring, const struct ring_header_cell *header)
{
    struct ring_segment_cell segments[RING_MAX_SEGMENTS];

    ring_take(ring, header, segments);
    ring_complete(ring, header->tag, 0);
}

static bool poll(void)
{
    return false;
}

static void pump(void)
{
    if (is("mute"))
        spin();
}

static u64 timeout(void)
{
    return WAIT_FOREVER;
}

const struct driver driver = {.start = start, .request = request, .poll = poll, .pump = pump, .timeout = timeout};
