/* How the interrupt of a driver VM's device arrives: as a message, through its line, or not at all. */
#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/core/cpu.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"

const char *const driver_interrupt_name[] = {"polled", "MSI", "INTx"};

/* A message is DMA, too (PCI 3.0 6.8): with `dma = none` the device cannot send it. */
static bool assign_message(struct driver *driver, u32 apic_id)
{
    if (driver->config->dma == MANIFEST_DMA_NONE)
        return false;
    status_t status = iommu_message_create(driver->pci->bdf, (u8)driver->irq_vector, apic_id, &driver->message_address,
                                           &driver->message_data);
    if (status != OK)
        boot_fail("vm %s: interrupt: %s", driver->vm->name, status_text(status));
    driver->interrupt = DRIVER_MSI;
    return driver_interrupt_open(driver) == OK;
}

/* All lines of the device, or none. */
static bool assign_lines(struct driver *driver, u32 apic_id)
{
    struct pci_line line[PCI_LINES];
    u32 count = pci_lines(driver->pci, line);

    for (u32 i = 0; i < count; i++) {
        status_t status = ioapic_route(&line[i], (u8)driver->irq_vector, apic_id);
        if (status == OK)
            continue;
        hv_log("%s: interrupt line %u %s: polled", driver->vm->name, line[i].irq,
               status == ERR_BUSY ? "belongs to another driver VM" : "reaches no IOAPIC that ACPI tells enough of");
        return false;
    }
    return count > 0;
}

void driver_interrupt_assign(struct driver *driver)
{
    u32 apic_id = cpus[driver->vm->vcpu.cpu].apic_id;

    driver->irq_vector = VECTOR_DEVICE_FIRST + driver->vm->id;
    if (assign_message(driver, apic_id))
        return;
    driver->interrupt = DRIVER_INTX;
    if (!assign_lines(driver, apic_id)) {
        driver->interrupt = DRIVER_POLLS;
        driver->irq_vector = 0;
    }
    ASSERT_HV(driver_interrupt_open(driver) == OK); /* no message: cannot fail */
}

status_t driver_interrupt_open(struct driver *driver)
{
    if (driver->interrupt == DRIVER_MSI) /* harmless before bus mastering: a message is a write, too */
        return pci_enable_message(driver->pci, driver->message_address, driver->message_data);
    if (driver->interrupt == DRIVER_INTX) {
        pci_enable_intx(driver->pci);
        ioapic_open(driver->irq_vector, true);
    }
    return OK;
}

void driver_interrupt_close(struct driver *driver)
{
    pci_disable_interrupt(driver->pci);
    ioapic_open(driver->irq_vector, false);
}
