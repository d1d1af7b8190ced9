/*
 * CPUID as the guest sees it: the host's leaves reduced to what this machine carries through (SDM 2A CPUID, APM 3
 * appendix E), and KVM's facade at 0x40000000, from which Linux takes the TSC's frequency and its clock.
 *
 * A feature is hidden unless it is listed: extended state (XSAVE, AVX and what needs it) is not switched between VMs,
 * and MSRs behind a feature bit would have to be virtualised. CMPXCHG16B is hidden because QEMU 7.2's TCG corrupts
 * EFLAGS around it.
 */
#include <cpuid.h>

#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"
#include "shared/lib/string.h"

enum { EAX, EBX, ECX, EDX };
#define BIT(n) (1u << (n))
#define ALL 0xffffffffu

#define BASIC_MAX 7u
#define EXTENDED 0x80000000u
#define EXTENDED_MAX 0x80000008u
#define FACADE 0x40000000u
#define FACADE_TIMING 0x40000010u

/* Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, SSE4.1, SSE4.2, MOVBE, POPCNT, AESNI, RDRAND */
#define LEAF1_ECX (BIT(0) | BIT(1) | BIT(9) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) | BIT(30))
#define LEAF1_ECX_SET (BIT(21) | BIT(24) | BIT(31)) /* x2APIC, TSC-deadline timer, hypervisor */
/* Leaf 1 EDX: FPU VME DE PSE TSC MSR PAE CX8, SEP, PGE, CMOV PAT PSE36, CLFSH, MMX FXSR SSE SSE2 SS; no machine check,
 * no HTT */
#define LEAF1_EDX (0x17fu | BIT(11) | BIT(13) | BIT(15) | BIT(16) | BIT(17) | BIT(19) | 0x0f800000u)
#define LEAF1_EDX_SET (BIT(9) | BIT(12)) /* APIC, MTRR */
/* Leaf 7 EBX: FSGSBASE BMI1 SMEP BMI2 ERMS RDSEED ADX SMAP CLFLUSHOPT CLWB SHA */
#define LEAF7_EBX                                                                                                      \
    (BIT(0) | BIT(3) | BIT(7) | BIT(8) | BIT(9) | BIT(18) | BIT(19) | BIT(20) | BIT(23) | BIT(24) | BIT(29))
#define LEAF7_EDX (BIT(4) | BIT(10)) /* FSRM, MD_CLEAR */
/* 80000001 ECX: LAHF, LZCNT, SSE4A, misaligned SSE, PREFETCHW */
#define EXT1_ECX (BIT(0) | BIT(5) | BIT(6) | BIT(7) | BIT(8))
/* 80000001 EDX: AMD's copies of leaf 1, SYSCALL, NX, MMXEXT, 1 GiB pages, long mode; no RDTSCP (its MSR is not
 * switched) */
#define EXT1_EDX                                                                                                       \
    (0x17fu | BIT(11) | BIT(13) | BIT(15) | BIT(16) | BIT(17) | BIT(20) | BIT(22) | BIT(23) | BIT(24) | BIT(26) |      \
     BIT(29))

/* KVM's features: no I/O delay needed, CLOCKSOURCE2, PV EOI, stable clock */
#define FACADE_FEATURES (BIT(1) | BIT(3) | BIT(6) | BIT(24))

static const struct cpuid_rule {
    u32 first, last; /* leaves */
    u32 keep[4];     /* of the host's bits */
    u32 set[4];
} rules[] = {
    {0, 0, {0, ALL, ALL, ALL}, {BASIC_MAX}},
    /* EBX keeps brand and CLFLUSH size; one logical CPU with ID 0 */
    {1, 1, {ALL, 0xffff, LEAF1_ECX, LEAF1_EDX}, {0, BIT(16), LEAF1_ECX_SET, LEAF1_EDX_SET}},
    {2, 2, {ALL, ALL, ALL, ALL}, {0}},
    {4, 4, {0x3fff, ALL, ALL, ALL}, {0}}, /* caches, shared by nobody */
    {6, 6, {0}, {BIT(2)}},                /* ARAT: the timer never stops */
    {7, 7, {0, LEAF7_EBX, 0, LEAF7_EDX}, {0}},
    {FACADE, FACADE, {0}, {FACADE_TIMING, 0x4b4d564b, 0x564b4d56, 0x4d}}, /* "KVMKVMKVM\0\0\0" */
    {FACADE + 1, FACADE + 1, {0}, {FACADE_FEATURES}},
    {EXTENDED, EXTENDED, {0, ALL, ALL, ALL}, {EXTENDED_MAX}},
    {EXTENDED + 1, EXTENDED + 1, {ALL, 0, EXT1_ECX, EXT1_EDX}, {0}},
    {EXTENDED + 2, EXTENDED + 6, {ALL, ALL, ALL, ALL}, {0}}, /* brand string, caches */
    {EXTENDED + 7, EXTENDED + 7, {0}, {0, 0, 0, BIT(8)}},    /* invariant TSC: what the facade's clock stands on */
    {EXTENDED + 8, EXTENDED + 8, {0xffff, 0, 0, 0}, {0}},    /* address widths */
};

void cpuid_filter(u32 leaf, u32 subleaf, u32 out[4])
{
    static const struct cpuid_rule nothing;
    const struct cpuid_rule *rule = &nothing;
    for (u32 i = 0; i < ARRAY_SIZE(rules); i++)
        if (leaf >= rules[i].first && leaf <= rules[i].last && (leaf != 7 || subleaf == 0))
            rule = &rules[i]; /* the further subleaves of 7 are all newer features */
    for (u32 r = EAX; r <= EDX; r++)
        out[r] = (out[r] & rule->keep[r]) | rule->set[r];
    if (leaf == FACADE_TIMING)
        out[EAX] = (u32)tsc_khz;
}

void platform_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    u32 max, b, c, d;
    memset(out, 0, 4 * sizeof(out[0]));
    /* Beyond its last leaf an Intel CPU repeats another leaf's data: that must not be taken for this one's. */
    __cpuid(leaf & EXTENDED, max, b, c, d);
    if (leaf <= max)
        __cpuid_count(leaf, subleaf, out[EAX], out[EBX], out[ECX], out[EDX]);
    cpuid_filter(leaf, subleaf, out);
}
