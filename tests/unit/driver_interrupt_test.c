/* How a driver VM's interrupt is found, let in and shut out. */
/* SOURCES: hv/core/driver_interrupt.c */
/* INCLUDE_FAKES */
#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/core/cpu.h"
#include "hv/core/driver.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#include <string.h>

struct cpu cpus[CPU_MAX] = {{.apic_id = 0}, {.apic_id = 6}};

static bool has_message, message_on, intx_on, line_open;
static u32 line_count, routed;
static status_t route_status;
static struct pci_device pci;
static struct manifest_vm config;
static struct vm vm = {.id = 2, .name = "blk0", .vcpu.cpu = 1};
static struct driver driver;

status_t iommu_message_create(u16 bdf, u8 vector, u32 apic_id, u64 *address, u32 *data)
{
    assert_int_equal(vector, 0x42);
    assert_int_equal(apic_id, 6);
    *address = 0xfee06000;
    *data = vector;
    return OK;
}
status_t pci_enable_message(struct pci_device *dev, u64 address, u32 data)
{
    assert_int_equal(address, 0xfee06000);
    assert_int_equal(data, 0x42);
    message_on = has_message;
    return has_message ? OK : ERR_UNSUPPORTED;
}
void pci_enable_intx(struct pci_device *dev)
{
    intx_on = true;
}
void pci_disable_interrupt(struct pci_device *dev)
{
    message_on = intx_on = false;
}
u32 pci_lines(const struct pci_device *dev, struct pci_line line[PCI_LINES])
{
    for (u32 i = 0; i < line_count; i++)
        line[i] = (struct pci_line){.irq = (u8)(14 + i)};
    return line_count;
}
status_t ioapic_route(const struct pci_line *line, u8 vector, u32 apic_id)
{
    assert_int_equal(line->irq, 14 + routed);
    assert_int_equal(vector, 0x42);
    assert_int_equal(apic_id, 6);
    routed++;
    return route_status;
}
void ioapic_open(u32 vector, bool open)
{
    if (vector == 0x42)
        line_open = open;
}

static int setup(void **state)
{
    has_message = message_on = intx_on = line_open = false;
    line_count = 2;
    routed = 0;
    route_status = OK;
    config = (struct manifest_vm){.dma = MANIFEST_DMA_ISOLATED};
    driver = (struct driver){.vm = &vm, .config = &config, .pci = &pci};
    return 0;
}

static void expect(enum driver_interrupt interrupt)
{
    assert_int_equal(driver.interrupt, interrupt);
    assert_int_equal(driver.irq_vector, interrupt == DRIVER_POLLS ? 0 : 0x42);
    assert_int_equal(message_on, interrupt == DRIVER_MSI);
    assert_int_equal(intx_on, interrupt == DRIVER_INTX);
    assert_int_equal(line_open, interrupt == DRIVER_INTX);
}

/* As found at boot, and again at a restart. */
static void assign_and_restart(enum driver_interrupt interrupt)
{
    driver_interrupt_assign(&driver);
    expect(interrupt);
    driver_interrupt_close(&driver);
    assert_false(message_on || intx_on || line_open);
    assert_int_equal(driver_interrupt_open(&driver), OK);
    expect(interrupt);
}

static void a_message_is_preferred(void **state)
{
    has_message = true;
    assign_and_restart(DRIVER_MSI);
    assert_int_equal(routed, 0);
    has_message = false; /* the device has changed its mind */
    assert_int_equal(driver_interrupt_open(&driver), ERR_UNSUPPORTED);
}

static void lines_where_there_is_no_message(void **state)
{
    assign_and_restart(DRIVER_INTX);
    assert_int_equal(routed, 2);
}

static void no_message_without_dma(void **state)
{
    has_message = true;
    config.dma = MANIFEST_DMA_NONE;
    assign_and_restart(DRIVER_INTX);
}

static void no_line_no_interrupt(void **state)
{
    line_count = 0;
    assign_and_restart(DRIVER_POLLS);
}

static void lines_of_others_are_not_shared(void **state)
{
    route_status = ERR_BUSY;
    assign_and_restart(DRIVER_POLLS);
    assert_string_equal(fake_log_line, "blk0: interrupt line 14 belongs to another driver VM: polled");
}

static void no_line_to_an_unknown_ioapic(void **state)
{
    route_status = ERR_NOT_FOUND;
    assign_and_restart(DRIVER_POLLS);
    assert_string_equal(fake_log_line, "blk0: interrupt line 14 reaches no IOAPIC that ACPI tells enough of: polled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_message_is_preferred, setup),
        cmocka_unit_test_setup(lines_where_there_is_no_message, setup),
        cmocka_unit_test_setup(no_message_without_dma, setup),
        cmocka_unit_test_setup(no_line_no_interrupt, setup),
        cmocka_unit_test_setup(lines_of_others_are_not_shared, setup),
        cmocka_unit_test_setup(no_line_to_an_unknown_ioapic, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
