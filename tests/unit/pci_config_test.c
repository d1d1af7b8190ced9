/* INCLUDE_FAKES */
/* ECAM: which byte of the window an access goes to; ports: which register they are asked for. */
#include "hv/pci/internal.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#include <string.h>

#include "hv/arch/x86/paging/paging.h"

#define ECAM 0xb0000000ull

static u8 *window;
static u32 mapped;

void *paging_map_device(hpa_t at, u64 size)
{
    assert_int_equal(at.v, ECAM + 5 * MIB(1));
    assert_int_equal(size, MIB(1));
    mapped++;
    return window;
}

static u32 selected;        /* what port 0xcf8 was given last */
static u8 registers[0x100]; /* of device 3, function 2 on bus 5 */

static u8 *data_at(u16 port, u32 width)
{
    assert_int_equal(selected & ~0xfcu, 0x80051a00);
    assert_in_range(port, 0xcfc, 0xd00 - width);
    return registers + (selected & 0xfc) + (port & 3);
}

static u32 fake_in(u16 port, u32 width)
{
    u32 value = 0;

    memcpy(&value, data_at(port, width), width);
    return value;
}

static void fake_out(u16 port, u32 width, u32 value)
{
    if (port != 0xcf8) {
        memcpy(data_at(port, width), &value, width);
        return;
    }
    assert_int_equal(width, 4);
    selected = value;
}

/* The file itself, with its ports bent to the ones above. */
#include "shared/x86/io.h"
#define io_in fake_in
#define io_out fake_out
#define io_out32(port, value) fake_out(port, 4, value)
#include "hv/pci/config.c"

static void by_address_and_data_port(void **state)
{
    struct pci_device dev = {.bdf = 0x051a};

    pci_map_bus(HPA(0), 5);
    memset(registers, 0, sizeof(registers));
    pci_write(&dev, 0xfc, 4, 0x11223344);
    pci_write(&dev, 0xfd, 1, 0xaa);
    pci_write(&dev, 0xfe, 2, 0xbbcc);
    assert_int_equal(pci_read(&dev, 0xfc, 4), 0xbbccaa44);
    assert_int_equal(pci_read(&dev, 0xfe, 2), 0xbbcc);
    assert_int_equal(pci_read(&dev, 0xff, 1), 0xbb);
    assert_int_equal(registers[0xfb], 0);
    /* The extended space is out of reach: nothing answers, and no register below is touched in its place. */
    selected = 0;
    pci_write(&dev, 0x1fc, 4, 0);
    assert_int_equal(pci_read(&dev, 0x1fc, 4), 0xffffffff);
    assert_int_equal(pci_read(&dev, 0x100, 2), 0xffff);
    assert_int_equal(pci_read(&dev, 0xfff, 1), 0xff);
    assert_int_equal(selected, 0);
    assert_true(PANICS(pci_read(&dev, 2, 4)));
}

static void addresses_and_widths(void **state)
{
    struct pci_device dev = {.bdf = 0x051a};

    window = calloc(1, MIB(1));
    pci_map_bus(HPA(ECAM), 5);
    pci_map_bus(HPA(ECAM), 5);
    assert_int_equal(mapped, 1);
    pci_write(&dev, 0xffc, 4, 0x11223344);
    u8 *at = window + 0x1a * 4096 + 0xffc; /* bus << 20 | device << 15 | function << 12 */
    assert_int_equal(at[0], 0x44);
    assert_int_equal(at[3], 0x11);
    pci_write(&dev, 0xffd, 1, 0xaa);
    pci_write(&dev, 0xffe, 2, 0xbbcc);
    assert_int_equal(pci_read(&dev, 0xffc, 4), 0xbbccaa44);
    assert_int_equal(pci_read(&dev, 0xffe, 2), 0xbbcc);
    assert_int_equal(pci_read(&dev, 0xffd, 1), 0xaa);
    free(window);
}

static void wrong_accesses_are_our_own_bugs(void **state)
{
    struct pci_device dev = {.bdf = 0x0500}, unmapped = {.bdf = 0x0600};

    pci_map_bus(HPA(ECAM), 5);
    assert_true(PANICS(pci_read(&dev, 0x1000, 4)));
    assert_true(PANICS(pci_read(&dev, 2, 4)));
    assert_true(PANICS(pci_write(&dev, 0, 3, 0)));
    assert_true(PANICS(pci_read(&unmapped, 0, 4)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_widths),
        cmocka_unit_test(wrong_accesses_are_our_own_bugs),
        cmocka_unit_test(by_address_and_data_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
