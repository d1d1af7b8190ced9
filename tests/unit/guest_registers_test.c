/* Guests' writes to EFER, PAT, CR4 and the address MSRs: what reaches the vendor's structure, and what is #GP. */
/* SOURCES: hv/arch/x86/guest_registers.c */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "shared/lib/string.h"
#include "tests/unit/unit.h"

static u64 registers[GUEST_REGISTERS];
static struct vcpu vcpu;

static u64 read_register(struct vcpu *v, enum guest_register reg)
{
    return registers[reg];
}
static void write_register(struct vcpu *v, enum guest_register reg, u64 value)
{
    registers[reg] = value;
}
static const struct vcpu_vendor fake = {.name = "fake", .read = read_register, .write = write_register};
const struct vcpu_vendor *vendor = &fake;

static int long_mode(void **state)
{
    memset(registers, 0, sizeof(registers));
    registers[GUEST_CR0] = CR0_PE | CR0_PG;
    registers[GUEST_CR4] = CR4_PAE;
    registers[GUEST_EFER] = EFER_LME | EFER_LMA | EFER_NXE;
    vcpu.flush_tlb = false;
    return 0;
}

static bool wrmsr(u32 index, u64 value)
{
    bool known;
    bool ok = vcpu_msr(&vcpu, index, true, &value, &known);
    assert_true(known);
    return ok;
}
static u64 rdmsr(u32 index)
{
    bool known;
    u64 value = 0;
    assert_true(vcpu_msr(&vcpu, index, false, &value, &known));
    assert_true(known);
    return value;
}

#define HOLE (1ull << 47) /* the first address that is not canonical */
#define UPPER 0xffff800000000000ull

static void addresses_must_be_canonical(void **state)
{
    static const u32 addresses[] = {MSR_LSTAR,   MSR_CSTAR,        MSR_KERNEL_GS_BASE, MSR_FS_BASE,
                                    MSR_GS_BASE, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};

    for (u32 i = 0; i < ARRAY_SIZE(addresses); i++) {
        assert_true(wrmsr(addresses[i], HOLE - 1));
        assert_true(wrmsr(addresses[i], UPPER + i));
        assert_false(wrmsr(addresses[i], HOLE));
        assert_false(wrmsr(addresses[i], UPPER - 1));
        assert_false(wrmsr(addresses[i], 1ull << 63));
        assert_true(rdmsr(addresses[i]) == UPPER + i);
    }
    for (u32 i = 0; i < ARRAY_SIZE(addresses); i++) /* each has its own place */
        assert_true(rdmsr(addresses[i]) == UPPER + i);
}

/* The hypervisor itself loads SFMASK on VMX: a value that WRMSR refuses there would be its own #GP. */
static void reserved_halves(void **state)
{
    assert_true(wrmsr(MSR_SFMASK, 0xffffffff));
    assert_false(wrmsr(MSR_SFMASK, 1ull << 32));
    assert_true(wrmsr(MSR_SYSENTER_CS, 0xffff));
    assert_false(wrmsr(MSR_SYSENTER_CS, 1ull << 63));
    assert_true(wrmsr(MSR_STAR, ~0ull));
    assert_true(rdmsr(MSR_STAR) == ~0ull);
    assert_int_equal(rdmsr(MSR_SFMASK), 0xffffffff);
}

static void efer_rules(void **state)
{
    assert_true(wrmsr(MSR_EFER, EFER_SCE | EFER_LME));
    assert_true(vcpu.flush_tlb);
    assert_int_equal(rdmsr(MSR_EFER), EFER_SCE | EFER_LME | EFER_LMA); /* LMA is the CPU's */
    assert_false(wrmsr(MSR_EFER, EFER_SCE));                           /* LME while paging is on */
    for (u32 bit = 0; bit < 64; bit++)
        if (!((EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE) >> bit & 1))
            assert_false(wrmsr(MSR_EFER, EFER_LME | 1ull << bit));
    registers[GUEST_CR0] = CR0_PE;
    registers[GUEST_EFER] = EFER_LME;
    assert_true(wrmsr(MSR_EFER, EFER_LMA)); /* written LMA does nothing */
    assert_int_equal(rdmsr(MSR_EFER), 0);
}

static void pat_holds_memory_types(void **state)
{
    for (u32 type = 0; type < 256; type++) {
        bool exists = type <= 1 || (type >= 4 && type <= 7);
        for (u32 i = 0; i < 8; i++)
            assert_int_equal(wrmsr(MSR_PAT, 0x0606060606060606ull ^ (u64)(type ^ 6) << 8 * i), exists);
    }
}

static void cr4_rules(void **state)
{
    u64 allowed = vcpu_cr4_allowed();

    assert_int_equal(allowed & CR4_VMXE, 0);
    for (u32 bit = 0; bit < 64; bit++) {
        u64 value = CR4_PAE | 1ull << bit;
        assert_int_equal(vcpu_cr4_write(&vcpu, value), (allowed & value) == value);
    }
    assert_true(vcpu_cr4_write(&vcpu, CR4_PAE | CR4_OSFXSR));
    assert_true(vcpu.flush_tlb);
    assert_int_equal(registers[GUEST_CR4], CR4_PAE | CR4_OSFXSR);
    assert_false(vcpu_cr4_write(&vcpu, CR4_OSFXSR)); /* long mode needs PAE */
    registers[GUEST_EFER] = 0;
    assert_true(vcpu_cr4_write(&vcpu, CR4_OSFXSR));
}

static void other_msrs_are_not_known(void **state)
{
    static const u32 others[] = {0, MSR_APIC_BASE, 0x1d9, 0x480, MSR_X2APIC, 0xc0000103, 0xffffffff};

    for (u32 i = 0; i < ARRAY_SIZE(others) * 2; i++) {
        bool known = true;
        u64 value = 0x1234;
        assert_false(vcpu_msr(&vcpu, others[i / 2], i & 1, &value, &known));
        assert_false(known);
        assert_int_equal(value, 0x1234);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(addresses_must_be_canonical, long_mode),
        cmocka_unit_test_setup(reserved_halves, long_mode),
        cmocka_unit_test_setup(efer_rules, long_mode),
        cmocka_unit_test_setup(pat_holds_memory_types, long_mode),
        cmocka_unit_test_setup(cr4_rules, long_mode),
        cmocka_unit_test_setup(other_msrs_are_not_known, long_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
