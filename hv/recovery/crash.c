/*
 * Crash reports: what a generation that failed has left, until the next one fails. Registers are kept when the VM has
 * been stopped (recovery.c); memory when the successor starts, page by page as its pristine image is put back
 * (core/driver_image.c), since most pages are as they were then, and a copy of all would cost more than the restart.
 */
#include "hv/core/driver.h"
#include "hv/core/frames.h"

const u64 *crash_page(const struct driver *driver, u64 at)
{
    bool replaced = driver->crash.generation != driver->generation, info = at == driver->vm->ram_size;

    if (!replaced)
        return hpa_to_ptr(info ? driver->info_page : HPA(driver->vm->ram.v + at));
    if (!info && at >= driver->next_clean)
        return hpa_to_ptr(HPA(driver->next_ram.v + at));
    return info || driver->crash_kept[at / PAGE_SIZE] ? (const u64 *)(driver->crash_memory + at)
                                                      : driver_pristine_page(driver, at);
}
