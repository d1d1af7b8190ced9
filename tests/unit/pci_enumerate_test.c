/* SOURCES: hv/pci/bar.c hv/pci/capability.c hv/pci/driver_view.c hv/pci/enumerate.c hv/pci/legacy.c
            hv/pci/message.c hv/pci/reset.c hv/pci/virtio_platform.c tests/unit/pci_fake.c */
/* INCLUDE_FAKES */
/* The scan: hierarchy, functions, what is refused of bridges and BARs, capability lists that lie. */
#include "tests/unit/pci_fake.h"
#include "tests/unit/random.h"

#include <string.h>

#define ECAM 0xb0000000ull
#define EXPRESS 0x40u

static const struct boot_memory map[] = {{.base = 0, .size = GIB(1), .kind = BOOT_MEMORY_FREE},
                                         {.base = 0xfd000000, .size = MIB(1), .kind = BOOT_MEMORY_RESERVED},
                                         {.base = GIB(4), .size = GIB(4), .kind = BOOT_MEMORY_FREE}};

static int setup(void **state)
{
    fake_pci_clear();
    return 0;
}

static status_t enumerate(void)
{
    return pci_enumerate(HPA(ECAM), 0, 15, map, ARRAY_SIZE(map));
}

static void absent_machine(void **state)
{
    assert_int_equal(enumerate(), ERR_NOT_FOUND);
    assert_int_equal(pci_enumerate(HPA(ECAM), 2, 1, map, 0), ERR_RANGE);
}

static void bridges_are_followed_breadth_first(void **state)
{
    fake_pci_add_bridge(0x0008, 1);
    struct fake_function *disk = fake_pci_add(0x0010, 0x010601);
    fake_pci_add_bridge(0x0100, 2);
    fake_pci_add(0x0200, 0x010802);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_device_count, 4);
    assert_int_equal(pci_devices[3].bdf, 0x0200);
    assert_ptr_equal(pci_devices[3].bridge, pci_find_address(0x0100));
    assert_ptr_equal(pci_devices[2].bridge, pci_find_address(0x0008));
    assert_null(pci_devices[0].bridge);
    assert_int_equal(fake_pci_get(disk, PCI_COMMAND, 2), 0x0503); /* bus mastering and INTx off, the rest as it was */
    assert_int_equal(pci_read(&pci_devices[0], PCI_COMMAND, 2), 0x0507);
    assert_null(pci_find_address(0x0300));
    assert_ptr_equal(pci_find_class(0x010600, 0xffff00), pci_find_address(0x0010));
    pci_find_address(0x0010)->assigned = true;
    assert_null(pci_find_class(0x010601, 0xffffff));
    assert_null(pci_find_class(0x060400, 0xffff00)); /* a bridge is never given away */
}

static void bridge_loops_end(void **state)
{
    fake_pci_add_bridge(0x0008, 1);
    fake_pci_add_bridge(0x0100, 0); /* nothing behind it */
    fake_pci_add_bridge(0x0108, 1); /* its own bus */
    fake_pci_add_bridge(0x0110, 99);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_device_count, 4);
    assert_true(pci_devices_left_out);
}

static void functions_only_of_multifunction_devices(void **state)
{
    struct fake_function *f = fake_pci_add(0x0010, 0x020000);
    fake_pci_add(0x0013, 0x020000);
    fake_pci_add(0x001b, 0x020000); /* function 3 of a device without function 0 */
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_device_count, 1);
    fake_pci_put(f, PCI_HEADER_TYPE, 1, PCI_HEADER_MULTIFUNCTION);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_device_count, 2);
    assert_int_equal(pci_devices[0].header_type, 0);
}

static void devices_beyond_the_table_are_silenced(void **state)
{
    struct fake_function *last = NULL;

    for (u32 i = 0; i < PCI_MAX_DEVICES + 1; i++) {
        last = fake_pci_add((u16)i, 0x020000);
        fake_pci_put(last, PCI_HEADER_TYPE, 1, PCI_HEADER_MULTIFUNCTION);
    }
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_device_count, PCI_MAX_DEVICES);
    assert_true(pci_devices_left_out);
    assert_int_equal(fake_pci_get(last, PCI_COMMAND, 2), 0x0503);
}

