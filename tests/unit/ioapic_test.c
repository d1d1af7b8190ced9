/* The machine's IOAPICs against a model of two: what is routed where, and when it is masked. */
/* INCLUDE_FAKES */
#include "hv/arch/x86/cpu/ioapic.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#include <string.h>

#include "hv/arch/x86/paging/paging.h"
#include "shared/x86/io.h"

#define MASKED (1u << 16)
#define LEVEL (1u << 15)
#define LOW (1u << 13)

/* Their registers lie 0x100 apart in one page, as chipsets with several may have them. */
static struct model {
    u32 select, reg[0x40], writes;
} models[2];
static u8 page[PAGE_SIZE];

void *paging_map_device(hpa_t at, u64 size)
{
    assert_int_equal(at.v, 0xfec00000);
    assert_int_equal(size, PAGE_SIZE);
    return page;
}

static u32 *model_register(const volatile u8 *at)
{
    size_t offset = (size_t)(at - page);
    struct model *m = &models[offset / 0x100];

    assert_true(offset % 0x100 == 0 || offset % 0x100 == 0x10);
    if (offset % 0x100 == 0)
        return &m->select;
    assert_in_range(m->select, 0, ARRAY_SIZE(m->reg) - 1);
    return &m->reg[m->select];
}

static u32 model_read(const volatile u8 *at, u32 width)
{
    assert_int_equal(width, 4); /* 3.0: other widths are not defined */
    return *model_register(at);
}

static void model_write(volatile u8 *at, u32 width, u32 value)
{
    u32 *reg = model_register(at);

    assert_int_equal(width, 4);
    models[(at - page) / 0x100].writes += reg >= models[(at - page) / 0x100].reg;
    *reg = value;
}

/* The file itself, with its registers bent to the ones above. */
#define mmio_read model_read
#define mmio_write model_write
#include "hv/arch/x86/cpu/ioapic.c"

static struct acpi_info acpi;

static int setup(void **state)
{
    memset(models, 0, sizeof(models));
    models[0].reg[1] = 0x00170011; /* 24 pins */
    models[1].reg[1] = 0x00070020;
    acpi = (struct acpi_info){.ioapic_count = 2, .ioapic = {{0xfec00000, 0}, {0xfec00100, 24}}};
    for (u32 i = 0; i < 16; i++)
        acpi.isa[i].gsi = i;
    ioapic_init(&acpi);
    return 0;
}

static u32 low(u32 pin)
{
    return models[0].reg[0x10 + 2 * pin];
}

static void all_entries_begin_masked(void **state)
{
    for (u32 pin = 0; pin < 24; pin++)
        assert_int_equal(low(pin), MASKED);
    for (u32 pin = 0; pin < 8; pin++)
        assert_int_equal(models[1].reg[0x10 + 2 * pin], MASKED);
    assert_int_equal(models[1].reg[0x10 + 2 * 8], 0); /* beyond the last */
}

static void edge_of_isa(void **state)
{
    struct pci_line line = {.irq = 14, .isa = true};

    assert_int_equal(ioapic_route(&line, 0x42, 3), OK);
    assert_int_equal(low(14), 0x42 | MASKED);
    assert_int_equal(models[0].reg[0x11 + 2 * 14], 3u << 24);
    ioapic_open(0x42, true);
    assert_int_equal(low(14), 0x42);
    ioapic_interrupt(0x42); /* the edge is gone: masked, the next one would be lost */
    assert_int_equal(low(14), 0x42);
    ioapic_open(0x42, false);
    assert_int_equal(low(14), 0x42 | MASKED);
}

static void level_of_pci_is_masked_by_its_interrupt(void **state)
{
    struct pci_line line = {.irq = 11};

    assert_int_equal(ioapic_route(&line, 0x41, 0), OK);
    ioapic_open(0x41, true);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW);
    ioapic_interrupt(0x40); /* another's */
    assert_int_equal(low(11), 0x41 | LEVEL | LOW);
    ioapic_interrupt(0x41);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW | MASKED);
    ioapic_open(0x41, true);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW);
}

static void registers_are_written_for_changes_only(void **state)
{
    struct pci_line line = {.irq = 11};

    assert_int_equal(ioapic_route(&line, 0x41, 0), OK);
    ioapic_open(0x41, true);
    u32 writes = models[0].writes;
    for (u32 i = 0; i < 3; i++)
        ioapic_open(0x41, true); /* each `wait` of a driver */
    assert_int_equal(models[0].writes, writes);
    for (u32 i = 0; i < 3; i++)
        ioapic_interrupt(0x41); /* forged, perhaps */
    assert_int_equal(models[0].writes, writes + 1);
}

static void firmware_has_the_last_word(void **state)
{
    struct pci_line isa = {.irq = 5, .isa = true}, pci = {.irq = 10}, other = {.irq = 9};

    acpi.isa[5] = (struct acpi_isa_irq){.gsi = 26};
    acpi.isa[10] = (struct acpi_isa_irq){.gsi = 10, .flags = 0x0d}; /* as QEMU says */
    acpi.isa[9] = (struct acpi_isa_irq){.gsi = 20, .flags = 0x07};
    assert_int_equal(ioapic_route(&isa, 0x41, 0), OK);
    assert_int_equal(models[1].reg[0x10 + 2 * 2], 0x41 | MASKED); /* the second one's third pin */
    assert_int_equal(ioapic_route(&pci, 0x42, 0), OK);
    assert_int_equal(low(10), 0x42 | LEVEL | MASKED);
    assert_int_equal(ioapic_route(&other, 0x43, 0), OK);
    assert_int_equal(low(20), 0x43 | LOW | MASKED);
}

static void what_cannot_be_routed(void **state)
{
    struct pci_line line = {.irq = 11}, far = {.irq = 3};

    acpi.isa[3].gsi = 32;
    assert_int_equal(ioapic_route(&far, 0x41, 0), ERR_NOT_FOUND);
    assert_int_equal(ioapic_route(&line, 0x41, 0xff), ERR_RANGE);
    assert_int_equal(ioapic_route(&line, 0x41, 0), OK);
    assert_int_equal(ioapic_route(&line, 0x42, 0), ERR_BUSY); /* shared: the second one polls */
    ioapic_open(0x42, true);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW | MASKED);
    acpi.ioapic_count = 0;
    ioapic_init(&acpi);
    assert_int_equal(ioapic_route(&line, 0x41, 0), ERR_NOT_FOUND);
}

static void both_channels_of_a_driver(void **state)
{
    struct pci_line first = {.irq = 14, .isa = true}, second = {.irq = 15, .isa = true};

    assert_int_equal(ioapic_route(&first, 0x41, 0), OK);
    assert_int_equal(ioapic_route(&second, 0x41, 0), OK);
    ioapic_open(0x41, true);
    assert_int_equal(low(14), 0x41);
    assert_int_equal(low(15), 0x41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_entries_begin_masked, setup),
        cmocka_unit_test_setup(edge_of_isa, setup),
        cmocka_unit_test_setup(level_of_pci_is_masked_by_its_interrupt, setup),
        cmocka_unit_test_setup(registers_are_written_for_changes_only, setup),
        cmocka_unit_test_setup(firmware_has_the_last_word, setup),
        cmocka_unit_test_setup(what_cannot_be_routed, setup),
        cmocka_unit_test_setup(both_channels_of_a_driver, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
