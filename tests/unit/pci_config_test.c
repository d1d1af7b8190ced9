/* SOURCES: hv/pci/config.c */
/* INCLUDE_FAKES */
/* ECAM: which byte of the window an access goes to. */
#include "hv/pci/internal.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
