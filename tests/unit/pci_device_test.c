/* SOURCES: hv/pci/bar.c hv/pci/capability.c hv/pci/driver_view.c hv/pci/enumerate.c hv/pci/legacy.c
            hv/pci/message.c hv/pci/reset.c hv/pci/virtio_platform.c tests/unit/pci_fake.c */
/* INCLUDE_FAKES */
/* An enumerated device in use: the driver VM's view, messages, resets. */
#include "tests/unit/pci_fake.h"

#include <string.h>

#define MSI 0x50u
#define EXPRESS 0x80u
#define BAR_ADDRESS 0xfe800000u

static struct fake_function *function;
static struct pci_device *dev;

static int setup(void **state)
{
    fake_pci_clear();
    function = fake_pci_add(0x0018, 0x010802);
    fake_pci_bar(function, 0, BAR_ADDRESS, KIB(16), 0);
    return 0;
}

static void enumerate(void)
{
    fake_pci_power_on(function);
    assert_int_equal(pci_enumerate(HPA(0xb0000000), 0, 3, NULL, 0), OK);
    dev = pci_find_address(function->bdf);
    assert_non_null(dev);
    dev->assigned = true;
}

static void add_msi(u32 control)
{
    fake_pci_capability(function, PCI_CAP_MSI, MSI, 22, true);
    fake_pci_put(function, MSI + MSI_CONTROL, 2, control);
    function->writable[MSI + MSI_CONTROL] = 0x71;
    function->writable[MSI + MSI_CONTROL + 1] = 0;
}

static void add_msix(void)
{
    fake_pci_capability(function, PCI_CAP_MSIX, 0x60, 0, false);
    fake_pci_put(function, 0x60 + MSIX_CONTROL, 2, 3);
    function->writable[0x60 + MSIX_CONTROL + 1] = 0xc0;
    fake_pci_put(function, 0x60 + MSIX_TABLE, 4, 0x2100);
    fake_pci_put(function, 0x60 + MSIX_PBA, 4, 0x3000);
}

static void add_express(u32 capability)
{
    fake_pci_capability(function, PCI_CAP_EXPRESS, EXPRESS, 0, false);
    fake_pci_put(function, EXPRESS + EXPRESS_DEVICE_CAPABILITY, 4, capability);
    fake_pci_put(function, EXPRESS + EXPRESS_DEVICE_CONTROL, 2, 0x2810);
    memset(function->writable + EXPRESS + EXPRESS_DEVICE_CONTROL, 0xff, 1);
    function->writable[EXPRESS + EXPRESS_DEVICE_CONTROL + 1] = 0x7f;
    function->express = EXPRESS;
}

/* ---- the driver VM's view ---- */

static void driver_reads(void **state)
{
    u32 value = 0;

    enumerate();
    assert_int_equal(pci_driver_read(dev, PCI_BAR0, 4, &value), OK);
    assert_int_equal(value, BAR_ADDRESS);
    assert_int_equal(pci_driver_read(dev, 0xff, 1, &value), OK);
    assert_int_equal(pci_driver_read(dev, 0x100, 4, &value), ERR_DENIED);
    assert_int_equal(pci_driver_read(dev, 0x1000, 4, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 0xfffffffc, 4, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 2, 4, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 1, 2, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 0, 0, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 0, 3, &value), ERR_INVALID);
    assert_int_equal(pci_driver_read(dev, 0, 8, &value), ERR_INVALID);
}

/* Wherever and however it writes but the command register as a whole, nothing changes. */
static void driver_writes_are_denied(void **state)
{
    u8 before[PCI_CONFIG_SIZE];
    bool bus_master = true;

    add_msi(MSI_WIDE);
    enumerate();
    memset(function->writable + PCI_HEADER_SIZE, 0xff, PCI_CONFIG_SIZE - PCI_HEADER_SIZE);
    memcpy(before, function->space, sizeof(before));
    for (u32 width = 1; width <= 4; width *= 2)
        for (u32 offset = 0; offset < PCI_CONFIG_SIZE; offset += width)
            if (offset != PCI_COMMAND || width != 2) {
                assert_int_equal(pci_driver_write(dev, offset, width, ~0u, &bus_master), ERR_DENIED);
                assert_false(bus_master);
            }
    assert_memory_equal(before, function->space, sizeof(before));
}