static void access_control_goes_on(void **state)
{
    struct fake_function *bridge = fake_pci_add_bridge(0x0008, 1);

    fake_pci_capability(bridge, PCI_CAP_EXPRESS, EXPRESS, 0x3a, true);
    fake_pci_put(bridge, 0x100, 4, 0x14810001); /* some other capability, then ACS at 0x148 */
    fake_pci_put(bridge, 0x148, 4, 0x0001000d);
    fake_pci_put(bridge, 0x148 + ACS_CAPABILITY, 2, 0x005d);
    memset(bridge->writable + 0x148 + ACS_CONTROL, 0xff, 2);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(fake_pci_get(bridge, 0x148 + ACS_CONTROL, 2), 0x1d);
}

static void bar_kinds_and_sizes(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_bar(f, 0, 0xfe800000, MIB(1), 0);
    fake_pci_bar(f, 1, 0xc040, 0x20, PCI_BAR_PORT);
    fake_pci_bar(f, 2, 0x800000000, GIB(8), PCI_BAR_WIDE | 8 /* prefetchable */);
    fake_pci_bar(f, 4, 0, KIB(4), 0); /* unassigned */
    assert_int_equal(enumerate(), OK);
    const struct pci_bar *bar = pci_devices[0].bar;
    assert_int_equal(bar[0].address, 0xfe800000);
    assert_int_equal(bar[0].size, MIB(1));
    assert_true(bar[0].memory);
    assert_int_equal(bar[1].address, 0xc040);
    assert_int_equal(bar[1].size, 0x20);
    assert_false(bar[1].memory);
    assert_int_equal(bar[2].address, 0x800000000);
    assert_int_equal(bar[2].size, GIB(8));
    assert_true(bar[2].memory);
    assert_int_equal(bar[3].size, 0);
    assert_int_equal(bar[4].size, 0);
    assert_int_equal(bar[5].size, 0);
    /* Sizing left no trace. */
    assert_int_equal(fake_pci_get(f, PCI_BAR0, 4), 0xfe800000);
    assert_int_equal(fake_pci_get(f, PCI_BAR0 + 12, 4), 8);
    assert_int_equal(fake_pci_get(f, PCI_COMMAND, 2), 0x0503);
}

static void wide_bar_without_upper_half(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_put(f, PCI_BAR0 + 20, 4, 0xfe800004);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_devices[0].bar[5].size, 0);
}

static void port_bar_with_16_bits(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_bar(f, 0, 0xc000, 0x40, PCI_BAR_PORT);
    f->writable[PCI_BAR0 + 2] = f->writable[PCI_BAR0 + 3] = 0;
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_devices[0].bar[0].size, 0x40);
}

static void host_bridge_is_not_sized(void **state)
{
    struct fake_function *f = fake_pci_add(0x0000, 0x060000);

    fake_pci_bar(f, 0, 0xfe800000, MIB(1), 0);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_devices[0].bar[0].size, 0);
}

static void expect_ports(const struct pci_device *dev, u32 index, u64 address, u64 size)
{
    const struct pci_bar *bar = &dev->bar[index];

    assert_int_equal(bar->size, size);
    assert_int_equal(size ? bar->address : 0, address);
    assert_false(size && bar->memory);
}

/* PIIX3's: both channels in compatibility mode, the registers of their BARs zero or nonsense. */
static void ide_in_compatibility_mode(void **state)
{
    struct fake_function *bridge = fake_pci_add(0x0008, 0x060100), *f = fake_pci_add(0x0009, 0x010180);
    struct pci_line line[PCI_LINES];

    fake_pci_put(bridge, PCI_HEADER_TYPE, 1, PCI_HEADER_MULTIFUNCTION);
    fake_pci_put(f, PCI_INTERRUPT_PIN, 1, 1);
    fake_pci_put(f, PCI_INTERRUPT_LINE, 1, 11); /* not where they interrupt */
    fake_pci_bar(f, 0, 0xfe800000, MIB(1), 0);
    fake_pci_bar(f, 4, 0xc040, 0x10, PCI_BAR_PORT);
    assert_int_equal(enumerate(), OK);
    struct pci_device *dev = pci_find_address(0x0009);
    expect_ports(dev, 0, 0x1f0, 8);
    expect_ports(dev, 1, 0x3f6, 1);
    expect_ports(dev, 2, 0x170, 8);
    expect_ports(dev, 3, 0x376, 1);
    expect_ports(dev, 4, 0xc040, 0x10);
    assert_int_equal(pci_lines(dev, line), 2);
    assert_int_equal(line[0].irq, 14);
    assert_int_equal(line[1].irq, 15);
    assert_true(line[0].isa && line[1].isa);
    pci_withhold_dma(dev);
    expect_ports(dev, 3, 0x376, 1);
    expect_ports(dev, 4, 0, 0);
}

