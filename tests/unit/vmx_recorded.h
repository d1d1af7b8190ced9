/*
 * Capability MSRs of five CPUs (SDM 3D appendix A), real and emulated, for the tests of what is computed from them.
 * Where each number is from stands above it.
 */
#pragma once

#include "hv/arch/x86/vmx/vmcs.h"

/* Recorded: read with RDMSR under Bochs 2.7, cpu model corei7_skylake_x. No monitor trap flag. */
static const struct vmx_capabilities recorded_bochs_skylake = {
    .msr = {[CAP_BASIC] = 0x00d810000000002b,
            [CAP_PIN] = 0x0000007f00000016,
            [CAP_PRIMARY] = 0xf7f9fffe0401e172,
            [CAP_EXIT] = 0x007fffff00036dff,
            [CAP_ENTRY] = 0x0000ffff000011ff,
            [CAP_MISC] = 0x00000000600401e0,
            [CAP_CR0_FIXED0] = 0x0000000080000021,
            [CAP_CR0_FIXED1] = 0x00000000ffffffff,
            [CAP_CR4_FIXED0] = 0x0000000000002000,
            [CAP_CR4_FIXED1] = 0x00000000003727ff,
            [CAP_VMCS_ENUM] = 0x0000000000000034,
            [CAP_SECONDARY] = 0x02177fff00000000,
            [CAP_EPT_VPID] = 0x00000f0106334141,
            [CAP_TRUE_PIN] = 0x0000007f00000016,
            [CAP_TRUE_PRIMARY] = 0xf7f9fffe04006172,
            [CAP_TRUE_EXIT] = 0x007fffff00036dfb,
            [CAP_TRUE_ENTRY] = 0x0000ffff000011fb},
    .physical_bits = 40,
};

/* Recorded: the same program, cpu model tigerlake. Exceptions with or without error code (BASIC bit 56), CET. */
static const struct vmx_capabilities recorded_bochs_tigerlake = {
    .msr = {[CAP_BASIC] = 0x01d8100000000004,
            [CAP_PIN] = 0x0000007f00000016,
            [CAP_PRIMARY] = 0xfff9fffe0401e172,
            [CAP_EXIT] = 0x107fffff00036dff,
            [CAP_ENTRY] = 0x0010ffff000011ff,
            [CAP_MISC] = 0x00000000600401e0,
            [CAP_CR0_FIXED0] = 0x0000000080000021,
            [CAP_CR0_FIXED1] = 0x00000000ffffffff,
            [CAP_CR4_FIXED0] = 0x0000000000002000,
            [CAP_CR4_FIXED1] = 0x0000000000f72fff,
            [CAP_VMCS_ENUM] = 0x0000000000000034,
            [CAP_SECONDARY] = 0x02977fff00000000,
            [CAP_EPT_VPID] = 0x00000f0106b34141,
            [CAP_TRUE_PIN] = 0x0000007f00000016,
            [CAP_TRUE_PRIMARY] = 0xfff9fffe04006172,
            [CAP_TRUE_EXIT] = 0x107fffff00036dfb,
            [CAP_TRUE_ENTRY] = 0x0010ffff000011fb},
    .physical_bits = 40,
};

/* Published: Intel Core i7-6700K, as in VirtualBox's CPU database (Intel_Core_i7_6700K.h, a dump of the real CPU). The
 * width is what client CPUs of that generation have. */
static const struct vmx_capabilities recorded_skylake = {
    .msr = {[CAP_BASIC] = 0x00da040000000004,
            [CAP_PIN] = 0x0000007f00000016,
            [CAP_PRIMARY] = 0xfff9fffe0401e172,
            [CAP_EXIT] = 0x01ffffff00036dff,
            [CAP_ENTRY] = 0x0003ffff000011ff,
            [CAP_MISC] = 0x000000007004c1e7,
            [CAP_CR0_FIXED0] = 0x0000000080000021,
            [CAP_CR0_FIXED1] = 0x00000000ffffffff,
            [CAP_CR4_FIXED0] = 0x0000000000002000,
            [CAP_CR4_FIXED1] = 0x00000000003727ff,
            [CAP_VMCS_ENUM] = 0x000000000000002e,
            [CAP_SECONDARY] = 0x001ffcff00000000,
            [CAP_EPT_VPID] = 0x00000f0106334141,
            [CAP_TRUE_PIN] = 0x0000007f00000016,
            [CAP_TRUE_PRIMARY] = 0xfff9fffe04006172,
            [CAP_TRUE_EXIT] = 0x01ffffff00036dfb,
            [CAP_TRUE_ENTRY] = 0x0003ffff000011fb},
    .physical_bits = 39,
};