static void driver_commands(void **state)
{
    bool bus_master;

    enumerate();
    fake_pci_put(function, PCI_COMMAND, 2, 0x0100); /* SERR, firmware's choice */
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0506, &bus_master), OK);
    assert_true(bus_master);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0502); /* bus mastering is not ours to set */
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0002, &bus_master), ERR_DENIED); /* clears SERR */
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0542, &bus_master), ERR_DENIED); /* parity response */
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0502);
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x10506, &bus_master), ERR_DENIED); /* beyond the register */
    assert_false(bus_master);

    pci_set_bus_master(dev, true);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0507);
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0103, &bus_master), OK); /* off takes effect at once */
    assert_false(bus_master);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0503); /* its pin is not let loose */
    pci_enable_intx(dev);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0103);
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0503, &bus_master), OK);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0503);
    assert_int_equal(pci_driver_write(dev, PCI_COMMAND, 2, 0x0103, &bus_master), OK);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0x0103);
}

/* ---- messages ---- */

static void no_message(void **state)
{
    enumerate();
    assert_int_equal(pci_enable_message(dev, 0xfee00010, 0), ERR_UNSUPPORTED);
}

static void message_32_bit(void **state)
{
    add_msi(0);
    enumerate();
    assert_int_equal(pci_enable_message(dev, 0xfee00030, 0x4041), OK);
    assert_int_equal(fake_pci_get(function, MSI + 4, 4), 0xfee00030);
    assert_int_equal(fake_pci_get(function, MSI + 8, 4), 0x4041); /* and nothing beyond the data register */
    assert_int_equal(fake_pci_get(function, MSI + MSI_CONTROL, 2), MSI_ENABLE);
    pci_disable_interrupt(dev);
    assert_int_equal(fake_pci_get(function, MSI + MSI_CONTROL, 2), 0);
}

static void message_64_bit(void **state)
{
    add_msi(MSI_WIDE | 0x0070); /* firmware had asked for many vectors */
    enumerate();
    assert_int_equal(pci_enable_message(dev, 0x1fee00030, 7), OK);
    assert_int_equal(fake_pci_get(function, MSI + 4, 4), 0xfee00030);
    assert_int_equal(fake_pci_get(function, MSI + 8, 4), 1);
    assert_int_equal(fake_pci_get(function, MSI + 12, 2), 7);
    assert_int_equal(fake_pci_get(function, MSI + MSI_CONTROL, 2), MSI_WIDE | MSI_ENABLE);
}

static void message_msix(void **state)
{
    const u32 *entry = fake_msix_page + 0x40; /* the table is at 0x100 in its page */

    add_msix();
    enumerate();
    fake_pci_put(function, PCI_COMMAND, 2, 0);
    assert_int_equal(pci_enable_message(dev, 0x1fee00050, 9), OK);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
    const u32 expected[] = {0xfee00050, 1, 9, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0};
    assert_memory_equal(entry, expected, sizeof(expected));
    assert_int_equal(fake_pci_get(function, 0x60 + MSIX_CONTROL, 2), MSIX_ENABLE | 3);
    pci_disable_interrupt(dev);
    assert_int_equal(fake_pci_get(function, 0x60 + MSIX_CONTROL, 2), 3);
}

static void msi_is_preferred(void **state)
{
    add_msix();
    add_msi(MSI_WIDE);
    enumerate();
    assert_int_equal(pci_enable_message(dev, 0xfee00050, 9), OK);
    assert_int_equal(fake_pci_get(function, MSI + MSI_CONTROL, 2), MSI_WIDE | MSI_ENABLE);
    assert_int_equal(fake_pci_get(function, 0x60 + MSIX_CONTROL, 2), 3);
}

/* ---- resets ---- */

static void expect_restored(u32 command)
{
    assert_int_equal(fake_pci_get(function, PCI_BAR0, 4), BAR_ADDRESS);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), command);
}

static void reset_express(void **state)
{
    add_express(EXPRESS_CAPABILITY_FLR);
    add_msi(MSI_WIDE);
    enumerate();
    function->silent_after_reset = 500;
    assert_int_equal(pci_enable_message(dev, 0xfee00030, 0x41), OK);
    pci_set_bus_master(dev, true);
    assert_int_equal(pci_reset_kind(dev), PCI_RESET_FLR);
    assert_int_equal(pci_reset_device(dev), PCI_RESET_FLR);
    assert_int_equal(function->resets, 1);
    assert_int_equal(function->silent, 0); /* it was waited for */
    expect_restored(0x0503);
    assert_int_equal(fake_pci_get(function, EXPRESS + EXPRESS_DEVICE_CONTROL, 2), 0x2810);
    assert_int_equal(fake_pci_get(function, MSI + MSI_ADDRESS, 4), 0xfee00030);
    assert_int_equal(fake_pci_get(function, MSI + MSI_CONTROL, 2), MSI_WIDE | MSI_ENABLE);
    assert_string_equal(pci_reset_name[PCI_RESET_FLR], "flr");
}