static void ide_in_native_mode(void **state)
{
    struct fake_function *f = fake_pci_add(0x0008, 0x010185);
    const struct pci_device *dev = &pci_devices[0];
    struct pci_line line[PCI_LINES];

    fake_pci_put(f, PCI_INTERRUPT_LINE, 1, 11);
    fake_pci_put(f, PCI_INTERRUPT_PIN, 1, 1);
    fake_pci_bar(f, 0, 0xc000, 8, PCI_BAR_PORT);
    fake_pci_bar(f, 1, 0xc008, 4, PCI_BAR_PORT);
    assert_int_equal(enumerate(), OK);
    expect_ports(dev, 0, 0xc000, 8);
    expect_ports(dev, 1, 0xc008, 4);
    expect_ports(dev, 2, 0, 0);
    assert_int_equal(pci_lines(dev, line), 1);
    assert_int_equal(line[0].irq, 11);
    assert_false(line[0].isa);

    fake_pci_put(f, PCI_REVISION, 4, 0x010184u << 8); /* the first channel only is compatible */
    assert_int_equal(enumerate(), OK);
    expect_ports(dev, 0, 0x1f0, 8);
    expect_ports(dev, 2, 0, 0);
    assert_int_equal(pci_lines(dev, line), 2);
    assert_int_equal(line[0].irq, 14);
    assert_int_equal(line[1].irq, 11);
}

static void ide_ports_have_one_owner(void **state)
{
    fake_pci_add(0x0008, 0x010180);
    fake_pci_add(0x0010, 0x010180);
    assert_int_equal(enumerate(), OK);
    for (u32 i = 0; i < 4; i++)
        assert_int_equal(pci_devices[0].bar[i].size + pci_devices[1].bar[i].size, 0);
}

static u32 lines_of(u8 pin, u8 irq)
{
    struct pci_line line[PCI_LINES];
    struct fake_function *f;

    fake_pci_clear();
    f = fake_pci_add(0x0018, 0x020000);
    fake_pci_put(f, PCI_INTERRUPT_PIN, 1, pin);
    fake_pci_put(f, PCI_INTERRUPT_LINE, 1, irq);
    assert_int_equal(enumerate(), OK);
    return pci_lines(&pci_devices[0], line);
}

static void lines_that_firmware_has_routed(void **state)
{
    assert_int_equal(lines_of(1, 10), 1);
    assert_int_equal(lines_of(1, 15), 1);
    assert_int_equal(lines_of(0, 10), 0); /* no pin */
    assert_int_equal(lines_of(1, 0), 0);
    assert_int_equal(lines_of(1, 16), 0);
    assert_int_equal(lines_of(1, 255), 0);
}

/* One BAR alone in the machine: is it accepted? */
static bool bar_accepted(u64 address, u64 size, u32 type)
{
    fake_pci_clear();
    fake_pci_bar(fake_pci_add(0x0018, 0x00ff00), 0, address, size, type);
    assert_int_equal(enumerate(), OK);
    return pci_devices[0].bar[0].size == size;
}

