/*
 * Quiesce: from here until the successor's first request for bus mastering the device sits in the blocking domain with
 * bus mastering off.
 */
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"

void recovery_quiesce(struct driver *driver)
{
    u16 bdf = driver->pci->bdf;
    bool overflow;

    /* The CPU side first: nobody rings a doorbell after the device is quiet. */
    vcpu_stop(&driver->vm->vcpu);
    driver->waiting = false;
    relay_close(driver->relay);

    /* MSI is a memory write too, so bus mastering off ends both (PCI 3.0 6.2.2); the interrupt is masked for those on
     * their way, and for lines. */
    pci_set_bus_master(driver->pci, false);
    driver_interrupt_close(driver);
    if (iommu_present()) {
        iommu_block(bdf);
        /*
         * What the old generation's DMA left in the fault registers is read now, while no report is accepted: read
         * later, it would be held against the successor.
         */
        (void)iommu_drain_faults(recovery_iommu_fault, &overflow);
    }
    /* Only now: a page goes back to the guest alone when the device cannot reach it any more. */
    relay_revoke_all(driver->relay);
}
