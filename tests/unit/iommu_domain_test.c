/* SOURCES: hv/iommu/domain.c hv/iommu/interrupt_remap.c hv/iommu/fault.c hv/core/page_table.c hv/core/frames.c */
/* INCLUDE_FAKES */
/* Domains, interrupt entries and fault records above a unit that only records what it is told. */
#include "hv/iommu/unit.h"
#include "hv/pci/pci.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#define RAM_BASE MIB(16)
#define CAPABILITY                                                                                                     \
    (2ull | CAP_LEVELS_4 | 47ull << 16 | 3ull << 34 | CAP_PAGE_SELECTIVE | 18ull << 48 | 3ull << 54 | 0x22ull << 24)
#define RW (PAGE_READ | PAGE_WRITE)
#define RECORDS 0x220u
#define STATUS_OVERFLOW 1u
#define STATUS_PENDING 2u

struct iommu_unit iommu_unit;
struct pci_device pci_devices[PCI_MAX_DEVICES];
u32 pci_device_count;

/* ---- the unit ---- */

static struct vtd_entry seen[256]; /* invalidations */
static u32 seen_count;
static struct vtd_entry first_seen[2]; /* those of domain_init() */
static u32 published;
static u32 registers[0x400];

void unit_invalidate(struct vtd_entry descriptor)
{
    if (seen_count < ARRAY_SIZE(seen))
        seen[seen_count++] = descriptor;
}

void unit_publish(const void *at, u64 size)
{
    assert_non_null(at);
    published += size > 0;
}

void unit_command(u32 bit, bool on)
{
    registers[VTD_STATUS / 4] = on ? registers[VTD_STATUS / 4] | bit : registers[VTD_STATUS / 4] & ~bit;
}

static void update_fault_status(void)
{
    registers[VTD_FAULT_STATUS / 4] &= ~STATUS_PENDING;
    for (u32 i = 0; i < CAP_FAULT_COUNT(iommu_unit.capability); i++)
        if (registers[RECORDS / 4 + i * 4 + 3] >> 31)
            registers[VTD_FAULT_STATUS / 4] |= STATUS_PENDING;
}

u32 unit_read32(u32 offset)
{
    update_fault_status();
    return registers[offset / 4];
}

u64 unit_read64(u32 offset)
{
    return registers[offset / 4] | (u64)registers[offset / 4 + 1] << 32;
}

void unit_write32(u32 offset, u32 value)
{
    if (offset == VTD_FAULT_STATUS)
        registers[offset / 4] &= ~(value & STATUS_OVERFLOW);
    else if (offset >= RECORDS)
        registers[offset / 4] &= ~(value & 1u << 31);
    else
        registers[offset / 4] = value;
}

void unit_write64(u32 offset, u64 value)
{
    registers[offset / 4] = (u32)value;
    registers[offset / 4 + 1] = (u32)(value >> 32);
}

static int setup_with(u64 capability, u64 extended)
{
    memset(registers, 0, sizeof(registers));
    fake_frames_create(RAM_BASE, MIB(4));
    iommu_unit = (struct iommu_unit){
        .present = true, .capability = capability, .extended = extended, .address_bits = CAP_ADDRESS_BITS(capability)};
    pci_device_count = 2;
    pci_devices[0].bdf = 0x0018;
    pci_devices[1].bdf = 0x0300;
    published = seen_count = 0;
    domain_init();
    memcpy(first_seen, seen, sizeof(first_seen));
    seen_count = 0;
    return 0;
}

