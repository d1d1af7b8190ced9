/* SOURCES: hv/iommu/unit.c hv/iommu/dmar.c hv/iommu/domain.c hv/iommu/interrupt_remap.c hv/iommu/fault.c
            hv/core/page_table.c hv/core/frames.c */
/* INCLUDE_FAKES */
/* Switching the unit on, and its queue: the unit works in the pauses of whoever waits for it. */
#include "hv/arch/x86/paging/paging.h"
#include "hv/iommu/unit.h"
#include "hv/pci/pci.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#include <string.h>

#define UNIT_BASE 0xfed90000ull
#define CAPABILITY                                                                                                     \
    (2ull | 1ull << 9 | CAP_LEVELS_4 | 47ull << 16 | 3ull << 34 | CAP_PAGE_SELECTIVE | 18ull << 48 | 0x22ull << 24)
#define EXTENDED (ECAP_COHERENT | ECAP_QUEUE | ECAP_INTERRUPTS)
#define QUEUE_HEAD 0x80u

struct pci_device pci_devices[PCI_MAX_DEVICES];
u32 pci_device_count;

/* ---- the unit ---- */

static _Alignas(8) u8 registers[5 * 4096];
static u8 dmar[256];
static u32 dmar_size;
static bool dead, queue_broken;
static u32 descriptors[16]; /* how many by type */
static char order[64];      /* what was switched on, in order */

static u32 *reg(u32 offset)
{
    return (u32 *)(registers + offset);
}

static u64 *reg64(u32 offset)
{
    return (u64 *)(registers + offset);
}

static void note(const char *what)
{
    strncat(order, what, sizeof(order) - strlen(order) - 1);
}

static void take_command(void)
{
    static const struct {
        u32 bit;
        const char *name;
    } levels[] = {{VTD_QUEUE, "Q"},
                  {VTD_SET_ROOT, "R"},
                  {VTD_TRANSLATION, "T"},
                  {VTD_SET_INTERRUPT_TABLE, "I"},
                  {VTD_REMAP_INTERRUPTS, "E"}};
    const u32 sticky = VTD_SET_ROOT | VTD_SET_INTERRUPT_TABLE;
    u32 command = *reg(VTD_COMMAND), status = *reg(VTD_STATUS);

    for (u32 i = 0; i < ARRAY_SIZE(levels); i++)
        if (command & ~status & levels[i].bit)
            note(levels[i].name);
        else if (status & ~command & ~sticky & levels[i].bit)
            note("-");
    *reg(VTD_STATUS) = command | (status & sticky);
    *reg(VTD_COMMAND) = *reg(VTD_STATUS) & ~sticky;
}

static void take_descriptors(void)
{
    if (queue_broken && *reg64(QUEUE_HEAD) != *reg64(VTD_QUEUE_TAIL))
        *reg(VTD_FAULT_STATUS) |= 1u << 4;
    while (!queue_broken && (*reg(VTD_STATUS) & VTD_QUEUE) && *reg64(QUEUE_HEAD) != *reg64(VTD_QUEUE_TAIL)) {
        const u64 *descriptor = hpa_to_ptr(HPA(*reg64(VTD_QUEUE_ADDRESS) + *reg64(QUEUE_HEAD)));
        u32 type = descriptor[0] & 15;
        descriptors[type]++;
        if (type == 1)
            note("c");
        if (type == 2)
            note("t");
        if (type == 5)
            *(u32 *)hpa_to_ptr(HPA(descriptor[1])) = (u32)(descriptor[0] >> 32);
        *reg64(QUEUE_HEAD) = (*reg64(QUEUE_HEAD) + 16) % PAGE_SIZE;
    }
}

/* Time passes only while somebody waits; then the unit works. */
u64 tsc_now(void)
{
    fake_time_us += 10;
    if (!dead) {
        take_command();
        take_descriptors();
        *reg(VTD_PROTECTED_MEMORY) &= *reg(VTD_PROTECTED_MEMORY) >> 31 ? ~0u : ~1u;
    }
    return tsc_from_us(fake_time_us);
}

void *paging_map_device(hpa_t at, u64 size)
{
    assert_int_equal(at.v, UNIT_BASE);
    assert_int_equal(size, sizeof(registers));
    return registers;
}

static void add_unit(void)
{
    const u8 unit[] = {0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0};

    memcpy(dmar + dmar_size, unit, sizeof(unit));
    dmar_size += sizeof(unit);
    memcpy(dmar + 4, &dmar_size, sizeof(dmar_size));
}