static void reset_keeps_the_pin(void **state)
{
    add_express(EXPRESS_CAPABILITY_FLR);
    enumerate();
    pci_enable_intx(dev);
    assert_int_equal(pci_reset_device(dev), PCI_RESET_FLR);
    expect_restored(0x0103);
    pci_disable_interrupt(dev);
    expect_restored(0x0503);
    assert_int_equal(pci_reset_device(dev), PCI_RESET_FLR);
    expect_restored(0x0503);
}

static void reset_waits_for_pending_transactions(void **state)
{
    add_express(EXPRESS_CAPABILITY_FLR);
    enumerate();
    fake_pci_put(function, EXPRESS + EXPRESS_DEVICE_STATUS, 2, EXPRESS_STATUS_PENDING); /* for ever */
    u64 start = fake_time_us;
    assert_int_equal(pci_reset_device(dev), PCI_RESET_FLR);
    assert_int_equal(function->resets, 1);
    assert_true(fake_time_us - start >= 10000 && fake_time_us - start < 20000);
}

static void reset_own_bus(void **state)
{
    struct fake_function *bridge = fake_pci_add_bridge(0x0008, 1);

    function->bdf = 0x0100;
    add_express(0);
    enumerate();
    pci_set_bus_master(dev, true);
    u64 start = fake_time_us;
    assert_int_equal(pci_reset_device(dev), PCI_RESET_BUS);
    assert_int_equal(function->resets, 1);
    assert_int_equal(bridge->resets, 0);
    assert_true(fake_time_us - start >= 1000); /* the reset line was held */
    assert_int_equal(fake_pci_get(bridge, PCI_BRIDGE_CONTROL, 2), 0);
    expect_restored(0x0503);
    assert_int_equal(fake_pci_get(function, EXPRESS + EXPRESS_DEVICE_CONTROL, 2), 0x2810);
}

static void shared_bus_is_not_reset(void **state)
{
    struct fake_function *neighbour = fake_pci_add(0x0108, 0x020000);

    fake_pci_add_bridge(0x0008, 1);
    function->bdf = 0x0100;
    enumerate();
    pci_set_bus_master(dev, true);
    assert_int_equal(pci_reset_kind(dev), PCI_RESET_DRIVER);
    assert_int_equal(pci_reset_device(dev), PCI_RESET_DRIVER);
    assert_int_equal(neighbour->resets + function->resets, 0);
    expect_restored(0x0503);
}

static void bus_with_unknown_devices_is_not_reset(void **state)
{
    fake_pci_add_bridge(0x0008, 1);
    fake_pci_add_bridge(0x0010, 1); /* claims the same bus: who lives where? */
    function->bdf = 0x0100;
    enumerate();
    assert_int_equal(pci_reset_kind(dev), PCI_RESET_DRIVER);
}

static void device_that_stays_silent(void **state)
{
    add_express(EXPRESS_CAPABILITY_FLR);
    enumerate();
    function->silent_after_reset = ~0u;
    u64 start = fake_time_us;
    assert_int_equal(pci_reset_device(dev), PCI_RESET_NONE);
    assert_true(fake_time_us - start >= 1000000 && fake_time_us - start < 1100000);
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(driver_reads, setup),
        cmocka_unit_test_setup(driver_writes_are_denied, setup),
        cmocka_unit_test_setup(driver_commands, setup),
        cmocka_unit_test_setup(no_message, setup),
        cmocka_unit_test_setup(message_32_bit, setup),
        cmocka_unit_test_setup(message_64_bit, setup),
        cmocka_unit_test_setup(message_msix, setup),
        cmocka_unit_test_setup(msi_is_preferred, setup),
        cmocka_unit_test_setup(reset_express, setup),
        cmocka_unit_test_setup(reset_waits_for_pending_transactions, setup),
        cmocka_unit_test_setup(reset_keeps_the_pin, setup),
        cmocka_unit_test_setup(reset_own_bus, setup),
        cmocka_unit_test_setup(shared_bus_is_not_reset, setup),
        cmocka_unit_test_setup(bus_with_unknown_devices_is_not_reset, setup),
        cmocka_unit_test_setup(device_that_stays_silent, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
