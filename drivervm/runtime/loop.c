/*
 * The way of a driver VM: set up, start the driver, then one loop. An exit costs more than anything else here, so the
 * loop stays inside as long as it finds work, in the manner of NAPI: rings and the events word are memory. Completions
 * collect meanwhile; the `wait` that ends a busy stretch hands them all over, and returns at once when there are more
 * requests or the device has interrupted since it was asked.
 */
#include "drivervm/runtime/exception.h"
#include "drivervm/runtime/runtime.h"

/* So many answers are not held back any longer: a guest that waits for them has nothing else to submit. */
#define LOOP_BATCH 32u

const struct driver_info *driver_info;
const struct driver_events *driver_events;
void *driver_stash;
struct ring driver_rings[RING_MAX_QUEUES];

static bool take_requests(struct ring *ring)
{
    struct ring_header_cell header;
    bool any = false;

    for (;;) {
        status_t status = ring_peek(ring, &header);
        if (status == ERR_NOT_FOUND)
            break;
        DRIVER_CHECK(status == OK);
        driver.request(ring, &header);
        any = true;
    }
    if (any)
        ring_release(ring);
    return any;
}

static u32 undelivered(void)
{
    u32 count = 0;

    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        count += driver_rings[q].produced - driver_rings[q].delivered;
    return count;
}

static u32 wait_for_events(u64 timeout_us)
{
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        driver_rings[q].delivered = driver_rings[q].produced;
    return (u32)hypercall(HYPERCALL_WAIT, timeout_us, 0, 0);
}

/* The device is asked only when it may have news: reading its registers is slow, on some machines slower than an exit.
 */
static bool device_has_news(u32 events)
{
    u32 pending = __atomic_load_n(&driver_events->pending, __ATOMIC_ACQUIRE);

    return !driver_info->interrupts || ((events | pending) & (DRIVER_EVENT_INTERRUPT | DRIVER_EVENT_TIMEOUT));
}

static __attribute__((noreturn)) void run_loop(void)
{
    u32 events = 0;

    for (;;) {
        bool work = false;

        ring_heartbeat(&driver_rings[0]);
        for (u32 q = 0; q < RING_MAX_QUEUES; q++)
            work |= take_requests(&driver_rings[q]);
        if (device_has_news(events))
            work |= driver.poll();
        driver.pump();
        if (work && undelivered() < LOOP_BATCH)
            events = 0;
        else
            events = wait_for_events(driver.timeout());
    }
}

static void offer_device(struct driver_offer *offer)
{
    offer->device_wait_us = (u32)device_waited_us();
    i64 result = hypercall(HYPERCALL_OFFER, (u64)offer, 0, 0);

    if (result < 0) {
        log_line("the hypervisor refuses the offer: %s", status_text((status_t)-result));
        driver_fault(DRIVER_FAULT_ASSERT, __LINE__);
    }
}

void runtime_main(const struct driver_info *info)
{
    static struct driver_offer offer;

    driver_info = info;
    driver_events = (const struct driver_events *)DRIVER_EVENTS_ADDRESS;
    driver_stash = (void *)DRIVER_STASH_ADDRESS;
    hypercall_select(info->vendor_call);
    exception_setup();
    hypercall(HYPERCALL_READY, 0, 0, 0);
    exception_enable(); /* a successor that stood by begins here */
    DRIVER_CHECK(info->abi_version == DRIVER_ABI_VERSION && info->queue_count == RING_MAX_QUEUES);
    for (u64 q = 0; q < RING_MAX_QUEUES; q++) {
        u64 rings = DRIVER_RINGS_ADDRESS + q * DRIVER_RING_STRIDE;
        ring_init(&driver_rings[q], (const void *)rings, (void *)(rings + DRIVER_RING_COMPLETION_OFFSET));
    }
    status_t status = driver.start(&offer);
    if (status != OK)
        driver_fault(DRIVER_FAULT_DEVICE, status);
    if (offer.virtio_type != 0)
        offer_device(&offer);
    run_loop();
}