static int setup(void **state)
{
    return setup_with(CAPABILITY, ECAP_COHERENT);
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static struct iommu_domain *domain(void)
{
    struct iommu_domain *domain = NULL;

    assert_int_equal(iommu_domain_create(&domain), OK);
    return domain;
}

static const struct vtd_entry *context(u16 bdf)
{
    const struct vtd_entry *root = hpa_to_ptr(HPA(unit_read64(VTD_ROOT_TABLE)));

    if (!(root[bdf >> 8].low & 1))
        return NULL;
    return (const struct vtd_entry *)hpa_to_ptr(HPA(root[bdf >> 8].low & ~PAGE_MASK)) + (bdf & 0xff);
}

static struct vtd_entry invalidate_domain(u16 id)
{
    return vtd_invalidate_iotlb(VTD_DOMAIN, id, IOVA(0), 0, CAPABILITY);
}

/* ---- who is where ---- */

static void root_table_in_force(void **state)
{
    assert_true(registers[VTD_STATUS / 4] & VTD_SET_ROOT);
    assert_int_equal(first_seen[0].low, vtd_invalidate_contexts(VTD_ALL, 0, 0).low);
    assert_int_equal(first_seen[1].low, vtd_invalidate_iotlb(VTD_ALL, 0, IOVA(0), 0, CAPABILITY).low);
}

static void all_start_blocked(void **state)
{
    for (u32 devfn = 0; devfn < 256; devfn++) {
        const struct vtd_entry *entry = context((u16)devfn);
        assert_int_equal(entry->low & 0xfff, 1);
        assert_int_equal(entry->high, 0x102);
        const u64 *table = hpa_to_ptr(HPA(entry->low & ~PAGE_MASK));
        for (u32 i = 0; i < 512; i++)
            assert_int_equal(table[i], 0);
    }
    assert_non_null(context(0x0300));
    assert_null(context(0x0100)); /* a bus without devices: no root entry */
    assert_true(iommu_is_blocked(0x0018) && iommu_is_blocked(0x0100));
}

static void attach_and_block(void **state)
{
    struct iommu_domain *d = domain();

    assert_int_equal(iommu_attach(0x0018, d), OK);
    assert_false(iommu_is_blocked(0x0018));
    assert_true(iommu_is_blocked(0x0019));
    assert_int_equal(context(0x0018)->low, d->table.root.v | 1);
    assert_int_equal(context(0x0018)->high, (u64)d->id << 8 | 2);
    /* Contexts first, then the IOTLB, both of the domain that the device leaves: the blocking one. */
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].low, vtd_invalidate_contexts(VTD_ONE, 1, 0x0018).low);
    assert_int_equal(seen[1].low, invalidate_domain(1).low);
    seen_count = 0;
    iommu_block(0x0018);
    assert_true(iommu_is_blocked(0x0018));
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].low, vtd_invalidate_contexts(VTD_ONE, d->id, 0x0018).low);
    assert_int_equal(seen[1].low, invalidate_domain(d->id).low);
}

static void bus_without_devices(void **state)
{
    struct iommu_domain *d = domain();

    iommu_block(0x0520); /* blocked already: nothing to do */
    assert_int_equal(iommu_attach(0x0520, d), ERR_STATE);
    assert_int_equal(seen_count, 0);
    assert_true(iommu_is_blocked(0x0520));
}

static void without_unit(void **state)
{
    struct iommu_domain *d = domain();
    bool overflow = true;

    iommu_unit.present = false;
    assert_int_equal(iommu_domain_create(&d), ERR_STATE);
    assert_int_equal(iommu_attach(0x0018, d), ERR_STATE);
    iommu_block(0x0018);
    assert_int_equal(seen_count, 0);
    assert_false(iommu_is_blocked(0x0018));
    assert_int_equal(iommu_drain_faults(NULL, &overflow), 0);
    assert_false(overflow);
}

static void domains_run_out(void **state)
{
    struct iommu_domain *d;
    u32 ids = 1; /* bit 0: never given; the blocking domain has 1 */

    for (u32 i = 1; i < IOMMU_MAX_DOMAINS; i++) {
        assert_int_equal(iommu_domain_create(&d), OK);
        assert_true(d->id > 1);
        assert_false(ids >> (d->id - 1) & 2);
        ids |= 2u << (d->id - 1);
    }
    assert_int_equal(iommu_domain_create(&d), ERR_NO_SPACE);
}

/* ---- mappings and invalidations ---- */

