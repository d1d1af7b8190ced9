/* Resets: function level, else the bus that the device has for itself, else none; then the enumerated state again. */
#include "hv/core/hypervisor.h"
#include "hv/pci/internal.h"

#define PENDING_WAIT_US 10000u  /* for transactions in flight; the IOMMU is in the way of those that come later */
#define BUS_RESET_HOLD_US 1000u /* PCI 3.0 4.3.2: Trst */
#define ANSWER_WAIT_US 1000000u /* PCIe 5.0 6.6.1: not ready for at most a second after a reset */

const char *const pci_reset_name[] = {
    [PCI_RESET_NONE] = "none", [PCI_RESET_FLR] = "flr", [PCI_RESET_BUS] = "bus", [PCI_RESET_DRIVER] = "driver"};

/* Is the device the only one that a reset of its bus would hit? A bridge would take its own bus along. */
static bool alone_on_bus(const struct pci_device *dev)
{
    if (!dev->bridge || dev->header_type != 0 || pci_devices_left_out)
        return false;
    for (u32 i = 0; i < pci_device_count; i++)
        if (&pci_devices[i] != dev && pci_devices[i].bridge == dev->bridge)
            return false;
    return true;
}

enum pci_reset_kind pci_reset_kind(const struct pci_device *dev)
{
    if (dev->has_flr)
        return PCI_RESET_FLR;
    return alone_on_bus(dev) ? PCI_RESET_BUS : PCI_RESET_DRIVER;
}

static void reset_function(const struct pci_device *dev)
{
    u32 status = dev->cap_express + EXPRESS_DEVICE_STATUS;

    (void)WAIT_UNTIL(!(pci_read(dev, status, 2) & EXPRESS_STATUS_PENDING), PENDING_WAIT_US);
    pci_update(dev, dev->cap_express + EXPRESS_DEVICE_CONTROL, 0, EXPRESS_CONTROL_FLR);
}

static void reset_bus(const struct pci_device *bridge)
{
    pci_update(bridge, PCI_BRIDGE_CONTROL, 0, PCI_BRIDGE_RESET);
    delay_us(BUS_RESET_HOLD_US);
    pci_update(bridge, PCI_BRIDGE_CONTROL, PCI_BRIDGE_RESET, 0);
}

/* Decoding goes on last, when the BARs are in place; bus mastering stays off. */
static void restore(const struct pci_device *dev)
{
    u32 decode = dev->assigned || dev->message_on ? PCI_COMMAND_IO | PCI_COMMAND_MEMORY : 0;

    for (u32 i = 0; i < ARRAY_SIZE(dev->bar_raw); i++)
        if (pci_read(dev, PCI_BAR0 + i * 4, 4) != dev->bar_raw[i] && dev->bar_raw[i])
            pci_write(dev, PCI_BAR0 + i * 4, 4, dev->bar_raw[i]);
    if (dev->cap_express)
        pci_update(dev, dev->cap_express + EXPRESS_DEVICE_CONTROL, 0xffff, dev->express_control);
    pci_update(dev, PCI_COMMAND, 0xffff, dev->command | decode);
    pci_message_restore(dev);
}

enum pci_reset_kind pci_reset_device(struct pci_device *dev)
{
    enum pci_reset_kind kind = pci_reset_kind(dev);

    /* No new requests (PCIe 5.0 6.6.2). The reset itself clears decoding, so that BARs are put back with decoding off.
     */
    pci_update(dev, PCI_COMMAND, PCI_COMMAND_MASTER, 0);
    if (kind == PCI_RESET_FLR)
        reset_function(dev);
    else if (kind == PCI_RESET_BUS)
        reset_bus(dev->bridge);
    /* Until it is ready, reads give all ones, or the retry status 1 (PCIe 5.0 2.3.2). */
    if (!WAIT_UNTIL(pci_read(dev, PCI_VENDOR, 2) == dev->vendor, ANSWER_WAIT_US)) {
        hv_log("pci " BDF_FORMAT ": no answer after reset (%s)", BDF_PARTS(dev->bdf), pci_reset_name[kind]);
        return PCI_RESET_NONE;
    }
    restore(dev);
    return kind;
}