static int setup(void **state)
{
    fake_frames_create(MIB(16), MIB(4));
    memset(registers, 0, sizeof(registers));
    memset(dmar, 0, sizeof(dmar));
    memset(descriptors, 0, sizeof(descriptors));
    memset(&iommu_unit, 0, sizeof(iommu_unit));
    *reg64(VTD_CAPABILITY) = CAPABILITY;
    *reg64(VTD_EXTENDED) = EXTENDED;
    memcpy(dmar, "DMAR", 4);
    dmar[36] = 47;
    dmar[37] = 1;
    dmar_size = 48;
    memcpy(dmar + 4, &dmar_size, sizeof(dmar_size));
    dead = queue_broken = false;
    order[0] = '\0';
    pci_device_count = 1;
    return 0;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static status_t init(void)
{
    return iommu_init(dmar, dmar_size, 0xf2, 1);
}

/* ---- tests ---- */

static void switched_on_in_order(void **state)
{
    add_unit();
    assert_int_equal(init(), OK);
    assert_true(iommu_present() && iommu_unit.remaps_interrupts);
    /* Queue, root pointer, contexts and translations forgotten, and only then translation; interrupts after their
     * table. */
    assert_string_equal(order, "QRctTIE");
    assert_int_equal(descriptors[4], 1);
    const struct vtd_entry *root = hpa_to_ptr(HPA(*reg64(VTD_ROOT_TABLE)));
    assert_int_equal(root[0].low & 0xfff, 1); /* bus 0 has a device */
    assert_int_equal(root[1].low, 0);
    assert_int_equal(*reg(VTD_STATUS) & VTD_COMPATIBILITY, 0);
    assert_int_equal(*reg(VTD_FAULT_DATA), 0xf2);
    assert_int_equal(iommu_unit.address_bits, 48);
    assert_string_equal(iommu_description(),
                        "VT-d at 0xfed90000, 48-bit, 2M+1G pages, interrupt remapping, 256 domains");
}

static void least_unit(void **state)
{
    add_unit();
    *reg64(VTD_CAPABILITY) = (CAPABILITY & ~(0x3full << 16 | 3ull << 34)) | 37ull << 16;
    dmar[37] = 0; /* and firmware says that interrupts are not to be remapped */
    assert_int_equal(init(), OK);
    assert_int_equal(iommu_unit.address_bits, 38); /* fewer than the tables have */
    assert_string_equal(order, "QRctT");
    assert_string_equal(iommu_description(),
                        "VT-d at 0xfed90000, 38-bit, 4K only pages, no interrupt remapping, 256 domains");
}

static void firmware_left_it_on(void **state)
{
    add_unit();
    *reg64(VTD_CAPABILITY) |= 1ull << 5; /* it has the low region */
    *reg(VTD_PROTECTED_MEMORY) = 1u << 31 | 1u;
    *reg(VTD_STATUS) = *reg(VTD_COMMAND) = VTD_TRANSLATION | VTD_REMAP_INTERRUPTS | VTD_QUEUE | VTD_COMPATIBILITY;
    assert_int_equal(init(), OK);
    assert_string_equal(order, "---QRctTIE");
    assert_int_equal(*reg(VTD_STATUS) & VTD_COMPATIBILITY, 0);
    assert_int_equal(*reg(VTD_PROTECTED_MEMORY), 0);
}

/* Everything that the code relies on is asked for. */
static void unfit_units(void **state)
{
    const u64 unfit[] = {CAPABILITY & ~CAP_LEVELS_4, CAPABILITY & ~CAP_PAGE_SELECTIVE,
                         CAPABILITY | CAP_WRITE_BUFFER, CAPABILITY & ~7ull /* 16 domains */};

    add_unit();
    for (u32 i = 0; i < ARRAY_SIZE(unfit); i++) {
        *reg64(VTD_CAPABILITY) = unfit[i];
        assert_int_equal(init(), ERR_UNSUPPORTED);
        assert_false(iommu_present());
    }
    *reg64(VTD_CAPABILITY) = CAPABILITY;
    *reg64(VTD_EXTENDED) = EXTENDED & ~ECAP_QUEUE;
    assert_int_equal(init(), ERR_UNSUPPORTED);
    memset(registers, 0xff, sizeof(registers)); /* nothing there */
    assert_int_equal(init(), ERR_UNSUPPORTED);
    assert_false(iommu_present());
    assert_string_equal(order, ""); /* and nothing was switched */
}

static void refused(void **state)
{
    assert_int_equal(iommu_init(NULL, 0, 0xf2, 1), ERR_NOT_FOUND);
    assert_string_equal(iommu_description(), "none");
    assert_int_equal(init(), ERR_NOT_FOUND); /* a table without units */
    add_unit();
    assert_int_equal(iommu_init(dmar, dmar_size, 0xf2, 255), ERR_RANGE);
    assert_int_equal(iommu_init(dmar, dmar_size - 1, 0xf2, 1), ERR_FORMAT);
    add_unit();
    assert_int_equal(init(), ERR_UNSUPPORTED); /* two */
    assert_false(iommu_present());
}

static void queue_wraps(void **state)
{
    add_unit();
    assert_int_equal(init(), OK);
    u32 before = descriptors[2], waits = descriptors[5];
    for (u32 i = 0; i < 1000; i++) {
        unit_invalidate(vtd_invalidate_iotlb(VTD_ONE, 1, IOVA(i * PAGE_SIZE), 0, CAPABILITY));
        assert_int_equal(descriptors[2] - before, i + 1); /* done on return */
        assert_int_equal(descriptors[5] - waits, i + 1);
    }
    assert_int_equal(*reg64(QUEUE_HEAD), *reg64(VTD_QUEUE_TAIL));
}

static void dead_unit_is_a_panic(void **state)
{
    add_unit();
    assert_int_equal(init(), OK);
    queue_broken = true;
    assert_true(PANICS(unit_invalidate(vtd_invalidate_interrupts())));
    assert_non_null(strstr(fake_panic_text, "0xfed90000"));
    dead = true;
    u64 start = fake_time_us;
    assert_true(PANICS(unit_command(VTD_TRANSLATION, false)));
    assert_true(fake_time_us - start >= 1000000 && fake_time_us - start < 1100000);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(switched_on_in_order), TEST(least_unit), TEST(firmware_left_it_on),
        TEST(unfit_units),          TEST(refused),      TEST(queue_wraps),
        TEST(dead_unit_is_a_panic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
