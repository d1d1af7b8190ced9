/*
 * Restart: the next generation from the pristine image. Only two things outlive the old one: its stash, when its
 * checksum holds, and the features that the guest negotiated.
 */
#include "hv/control/control.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"

u32 recovery_checksum(const u8 *data, u64 length)
{
    u32 hash = 2166136261u; /* FNV-1a: offset basis and prime of its 32-bit form */

    for (u64 i = 0; i < length; i++)
        hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

/* The page stayed writable for the driver after `stash` accepted it: what does not match any more is dropped whole. */
static void check_stash(struct driver *driver)
{
    u8 *stash = hpa_to_ptr(driver->stash_page);

    if (driver->stash_length > 0 && recovery_checksum(stash, driver->stash_length) != driver->stash_checksum) {
        event_add(EVENT_RESTART, driver->vm->id, "stash of %u bytes dropped: checksum", driver->stash_length);
        driver->stash_length = 0;
    }
    memset(stash + driver->stash_length, 0, DRIVER_STASH_SIZE - driver->stash_length);
}

void recovery_restart_vm(struct driver *driver)
{
    struct driver_events *events = hpa_to_ptr(driver->events_page);

    relay_reset_rings(driver->relay);
    check_stash(driver);
    events->pending = events->features != 0 ? DRIVER_EVENT_FEATURES : 0;
    driver->generation++;

    if (driver_interrupt_open(driver) != OK)
        event_add(EVENT_RESTART, driver->vm->id, "the device does not take its message any more");
    driver_start(driver);
    inject_clear(driver);
    progress_reset(driver);
}
