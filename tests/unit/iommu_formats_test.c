/* What the remapping unit reads: each structure against the bits of the VT-d specification's figures, written out. */
#include "hv/iommu/formats.h"
#include "shared/x86/apic.h"
#include "tests/unit/unit.h"

#define DRAINS (3ull << 54) /* capability: drain reads and writes */

static void expect(struct vtd_entry entry, u64 high, u64 low)
{
    assert_int_equal(entry.low, low);
    assert_int_equal(entry.high, high);
}

static void tables(void **state)
{
    expect(vtd_root_entry(HPA(0x12345000)), 0, 0x12345001);
    /* address width 2 = 4 levels; domain in bits 87:72; translation type 0 */
    expect(vtd_context_entry(HPA(0x12345000), 0xabcd), 0xabcd02, 0x12345001);
    expect(vtd_context_entry(HPA(0x12345000), 1), 0x102, 0x12345001);
    struct vtd_entry entry = vtd_context_entry(HPA(0x12345000), 0xabcd);
    assert_int_equal(vtd_context_domain(&entry), 0xabcd);
}

static void interrupt_entries(void **state)
{
    /* present; vector 23:16; APIC id 47:40; source id 79:64; SVT 83:82 = 1, SQ 81:80 = 0 */
    expect(vtd_interrupt_entry(0x00fa, 0x41, 3, false), 0x400fa, 0x030000410001);
    expect(vtd_interrupt_entry(0xffff, 0xff, 0xfe, false), 0x4ffff, 0xfe0000ff0001);
    expect(vtd_interrupt_entry(0xff00, 0x41, 3, true), 0x4ff00, 0x030000410011); /* trigger mode: bit 4 */
}

static void messages(void **state)
{
    assert_int_equal(vtd_message_address(0), 0xfee00010);
    assert_int_equal(vtd_message_address(1), 0xfee00030);
    assert_int_equal(vtd_message_address(255), 0xfee01ff0);
    assert_int_equal(vtd_message_address(0x7fff), 0xfeeffff0);
    assert_int_equal(vtd_message_address(0x8000), 0xfee00014); /* handle bit 15 is address bit 2 */
    assert_int_equal(msi_address(3), 0xfee03000);
    /* redirection entries: index 63:49 and bit 11, format 48 */
    assert_int_equal(vtd_line_entry(1), 0x0003000000000000);
    assert_int_equal(vtd_line_entry(0x7fff), 0xffff000000000000);
    assert_int_equal(vtd_line_entry(0x8000), 0x0001000000000800);
}

static void invalidations(void **state)
{
    const iova_t none = IOVA(0);

    expect(vtd_invalidate_contexts(VTD_ALL, 0, 0), 0, 0x11);
    expect(vtd_invalidate_contexts(VTD_ONE, 0xabcd, 0x00fa), 0, 0x00faabcd0031);
    expect(vtd_invalidate_iotlb(VTD_ALL, 0, none, 0, 0), 0, 0x12);
    expect(vtd_invalidate_iotlb(VTD_ALL, 0, none, 0, DRAINS), 0, 0xd2);
    expect(vtd_invalidate_iotlb(VTD_DOMAIN, 0xabcd, none, 0, DRAINS | 1ull << 56), 0, 0xabcd00e2);
    expect(vtd_invalidate_iotlb(VTD_DOMAIN, 0xabcd, none, 0, 1ull << 54), 0, 0xabcd0062); /* writes only */
    expect(vtd_invalidate_iotlb(VTD_ONE, 2, IOVA(0x1000203000), 0, DRAINS), 0x1000203000, 0x000200f2);
    expect(vtd_invalidate_iotlb(VTD_ONE, 2, IOVA(0x1000200000), 9, 0), 0x1000200009, 0x00020032);
    expect(vtd_invalidate_interrupts(), 0, 0x04);
    expect(vtd_wait(HPA(0x5000), 0xdeadbeef), 0x5000, 0xdeadbeef00000065);
}

static void faults(void **state)
{
    struct iommu_fault fault = vtd_fault_decode(0x1000203abc, 0xc0000006000000fa); /* F, T1: a read */

    assert_int_equal(fault.source, 0xfa);
    assert_int_equal(fault.address, 0x1000203000);
    assert_int_equal(fault.reason, 6);
    assert_false(fault.write || fault.interrupt);
    fault = vtd_fault_decode(0x1000, 0x80000005ffff00fa & ~(1ull << 28)); /* process id bits set */
    assert_int_equal(fault.source, 0xfa);
    assert_int_equal(fault.reason, 5);
    assert_true(fault.write);
    fault = vtd_fault_decode(0, 0xc000000510000018); /* T1 and T2: an atomic operation */
    assert_true(fault.write);
    fault = vtd_fault_decode(0x0007000000000000, 0x8000002600000018);
    assert_true(fault.interrupt);
    assert_false(fault.write);
    assert_int_equal(fault.reason, 0x26);
    assert_int_equal(fault.address >> 48, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),   cmocka_unit_test(interrupt_entries),
        cmocka_unit_test(messages), cmocka_unit_test(invalidations),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