/*
 * Derived, not recorded: what KVM offers to its guest on that i7-6700K, by nested_vmx_setup_ctls_msrs() of Linux 5.10
 * (arch/x86/kvm/vmx/nested.c) with ept, vpid, unrestricted guest and A/D on and apicv off; before the few bits that
 * follow the guest's CPUID. Preemption timer emulated at rate 5, only HLT as activity state, no CR3 targets, EPT
 * structures write-back only.
 */
static const struct vmx_capabilities recorded_kvm = {
    .msr = {[CAP_BASIC] = 0x00d8100011e57ed0,
            [CAP_PIN] = 0x0000007f00000016,
            [CAP_PRIMARY] = 0xfff9fffe0401e172,
            [CAP_EXIT] = 0x007fefff00036dff,
            [CAP_ENTRY] = 0x0000d3ff000011ff,
            [CAP_MISC] = 0x0000000020000065,
            [CAP_CR0_FIXED0] = 0x0000000080000021,
            [CAP_CR0_FIXED1] = 0x00000000ffffffff,
            [CAP_CR4_FIXED0] = 0x0000000000002000,
            [CAP_CR4_FIXED1] = 0x00000000003727ff,
            [CAP_VMCS_ENUM] = 0x000000000000002e,
            [CAP_SECONDARY] = 0x001378ff00000000,
            [CAP_EPT_VPID] = 0x00000f0106334041,
            [CAP_TRUE_PIN] = 0x0000007f00000016,
            [CAP_TRUE_PRIMARY] = 0xfff9fffe04006172,
            [CAP_TRUE_EXIT] = 0x007fefff00036dfb,
            [CAP_TRUE_ENTRY] = 0x0000d3ff000011fb},
    .physical_bits = 39,
};

/*
 * Reconstructed: an Alder-Lake-class CPU; no complete dump was found. From public notes of machines with its cores or
 * their successors: BASIC (i9-14900K), ENTRY (i3-14100F), PIN, CR0, CR4_FIXED1, EPT_VPID (Core Ultra 7 255U).
 * Reconstructed from SDM 3D appendix A and the features of Intel's 12th generation datasheet: PRIMARY (as Skylake, and
 * tertiary controls), EXIT (as Skylake without BNDCFGS, with RTIT, LBR, CET, PKRS), SECONDARY (as Skylake with APIC
 * virtualization, MBEC, PT, TSC scaling, TPAUSE; without SGX), MISC (as Skylake), the width. VMCS_ENUM is left out.
 */
static const struct vmx_capabilities recorded_alder_lake = {
    .msr = {[CAP_BASIC] = 0x03da050000000013,
            [CAP_PIN] = 0x000000ff00000016,
            [CAP_PRIMARY] = 0xfffbfffe0401e172,
            [CAP_EXIT] = 0x377fffff00036dff,
            [CAP_ENTRY] = 0x0076ffff000011ff,
            [CAP_MISC] = 0x000000007004c1e7,
            [CAP_CR0_FIXED0] = 0x0000000080000021,
            [CAP_CR0_FIXED1] = 0x00000000ffffffff,
            [CAP_CR4_FIXED0] = 0x0000000000002000,
            [CAP_CR4_FIXED1] = 0x0000000001f76fff,
            [CAP_SECONDARY] = 0x075f7fff00000000,
            [CAP_EPT_VPID] = 0x00000f0106f34141,
            [CAP_TRUE_PIN] = 0x000000ff00000016,
            [CAP_TRUE_PRIMARY] = 0xfffbfffe04006172,
            [CAP_TRUE_EXIT] = 0x377fffff00036dfb,
            [CAP_TRUE_ENTRY] = 0x0076ffff000011fb},
    .physical_bits = 46,
};

static const struct {
    const char *name;
    const struct vmx_capabilities *caps;
} recorded[] = {
    {"Bochs corei7_skylake_x", &recorded_bochs_skylake},
    {"Bochs tigerlake", &recorded_bochs_tigerlake},
    {"Core i7-6700K", &recorded_skylake},
    {"KVM on a Core i7-6700K", &recorded_kvm},
    {"Alder Lake class", &recorded_alder_lake},
};
