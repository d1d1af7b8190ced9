/* SOURCES: hv/core/driver_bar.c hv/core/page_table.c hv/core/frames.c */
/* INCLUDE_FAKES */
/* Where a driver VM finds its device's BARs, and that it finds nothing else of the host there. */
#include "hv/core/driver.h"
#include "shared/lib/checked.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#define HIGH (896ull << 30) /* where OVMF puts BARs of 64 bits on a CPU with 40 */

static struct pci_device pci;
static struct vm vm;
static struct driver driver;
static u64 msix_first, msix_size;
static u32 ports_first, ports_count;

bool pci_is_msix_page(const struct pci_device *dev, hpa_t page)
{
    assert_ptr_equal(dev, &pci);
    return ranges_overlap(page.v, PAGE_SIZE, msix_first, msix_size);
}

void vcpu_allow_ports(struct vcpu *vcpu, u16 first, u32 count)
{
    assert_ptr_equal(vcpu, &vm.vcpu);
    ports_first = first;
    ports_count = count;
}

static int setup(void **state)
{
    fake_frames_create(MIB(16), MIB(1));
    pci = (struct pci_device){0};
    vm = (struct vm){0};
    driver = (struct driver){.vm = &vm, .pci = &pci};
    msix_first = msix_size = 0;
    ports_first = ports_count = 0;
    return page_table_create(&vm.npt, &page_format_npt) != OK;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

/* The host's address behind a guest-physical one; 0: nothing. */
static u64 host_of(u64 at)
{
    hpa_t table = vm.npt.root;

    for (u32 level = 3;; level--) {
        u64 size = PAGE_SIZE << 9 * level, entry = ((const u64 *)hpa_to_ptr(table))[at / size % 512];
        if (!(entry & 1))
            return 0;
        if (level == 0 || entry & 0x80) {
            assert_int_equal(entry & 0x1e, 0x1e); /* writable, for the user, uncached */
            assert_true(entry >> 63);             /* no code */
            return (entry & 0xffffffffff000ull & ~(size - 1)) | (at & (size - 1));
        }
        table = HPA(entry & 0xffffffffff000ull);
    }
}

/* [at, at + size) leads to the host's [hpa, hpa + size), and the pages around it nowhere. */
static void expect_mapped(u64 at, u64 hpa, u64 size)
{
    const u64 step = size > MIB(16) ? MIB(1) : PAGE_SIZE;

    for (u64 i = 0; i < size; i += step)
        assert_int_equal(host_of(at + i), hpa + i);
    assert_int_equal(host_of(at + size - 1), hpa + size - 1);
    assert_int_equal(host_of(PAGE_DOWN(at) - 1), 0);
    assert_int_equal(host_of(PAGE_UP(at + size)), 0);
}

static void high_and_low(void **state)
{
    pci.bar[1] = (struct pci_bar){.address = 0xfe800000, .size = KIB(4), .memory = true};
    pci.bar[4] = (struct pci_bar){.address = HIGH, .size = KIB(16), .memory = true};
    assert_int_equal(driver_map_bars(&driver), OK);
    assert_int_equal(driver_bar_address(&pci, 1), DRIVER_BARS_ADDRESS + DRIVER_BAR_STRIDE);
    assert_int_equal(driver_bar_address(&pci, 4), DRIVER_BARS_ADDRESS + 4 * DRIVER_BAR_STRIDE);
    expect_mapped(driver_bar_address(&pci, 1), 0xfe800000, KIB(4));
    expect_mapped(driver_bar_address(&pci, 4), HIGH, KIB(16));
    assert_int_equal(host_of(0xfe800000), 0); /* not one to one any more */
}

static void msix_table_is_left_out(void **state)
{
    pci.bar[0] = (struct pci_bar){.address = HIGH, .size = KIB(32), .memory = true};
    msix_first = HIGH + 0x2800;
    msix_size = 0x1000; /* two pages: 2 and 3 */
    assert_int_equal(driver_map_bars(&driver), OK);
    expect_mapped(DRIVER_BARS_ADDRESS, HIGH, KIB(8));
    assert_int_equal(host_of(DRIVER_BARS_ADDRESS + 0x3000), 0);
    expect_mapped(DRIVER_BARS_ADDRESS + 0x4000, HIGH + 0x4000, KIB(16));
}

static void whole_bar_of_msix(void **state)
{
    pci.bar[0] = (struct pci_bar){.address = HIGH, .size = KIB(4), .memory = true};
    msix_first = HIGH;
    msix_size = 16;
    assert_int_equal(driver_map_bars(&driver), OK);
    assert_int_equal(host_of(DRIVER_BARS_ADDRESS), 0);
}

/* Two BARs of the device in one page, the second beginning inside of it. */
static void parts_of_a_page(void **state)
{
    pci.bar[0] = (struct pci_bar){.address = 0xfe800400, .size = 0x400, .memory = true};
    pci.bar[1] = (struct pci_bar){.address = 0xfe800800, .size = 0x100, .memory = true};
    assert_int_equal(driver_map_bars(&driver), OK);
    assert_int_equal(driver_bar_address(&pci, 0), DRIVER_BARS_ADDRESS + 0x400);
    assert_int_equal(driver_bar_address(&pci, 1), DRIVER_BARS_ADDRESS + DRIVER_BAR_STRIDE + 0x800);
    expect_mapped(driver_bar_address(&pci, 0), 0xfe800400, 0x400);
    expect_mapped(driver_bar_address(&pci, 1), 0xfe800800, 0x100);
}

/* The largest there may be takes the room of its second register, too, and in large pages hardly any frame. */
static void largest(void **state)
{
    pci.bar[4] = (struct pci_bar){.address = HIGH, .size = DRIVER_BAR_MOST, .memory = true};
    pci.bar[2] = (struct pci_bar){.address = GIB(32), .size = DRIVER_BAR_MOST, .memory = true};
    u64 free = frames_free_count;
    assert_int_equal(driver_map_bars(&driver), OK);
    assert_true(free - frames_free_count <= 4);
    for (u64 i = 0; i < DRIVER_BAR_MOST; i += GIB(1)) {
        assert_int_equal(host_of(DRIVER_BARS_ADDRESS + 2 * DRIVER_BAR_STRIDE + i), GIB(32) + i);
        assert_int_equal(host_of(DRIVER_BARS_ADDRESS + 4 * DRIVER_BAR_STRIDE + i), HIGH + i);
    }
    assert_int_equal(host_of(DRIVER_AREA - 1), HIGH + DRIVER_BAR_MOST - 1);
    assert_int_equal(host_of(DRIVER_AREA), 0); /* the contract's pages begin */
    assert_int_equal(host_of(DRIVER_BARS_ADDRESS + 2 * DRIVER_BAR_STRIDE - 1), 0);
}

static void ports_and_what_is_not_used(void **state)
{
    pci.bar[0] = (struct pci_bar){.address = 0xc040, .size = 0x20};
    pci.bar[1] = (struct pci_bar){.address = 0xfe800800, .memory = true}; /* refused, see pci_bars_check() */
    assert_int_equal(driver_map_bars(&driver), OK);
    assert_int_equal(driver_bar_address(&pci, 0), 0xc040);
    assert_int_equal(ports_first, 0xc040);
    assert_int_equal(ports_count, 0x20);
    assert_int_equal(host_of(driver_bar_address(&pci, 1)), 0);
}

/* The first page takes a table of each level, and of the last there is none left; what follows would take none. */
static void frames_run_out(void **state)
{
    hpa_t frame;

    pci.bar[0] = (struct pci_bar){.address = HIGH, .size = MIB(4), .memory = true};
    pci.bar[1] = (struct pci_bar){.address = 0xc040, .size = 0x20};
    msix_first = HIGH + PAGE_SIZE;
    msix_size = MIB(2) - PAGE_SIZE;
    while (frames_free_count > 2)
        assert_int_equal(frame_alloc(&frame), OK);
    assert_int_equal(driver_map_bars(&driver), ERR_NO_MEMORY);
    assert_int_equal(ports_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(high_and_low, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_table_is_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(whole_bar_of_msix, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_of_a_page, setup, teardown),
        cmocka_unit_test_setup_teardown(largest, setup, teardown),
        cmocka_unit_test_setup_teardown(ports_and_what_is_not_used, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_run_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