static void bars_in_the_wrong_place(void **state)
{
    assert_true(bar_accepted(GIB(1), MIB(1), 0));
    assert_false(bar_accepted(GIB(1) - MIB(1), MIB(1), 0)); /* the last of RAM */
    assert_false(bar_accepted(GIB(5), MIB(1), PCI_BAR_WIDE));
    assert_true(bar_accepted(GIB(8), MIB(1), PCI_BAR_WIDE));
    assert_true(bar_accepted(FAKE_PHYSICAL_END - GIB(1), GIB(1), PCI_BAR_WIDE));
    assert_false(bar_accepted(FAKE_PHYSICAL_END, GIB(1), PCI_BAR_WIDE)); /* nobody can name it */
    assert_false(bar_accepted(FAKE_PHYSICAL_END / 2, FAKE_PHYSICAL_END, PCI_BAR_WIDE));
    assert_false(bar_accepted((1ull << 52) + GIB(5), MIB(1), PCI_BAR_WIDE)); /* RAM, to a table that keeps 52 bits */
    assert_true(bar_accepted(0xfd000000, MIB(1), 0)); /* firmware lists device windows as reserved */
    assert_false(bar_accepted(ECAM + MIB(15), MIB(1), 0));
    assert_true(bar_accepted(ECAM + MIB(16), MIB(1), 0));
    assert_false(bar_accepted(0xfee00000, KIB(4), 0));  /* local APIC */
    assert_false(bar_accepted(0xfed90000, KIB(4), 0));  /* the IOMMU itself */
    assert_false(bar_accepted(0x3f8, 8, PCI_BAR_PORT)); /* the console's UART */
    assert_false(bar_accepted(0xcf8, 8, PCI_BAR_PORT));
    assert_true(bar_accepted(0xc00, 0x80, PCI_BAR_PORT));
}

static void bars_that_collide_are_both_refused(void **state)
{
    struct fake_function *a = fake_pci_add(0x0018, 0x00ff00), *b = fake_pci_add(0x0020, 0x00ff00);

    fake_pci_bar(a, 0, 0xfe800000, 0x400, 0);
    fake_pci_bar(b, 0, 0xfe800800, 0x400, 0); /* the same page */
    fake_pci_bar(b, 1, 0xfe901000, 0x400, 0); /* the page behind a's */
    fake_pci_bar(a, 1, 0xfe900000, 0x400, 0);
    fake_pci_bar(a, 2, 0xfe900800, 0x400, 0); /* the same page, but its own */
    fake_pci_bar(a, 3, 0xc000, 0x20, PCI_BAR_PORT);
    fake_pci_bar(b, 3, 0xc010, 0x10, PCI_BAR_PORT);
    fake_pci_bar(a, 4, 0xc080, 0x20, PCI_BAR_PORT);
    fake_pci_bar(b, 4, 0xc0a0, 0x20, PCI_BAR_PORT); /* neighbours: ports are handed out singly */
    assert_int_equal(enumerate(), OK);
    const struct pci_device *first = &pci_devices[0], *second = &pci_devices[1];
    assert_int_equal(first->bar[0].size, 0);
    assert_int_equal(second->bar[0].size, 0);
    assert_int_equal(first->bar[1].size, 0x400);
    assert_int_equal(first->bar[2].size, 0x400);
    assert_int_equal(second->bar[1].size, 0x400);
    assert_int_equal(first->bar[3].size, 0);
    assert_int_equal(second->bar[3].size, 0);
    assert_int_equal(first->bar[4].size, 0x20);
    assert_int_equal(second->bar[4].size, 0x20);
}

static void capabilities_are_found(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_capability(f, PCI_CAP_MSI, 0x50, 10, true);
    fake_pci_capability(f, PCI_CAP_EXPRESS, 0x80, 0, false);
    fake_pci_capability(f, 0x09, 0xf4, 0, false);
    fake_pci_put(f, 0x80 + EXPRESS_DEVICE_CAPABILITY, 4, EXPRESS_CAPABILITY_FLR);
    fake_pci_put(f, 0x80 + EXPRESS_DEVICE_CONTROL, 2, 0x2810);
    fake_pci_put(f, 0x50 + MSI_CONTROL, 2, MSI_ENABLE); /* firmware left it on */
    assert_int_equal(enumerate(), OK);
    const struct pci_device *dev = &pci_devices[0];
    assert_int_equal(dev->cap_msi, 0x50);
    assert_int_equal(dev->cap_express, 0x80);
    assert_int_equal(dev->cap_msix, 0);
    assert_int_equal(dev->express_control, 0x2810);
    assert_true(dev->has_flr);
    assert_int_equal(fake_pci_get(f, 0x50 + MSI_CONTROL, 2) & MSI_ENABLE, 0);
}

