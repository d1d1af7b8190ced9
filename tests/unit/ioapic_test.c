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

/* The remapping table, as far as it is this file's business: entries 5 and up. */
static bool remapped, present[8];
static u16 next_index;
static struct {
    u8 ioapic, vector;
    u32 apic_id;
    bool level;
} created;
static u32 requests_without_entry;

status_t iommu_line_create(u8 ioapic_id, u8 vector, u32 apic_id, bool level, u16 *index)
{
    if (!remapped)
        return ERR_STATE;
    created.ioapic = ioapic_id;
    created.vector = vector;
    created.apic_id = apic_id;
    created.level = level;
    *index = next_index++;
    return ioapic_id == 9 ? ERR_NOT_FOUND : OK;
}

void iommu_interrupt_open(u16 index, bool open)
{
    assert_true(remapped);
    assert_in_range(index, 0, ARRAY_SIZE(present) - 1);
    present[index] = open;
    /* A pin that is open in this moment can send a request that finds no entry: before it came, or after it went. */
    for (u32 pin = 0; pin < 24; pin++)
        requests_without_entry +=
            !(models[0].reg[0x10 + 2 * pin] & MASKED) && models[0].reg[0x11 + 2 * pin] >> 17 == index;
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
    acpi = (struct acpi_info){.ioapic_count = 2, .ioapic = {{0xfec00000, 0, 2}, {0xfec00100, 24, 9}}};
    for (u32 i = 0; i < 16; i++)
        acpi.isa[i].gsi = i;
    remapped = false;
    memset(present, 0, sizeof(present));
    next_index = 5;
    requests_without_entry = 0;
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
    assert_int_equal(low(14), MASKED);
    assert_int_equal(models[0].reg[0x11 + 2 * 14], 3u << 24);
    ioapic_open(0x42, true);
    assert_int_equal(low(14), 0x42);
    ioapic_interrupt(0x42); /* the edge is gone: masked, the next one would be lost */
    assert_int_equal(low(14), 0x42);
    ioapic_open(0x42, false);
    assert_int_equal(low(14), MASKED);
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
    ioapic_open(0x41, true);
    assert_int_equal(models[1].reg[0x10 + 2 * 2], 0x41); /* the second one's third pin */
    assert_int_equal(ioapic_route(&pci, 0x42, 0), OK);
    ioapic_open(0x42, true);
    assert_int_equal(low(10), 0x42 | LEVEL);
    assert_int_equal(ioapic_route(&other, 0x43, 0), OK);
    ioapic_open(0x43, true);
    assert_int_equal(low(20), 0x43 | LOW);
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
    assert_int_equal(low(11), MASKED);
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

/* A closed pin is edge-triggered: one that waits for an EOI that never comes would else do so for ever. */
static void closed_is_forgotten(void **state)
{
    struct pci_line line = {.irq = 11};

    assert_int_equal(ioapic_route(&line, 0x41, 0), OK);
    ioapic_open(0x41, true);
    ioapic_interrupt(0x41);
    ioapic_open(0x41, false);
    assert_int_equal(low(11), MASKED);
    ioapic_interrupt(0x41); /* one that was under way */
    assert_int_equal(low(11), MASKED);
    ioapic_open(0x41, true);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW);
}

static void through_the_remapping_table(void **state)
{
    struct pci_line line = {.irq = 11}, isa = {.irq = 14, .isa = true};

    remapped = true;
    assert_int_equal(ioapic_route(&line, 0x41, 3), OK);
    assert_true(created.ioapic == 2 && created.vector == 0x41 && created.apic_id == 3 && created.level);
    assert_int_equal(models[0].reg[0x11 + 2 * 11], 5u << 17 | 1u << 16); /* index 5, remappable format */
    assert_int_equal(low(11), MASKED);
    assert_false(present[5]);
    ioapic_open(0x41, true);
    assert_true(present[5]);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW); /* the vector that the EOI will name */
    ioapic_interrupt(0x41);
    assert_int_equal(low(11), 0x41 | LEVEL | LOW | MASKED);
    assert_true(present[5]); /* from the stub nothing changes there: it needs no lock */
    ioapic_open(0x41, true);
    ioapic_open(0x41, false);
    assert_false(present[5]);
    assert_int_equal(low(11), MASKED);

    next_index = 0x8006; /* bit 15 of the index has a place of its own */
    assert_int_equal(ioapic_route(&isa, 0x42, 3), OK);
    assert_false(created.level);
    assert_int_equal(models[0].reg[0x11 + 2 * 14], 6u << 17 | 1u << 16);
    assert_int_equal(lines[line_count - 1].entry, 0x42 | 1u << 11);
    assert_int_equal(requests_without_entry, 0);
}

static void an_ioapic_that_is_not_in_dmar(void **state)
{
    struct pci_line line = {.irq = 11};

    remapped = true;
    acpi.isa[11].gsi = 25;
    assert_int_equal(ioapic_route(&line, 0x41, 3), ERR_NOT_FOUND);
    ioapic_open(0x41, true);
    assert_int_equal(models[1].reg[0x10 + 2 * 1], MASKED);
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
        cmocka_unit_test_setup(closed_is_forgotten, setup),
        cmocka_unit_test_setup(through_the_remapping_table, setup),
        cmocka_unit_test_setup(an_ioapic_that_is_not_in_dmar, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