static void ranges(void **state)
{
    struct iommu_domain *d = domain();

    assert_int_equal(iommu_map(d, IOVA(1ull << 48), HPA(0), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(iommu_map(d, IOVA(~PAGE_MASK), HPA(0), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(iommu_map(d, IOVA(0xfee00000), HPA(0), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(iommu_map(d, IOVA(0), HPA(0), GIB(4), RW), ERR_RANGE); /* covers the interrupts */
    assert_int_equal(iommu_map(d, IOVA(0xfeeff000), HPA(0), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(iommu_map(d, IOVA(0xfef00000), HPA(0), PAGE_SIZE, RW), OK);
    assert_int_equal(iommu_map(d, IOVA(0xfedff000), HPA(0), PAGE_SIZE, RW), OK);
    assert_int_equal(iommu_map(d, IOVA((1ull << 48) - PAGE_SIZE), HPA(0), PAGE_SIZE, RW), OK);
    iommu_unit.address_bits = 39;
    assert_int_equal(iommu_map(d, IOVA(1ull << 39), HPA(0), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(iommu_map(d, IOVA(0), HPA(0), PAGE_SIZE, 0), ERR_INVALID);
    assert_int_equal(iommu_protect(d, IOVA(0xfef00000), PAGE_UNCACHED), ERR_INVALID);
    assert_int_equal(seen_count, 0);
}

/* The entry for a low address with a table on each level; 0: none. */
static u64 leaf(const struct iommu_domain *d, u64 at)
{
    u64 entry = d->table.root.v;

    for (u32 shift = 39; shift >= 12; shift -= 9)
        entry = ((const u64 *)hpa_to_ptr(HPA(entry & ~PAGE_MASK)))[at >> shift & 511];
    return entry;
}

static void mappings_are_counted(void **state)
{
    struct iommu_domain *d = domain();

    assert_int_equal(iommu_map(d, IOVA(0x1000), HPA(0x5000), PAGE_SIZE, RW), OK);
    assert_int_equal(iommu_map(d, IOVA(0x1000), HPA(0x5000), PAGE_SIZE, RW), ERR_EXISTS);
    assert_int_equal(iommu_protect(d, IOVA(0x1000), PAGE_READ), OK);
    assert_int_equal(leaf(d, 0x1000), 0x5001); /* read */
    assert_int_equal(iommu_unmap(d, IOVA(0x1000), PAGE_SIZE), OK);
    assert_int_equal(leaf(d, 0x1000), 0);
    iommu_flush_pages(d, IOVA(0x1000), 1);
    assert_int_equal(d->maps, 1);
    assert_int_equal(d->unmaps, 1);
    assert_int_equal(d->flushes, 1);
}

/* A unit that caches absent entries must hear of new ones. */
static void caching_mode(void **state)
{
    fake_memory_destroy();
    setup_with(CAPABILITY | CAP_CACHING_MODE, ECAP_COHERENT);
    struct iommu_domain *d = domain();
    assert_int_equal(iommu_map(d, IOVA(0x1000), HPA(0x5000), PAGE_SIZE, RW), OK);
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].high, 0x1000);
}

static void tables_are_written_back_without_snooping(void **state)
{
    struct iommu_domain *d = domain();
    u32 before = published;

    assert_int_equal(iommu_map(d, IOVA(0x1000), HPA(0x5000), PAGE_SIZE, RW), OK);
    assert_int_equal(published, before);
    fake_memory_destroy();
    setup_with(CAPABILITY, 0);
    d = domain();
    before = published;
    assert_int_equal(iommu_map(d, IOVA(0x1000), HPA(0x5000), PAGE_SIZE, RW), OK);
    assert_true(published >= before + 4); /* three tables and the leaf */
}

static void superpages_as_the_unit_has_them(void **state)
{
    struct iommu_domain *d = domain();
    u64 before = frames_free_count;

    assert_int_equal(iommu_map(d, IOVA(GIB(1)), HPA(GIB(2)), GIB(1), RW), OK);
    assert_int_equal(frames_free_count, before - 1); /* below the root one table: a 1 GiB leaf */
    fake_memory_destroy();
    setup_with(CAPABILITY & ~(2ull << 34), ECAP_COHERENT);
    d = domain();
    before = frames_free_count;
    assert_int_equal(iommu_map(d, IOVA(GIB(1)), HPA(GIB(2)), GIB(1), RW), OK);
    assert_int_equal(frames_free_count, before - 2); /* 2 MiB leaves only */
}

/* The unit was told one block that holds [first, first + pages), aligned to its size and the smallest such, or the
 * domain. */
static void check_cover(const struct iommu_domain *d, u64 first, u64 pages, u32 largest_order)
{
    u64 order = 0;

    while (first / (1ull << order) != (first + pages - 1) / (1ull << order))
        order++;
    assert_int_equal(seen_count, 1);
    if (order > largest_order) {
        assert_int_equal(seen[0].low, invalidate_domain(d->id).low);
        return;
    }
    assert_int_equal(seen[0].low, vtd_invalidate_iotlb(VTD_ONE, d->id, IOVA(0), 0, CAPABILITY).low);
    assert_int_equal(seen[0].high & 0x3f, order);
    u64 block = seen[0].high >> 12;
    assert_int_equal(block % (1ull << order), 0);
    assert_true(block <= first && block + (1ull << order) >= first + pages);
}

static void flushes_cover(void **state)
{
    struct iommu_domain *d = domain();
    struct random random = random_start("flushes_cover");

    for (u32 i = 0; i < 20000; i++) {
        u64 pages = 1 + (random_bits(&random) & 0xfffff);
        u64 first = random_bits(&random) & 0xfffffff;
        seen_count = 0;
        iommu_flush_pages(d, IOVA(first * PAGE_SIZE), pages);
        check_cover(d, first, pages, 18);
    }
    seen_count = 0;
    iommu_flush_pages(d, IOVA(0), 1ull << 18);
    check_cover(d, 0, 1ull << 18, 18);
    seen_count = 0;
    iommu_flush_pages(d, IOVA(0x7ff000), 2);
    assert_int_equal(seen[0].high, 12); /* over a border: all that it divides */
    seen_count = 0;
    iommu_flush_pages(d, IOVA(0), (1ull << 18) + 1);
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].low, invalidate_domain(d->id).low);
}

/* ---- interrupts ---- */

static void plain_messages_without_remapping(void **state)
{
    u64 address = 0;
    u32 data = 0;

    assert_false(iommu_unit.remaps_interrupts);
    assert_int_equal(iommu_message_create(0x0018, 0x41, 2, &address, &data), OK);
    assert_int_equal(address, 0xfee02000);
    assert_int_equal(data, 0x41);
    assert_int_equal(iommu_message_create(0x0018, 15, 2, &address, &data), ERR_RANGE);
    assert_int_equal(iommu_message_create(0x0018, 0x41, 0xff, &address, &data), ERR_RANGE); /* all CPUs */
    assert_int_equal(iommu_message_create(0x0018, 0x41, 256, &address, &data), ERR_RANGE);
}

static const struct dmar_info ioapics = {.ioapic_count = 2, .ioapic = {{0, 0xff00}, {8, 0xf0f8}}};

static void remapped_messages(void **state)
{
    u64 address = 0;
    u32 data = 1;

    interrupt_remap_init(&ioapics);
    assert_int_equal(registers[VTD_STATUS / 4], VTD_SET_ROOT | VTD_SET_INTERRUPT_TABLE | VTD_REMAP_INTERRUPTS);
    assert_int_equal(registers[VTD_INTERRUPT_TABLE / 4] & 0xfff, 7); /* 256 entries, 8-bit APIC ids */
    const struct vtd_entry *table = hpa_to_ptr(HPA(PAGE_DOWN(unit_read64(VTD_INTERRUPT_TABLE))));
    for (u32 i = 0; i < 256; i++) {
        seen_count = 0;
        assert_int_equal(iommu_message_create(0x0018, 0x41, 2, &address, &data), OK);
        assert_int_equal(address, 0xfee00010 + i * 0x20);
        assert_int_equal(data, 0);
        assert_int_equal(table[i].low, vtd_interrupt_entry(0x0018, 0x41, 2, false).low);
        assert_int_equal(table[i].high, vtd_interrupt_entry(0x0018, 0x41, 2, false).high);
        assert_int_equal(seen_count, 1);
        assert_int_equal(seen[0].low, vtd_invalidate_interrupts().low);
    }
    assert_int_equal(iommu_message_create(0x0018, 0x41, 2, &address, &data), ERR_NO_SPACE);
}

static void remapped_lines(void **state)
{
    u16 index = 0;

    assert_int_equal(iommu_line_create(0, 0x41, 2, false, &index), ERR_STATE);
    interrupt_remap_init(&ioapics);
    const struct vtd_entry *table = hpa_to_ptr(HPA(PAGE_DOWN(unit_read64(VTD_INTERRUPT_TABLE))));
    assert_int_equal(iommu_line_create(0, 0x41, 2, false, &index), OK);
    assert_int_equal(iommu_line_create(8, 0x42, 3, true, &index), OK);
    assert_int_equal(index, 1);
    struct vtd_entry entry = vtd_interrupt_entry(0xf0f8, 0x42, 3, true);
    for (u32 i = 0; i < 2; i++) { /* the unit hears of each change, and of nothing else */
        seen_count = 0;
        assert_int_equal(table[1].low, entry.low & ~VTD_PRESENT);
        iommu_interrupt_open(1, false);
        assert_int_equal(seen_count, 0);
        iommu_interrupt_open(1, true);
        assert_int_equal(table[1].low, entry.low);
        assert_int_equal(table[1].high, entry.high);
        iommu_interrupt_open(1, true);
        assert_int_equal(seen_count, 1);
        iommu_interrupt_open(1, false);
        assert_int_equal(seen_count, 2);
        assert_int_equal(seen[1].low, vtd_invalidate_interrupts().low);
    }
    assert_int_equal(table[0].low & VTD_PRESENT, 0);
    assert_int_equal(iommu_line_create(1, 0x41, 2, false, &index), ERR_NOT_FOUND);
    assert_int_equal(iommu_line_create(0, 15, 2, false, &index), ERR_RANGE);
    assert_int_equal(iommu_line_create(0, 0x41, 0xff, false, &index), ERR_RANGE);
    while (index < 255)
        assert_int_equal(iommu_line_create(0, 0x41, 2, false, &index), OK);
    assert_int_equal(iommu_line_create(0, 0x41, 2, false, &index), ERR_NO_SPACE);
}

static void unit_that_lets_plain_messages_pass(void **state)
{
    registers[VTD_STATUS / 4] = VTD_COMPATIBILITY;
    assert_true(PANICS(interrupt_remap_init(&ioapics)));
}

/* ---- faults ---- */

static struct iommu_fault faults[1024];
static u32 fault_count;
static u32 refill; /* so many more faults come while they are read */

static void record(u32 index, u64 low, u64 high)
{
    const u64 words[] = {low, high};

    memcpy(&registers[RECORDS / 4 + index * 4], words, sizeof(words));
}

static void each(const struct iommu_fault *fault)
{
    faults[fault_count++] = *fault;
    if (refill > 0) {
        refill--;
        record(0, 0x9000, 0x8000000500000018);
    }
}

static u32 drain(bool *overflow)
{
    fault_count = 0;
    return iommu_drain_faults(each, overflow);
}

static void faults_are_read_oldest_first(void **state)
{
    bool overflow;

    iommu_unit.capability |= 3ull << 40; /* four records */
    record(3, 0x1000, 0xc000000600000018);
    record(0, 0x2000, 0x8000000500000300);
    registers[VTD_FAULT_STATUS / 4] = 3u << 8 | STATUS_OVERFLOW;
    assert_int_equal(drain(&overflow), 2);
    assert_true(overflow);
    assert_int_equal(faults[0].source, 0x0018);
    assert_int_equal(faults[0].address, 0x1000);
    assert_int_equal(faults[1].source, 0x0300);
    assert_true(faults[1].write);
    assert_int_equal(drain(&overflow), 0);
    assert_false(overflow);
}

static void faults_that_come_meanwhile(void **state)
{
    bool overflow;

    record(0, 0x1000, 0xc000000600000018);
    refill = 5;
    assert_int_equal(drain(&overflow), 6);
    assert_int_equal(drain(&overflow), 0);
    record(0, 0x1000, 0xc000000600000018);
    refill = ~0u; /* a storm */
    assert_int_equal(drain(&overflow), IOMMU_DRAIN_MAX);
    refill = 0;
    assert_int_equal(drain(&overflow), 1);
}

static void fault_interrupt(void **state)
{
    record(0, 0x1000, 0xc000000600000018); /* firmware's */
    registers[VTD_FAULT_STATUS / 4] = STATUS_OVERFLOW;
    fault_init(0xf2, 3);
    assert_int_equal(registers[VTD_FAULT_DATA / 4], 0xf2);
    assert_int_equal(registers[VTD_FAULT_ADDRESS / 4], 0xfee03000);
    assert_int_equal(registers[VTD_FAULT_CONTROL / 4], 0);
    assert_int_equal(unit_read32(VTD_FAULT_STATUS), 0);
}

static void reasons_have_texts(void **state)
{
    for (u32 i = 0; i < 256; i++)
        assert_non_null(iommu_reason_text((u8)i));
    assert_string_equal(iommu_reason_text(5), "write without permission");
    assert_string_equal(iommu_reason_text(0), "unknown reason");
    assert_string_equal(iommu_reason_text(0x26), "interrupt entry of another source id");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(root_table_in_force),
        TEST(all_start_blocked),
        TEST(attach_and_block),
        TEST(bus_without_devices),
        TEST(without_unit),
        TEST(domains_run_out),
        TEST(ranges),
        TEST(mappings_are_counted),
        TEST(caching_mode),
        TEST(tables_are_written_back_without_snooping),
        TEST(superpages_as_the_unit_has_them),
        TEST(flushes_cover),
        TEST(plain_messages_without_remapping),
        TEST(remapped_messages),
        TEST(remapped_lines),
        TEST(unit_that_lets_plain_messages_pass),
        TEST(faults_are_read_oldest_first),
        TEST(faults_that_come_meanwhile),
        TEST(fault_interrupt),
        TEST(reasons_have_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