static u8 msi_found(void)
{
    assert_int_equal(enumerate(), OK);
    return pci_devices[0].cap_msi;
}

static void capability_lists_that_lie(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_capability(f, 0x01, 0x40, 0, false);
    fake_pci_put(f, 0x41, 1, 0x40); /* a loop */
    assert_int_equal(msi_found(), 0);
    fake_pci_put(f, 0x41, 1, 0x10); /* into the header */
    fake_pci_put(f, 0x10, 1, PCI_CAP_MSI);
    assert_int_equal(msi_found(), 0);
    fake_pci_put(f, 0x41, 1, 0x53); /* the low two bits do not count */
    fake_pci_put(f, 0x50, 1, PCI_CAP_MSI);
    assert_int_equal(msi_found(), 0x50);
    fake_pci_put(f, 0x40, 4, ~0u); /* nothing but ones: the last entry names itself */
    fake_pci_put(f, 0xfc, 4, ~0u);
    assert_int_equal(msi_found(), 0);
    fake_pci_put(f, 0x40, 2, 0x5001);
    fake_pci_put(f, PCI_STATUS, 2, 0); /* no list at all */
    assert_int_equal(msi_found(), 0);
}

static void extended_lists_that_lie(void **state)
{
    struct fake_function *bridge = fake_pci_add_bridge(0x0008, 1);
    u8 before[PCI_CONFIG_SIZE];

    fake_pci_capability(bridge, PCI_CAP_EXPRESS, EXPRESS, 0x3a, true);
    memset(bridge->writable + 0x100, 0xff, PCI_CONFIG_SIZE - 0x100);
    const u32 first[] = {0x10010001 /* points to itself */, 0x0fc10001 /* back into the standard space */, ~0u, 0,
                         0xffc10001 /* to an entry that sticks out */};
    fake_pci_put(bridge, 0xffc, 4, PCI_EXTENDED_ACS);
    for (u32 i = 0; i < ARRAY_SIZE(first); i++) {
        fake_pci_put(bridge, 0x100, 4, first[i]);
        memcpy(before, bridge->space, sizeof(before));
        assert_int_equal(enumerate(), OK);
        assert_memory_equal(before + 0x100, bridge->space + 0x100, PCI_CONFIG_SIZE - 0x100);
    }
}

static void structures_that_stick_out(void **state)
{
    struct fake_function *f = fake_pci_add(0x0018, 0x00ff00);

    fake_pci_capability(f, PCI_CAP_MSI, 0xf8, 0, false);
    fake_pci_capability(f, PCI_CAP_EXPRESS, 0xf8, 0, false);
    fake_pci_capability(f, PCI_CAP_MSI, 0xf0, 0, false);
    assert_int_equal(enumerate(), OK);
    assert_int_equal(pci_devices[0].cap_msi, 0);
    assert_int_equal(pci_devices[0].cap_express, 0);
}

static bool msix_accepted(u32 table, u32 pba, u32 entries)
{
    struct fake_function *f;

    fake_pci_clear();
    f = fake_pci_add(0x0018, 0x00ff00);
    fake_pci_bar(f, 0, 0xfe800000, KIB(16), 0);
    fake_pci_bar(f, 1, 0xc000, 0x20, PCI_BAR_PORT);
    fake_pci_capability(f, PCI_CAP_MSIX, 0x40, 0, false);
    fake_pci_put(f, 0x40 + MSIX_CONTROL, 2, entries - 1);
    fake_pci_put(f, 0x40 + MSIX_TABLE, 4, table);
    fake_pci_put(f, 0x40 + MSIX_PBA, 4, pba);
    assert_int_equal(enumerate(), OK);
    return pci_devices[0].cap_msix != 0;
}

