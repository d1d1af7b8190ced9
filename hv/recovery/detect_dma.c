/* Detect by VT-d: a recorded fault names the source id; who owns that device is at fault. */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"

/* A rogue device can fault faster than anyone reads: the event log keeps room for other news. */
#define EVENTS_IN_WINDOW 32u

void recovery_iommu_fault(const struct iommu_fault *fault)
{
    static struct rate events;
    struct driver *driver = driver_by_bdf(fault->source);
    const char *what = fault->interrupt ? "interrupt" : fault->write ? "DMA write" : "DMA read";
    const char *reason = iommu_reason_text(fault->reason);

    if (rate_allows(&events, EVENTS_IN_WINDOW))
        event_add(EVENT_IOMMU_FAULT, driver ? driver->vm->id : EVENT_NO_VM, BDF_FORMAT " %s 0x%lx reason %u: %s",
                  BDF_PARTS(fault->source), what, fault->address, fault->reason, reason);
    /* What a device does while nobody owns it was contained by the blocking domain and is no driver's fault. */
    if (driver == NULL || iommu_is_blocked(fault->source))
        return;
    recovery_report(driver, fault->interrupt ? FAULT_INTERRUPT : FAULT_DMA, fault->reason, fault->address,
                    "%s 0x%lx: %s", what, fault->address, reason);
}
