/*
 * The guest's model-specific registers beside those that live in the vCPU's saved state: APIC, paravirtual clock and
 * EOI, and a list of constants that Linux reads without asking CPUID first. Any other index is #GP.
 */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"

#define MSR_TSC 0x10u
#define MSR_SYSTEM_TIME 0x4b564d01u

/* SDM 3A 10.12.1: bootstrap CPU, x2APIC mode, enabled. It stays so: any other value is #GP. */
#define APIC_BASE_VALUE (PLATFORM_LAPIC_BASE | 1u << 8 | 1u << 10 | 1u << 11)

static const struct constant_msr {
    u32 index;
    bool writable; /* writes are dropped; else they are #GP */
    u64 value;
} constants[] = {
    {0x17, false, 0},             /* IA32_PLATFORM_ID */
    {0x3a, false, 1},             /* IA32_FEATURE_CONTROL: locked, no VMX */
    {0x8b, true, 0x100000000ull}, /* IA32_BIOS_SIGN_ID: microcode revision 1 */
    {0xfe, false, 0},             /* IA32_MTRRCAP: no range registers; then all memory has the default type */
    {0x1a0, true, 1},             /* IA32_MISC_ENABLE: fast strings */
    {0x1d9, true, 0},             /* IA32_DEBUGCTL */
    {0x2ff, true, 0x806},         /* IA32_MTRR_DEF_TYPE: enabled, write-back */
    {0x4b564d00, true, 0},        /* KVM's wall clock: the date is not known, its place stays as the guest made it */
    {0xc0010010, true, 0},        /* SYSCFG: no memory encryption */
    {0xc0010015, true, 1u << 24}, /* HWCR: the TSC counts at the P0 frequency */
    {0xc001001f, true, 0},        /* NB_CFG */
    {0xc0010055, true, 0},        /* interrupt pending message: off */
    {0xc0011029, true, 1u << 1},  /* DE_CFG: LFENCE serialises */
};

static bool constant_msr(u32 index, bool write, u64 *value)
{
    for (u32 i = 0; i < ARRAY_SIZE(constants); i++) {
        if (constants[i].index != index)
            continue;
        if (!write)
            *value = constants[i].value;
        return !write || constants[i].writable;
    }
    return false;
}

bool platform_msr(struct vm *vm, u32 index, bool write, u64 *value)
{
    switch (index) {
    case MSR_TSC_DEADLINE:
    case MSR_X2APIC ... MSR_X2APIC_LAST:
        return lapic_msr(vm, index, write, value);
    case MSR_APIC_BASE:
        if (!write)
            *value = APIC_BASE_VALUE;
        return *value == APIC_BASE_VALUE;
    case MSR_TSC: /* read-only here: one TSC for the whole machine */
        if (!write)
            *value = tsc_now();
        return !write;
    case MSR_SYSTEM_TIME: /* KVM's are write-only here: each names a place in the guest's memory */
        return write && clock_set_system_time(vm, *value);
    case MSR_KVM_PV_EOI:
        return write && pv_eoi_set(vm, *value);
    default:
        return constant_msr(index, write, value);
    }
}