static void msix_tables(void **state)
{
    assert_true(msix_accepted(0x2000, 0x3000, 65));
    const struct pci_device *dev = &pci_devices[0];
    assert_int_equal(dev->msix_count, 65);
    assert_false(pci_is_msix_page(dev, HPA(0xfe801000)));
    assert_true(pci_is_msix_page(dev, HPA(0xfe802000)));
    assert_true(pci_is_msix_page(dev, HPA(0xfe803000)));
    assert_false(pci_is_msix_page(dev, HPA(0xfe804000)));
    assert_true(msix_accepted(0x2000, 0x3000, 256));
    assert_true(msix_accepted(0x1000, 0x3ff8, 1));
    assert_false(msix_accepted(0x3000, 0x1000, 257)); /* the table leaves the BAR */
    assert_false(msix_accepted(0x1000, 0x3ff8, 65));  /* the pending bits do */
    assert_false(msix_accepted(0xfffffff8, 0x1000, 1));
    assert_false(msix_accepted(0x0001, 0x1000, 1)); /* a port BAR */
    assert_false(msix_accepted(0x0002, 0x1000, 1)); /* an absent one */
    assert_false(msix_accepted(0x0007, 0x1000, 1)); /* none at all */
}

/* Any bytes for a function: it ends, and what is accepted obeys the rules. */
static void random_configuration_space(void **state)
{
    struct random random = random_start("random_configuration_space");

    for (u32 round = 0; round < 3000; round++) {
        fake_pci_clear();
        for (u32 i = 0; i < 4; i++) {
            struct fake_function *f = fake_pci_add((u16)(i * 8), 0);
            for (u32 j = 0; j < PCI_CONFIG_SIZE; j++) {
                f->space[j] = (u8)random_u64(&random);
                f->writable[j] = (u8)(random_u64(&random) | random_u64(&random));
            }
            fake_pci_put(f, PCI_VENDOR, 4, i == 3 ? 0x10421af4 : i + 1); /* the last one is VirtIO's */
            memset(f->writable + PCI_VENDOR, 0, 4);
            f->writable[PCI_HEADER_TYPE] = 0;
            f->writable[PCI_COMMAND] = 0x07;
            fake_pci_put(f, PCI_HEADER_TYPE, 1, (u32)random_u64(&random) & 0x83);
        }
        assert_int_equal(enumerate(), OK);
        for (u32 d = 0; d < pci_device_count; d++)
            for (u32 i = 0; i < 6; i++) {
                const struct pci_bar *bar = &pci_devices[d].bar[i];
                if (bar->size == 0)
                    continue;
                assert_int_equal(bar->size & (bar->size - 1), 0);
                assert_true(bar->memory ? bar->address >= GIB(1) : bar->fixed || bar->address >= 0x400);
                assert_true(bar->address + bar->size <= FAKE_PHYSICAL_END);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(absent_machine, setup),
        cmocka_unit_test_setup(bridges_are_followed_breadth_first, setup),
        cmocka_unit_test_setup(bridge_loops_end, setup),
        cmocka_unit_test_setup(functions_only_of_multifunction_devices, setup),
        cmocka_unit_test_setup(devices_beyond_the_table_are_silenced, setup),
        cmocka_unit_test_setup(access_control_goes_on, setup),
        cmocka_unit_test_setup(bar_kinds_and_sizes, setup),
        cmocka_unit_test_setup(wide_bar_without_upper_half, setup),
        cmocka_unit_test_setup(port_bar_with_16_bits, setup),
        cmocka_unit_test_setup(host_bridge_is_not_sized, setup),
        cmocka_unit_test_setup(ide_in_compatibility_mode, setup),
        cmocka_unit_test_setup(ide_in_native_mode, setup),
        cmocka_unit_test_setup(ide_ports_have_one_owner, setup),
        cmocka_unit_test_setup(lines_that_firmware_has_routed, setup),
        cmocka_unit_test_setup(bars_in_the_wrong_place, setup),
        cmocka_unit_test_setup(bars_that_collide_are_both_refused, setup),
        cmocka_unit_test_setup(capabilities_are_found, setup),
        cmocka_unit_test_setup(capability_lists_that_lie, setup),
        cmocka_unit_test_setup(extended_lists_that_lie, setup),
        cmocka_unit_test_setup(structures_that_stick_out, setup),
        cmocka_unit_test_setup(msix_tables, setup),
        cmocka_unit_test_setup(random_configuration_space, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
