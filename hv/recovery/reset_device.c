/* Reset: function-level, else the bus behind its bridge, else left to the new driver, which then finds it blocked and
 * silent. */
#include "hv/recovery/stages.h"

void recovery_reset_device(struct driver *driver)
{
    driver->recovery.current.reset_kind = (u8)pci_reset_device(driver->pci);
    /* The reset restored what enumeration found; be sure that this did not include bus mastering. */
    pci_set_bus_master(driver->pci, false);
}
