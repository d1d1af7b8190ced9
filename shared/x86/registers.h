/*
 * Control registers, MSRs, CPUID and the few instructions that C has no words for (SDM 3A 2.5, SDM 4). For code at CPL
 * 0; whether an access is allowed is the caller's business: what the CPU refuses is an exception.
 */
#pragma once

#include "shared/lib/types.h"

#define CR0_PE (1ull << 0)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define CR4_OSFXSR (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP (1ull << 11)
#define CR4_VMXE (1ull << 13)
#define CR4_FSGSBASE (1ull << 16)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define RFLAGS_FIXED (1ull << 1)
#define RFLAGS_TF (1ull << 8)
#define RFLAGS_IF (1ull << 9)
#define DR6_SINGLE_STEP (1ull << 14)
#define DR6_RESET 0xffff0ff0ull /* SDM 3A table 9-1, as DR7_RESET */
#define DR7_RESET 0x400ull
#define VECTOR_DEBUG 1u
#define VECTOR_NMI 2u
#define VECTOR_DOUBLE_FAULT 8u

#define MSR_APIC_BASE 0x1bu
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_PAT 0x277u
#define PAT_RESET 0x0007040600070406ull /* SDM 3A table 11-12 */
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC 0x800u /* + APIC register / 16 */
#define MSR_X2APIC_TPR 0x808u
#define MSR_KVM_PV_EOI 0x4b564d04u /* Linux, Documentation/virt/kvm/x86/msr.rst */
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define EFER_SCE (1ull << 0)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)
#define EFER_SVME (1ull << 12)

static inline u64 msr_read(u32 index)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (u64)high << 32 | low;
}

static inline void msr_write(u32 index, u64 value)
{
    __asm__ volatile("wrmsr" ::"c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

/* EAX, EBX, ECX, EDX */
static inline void cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

/* cr0_read(), cr0_write() and so on */
#define CONTROL_REGISTER(name)                                                                                         \
    static inline u64 name##_read(void)                                                                                \
    {                                                                                                                  \
        u64 v;                                                                                                         \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(v));                                                             \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void name##_write(u64 v)                                                                             \
    {                                                                                                                  \
        __asm__ volatile("mov %0, %%" #name ::"r"(v) : "memory");                                                      \
    }
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)
CONTROL_REGISTER(dr6)
CONTROL_REGISTER(dr7)

/* In a loop that waits for somebody else; what it looks at is read again. */
static inline void cpu_pause(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* The compiler moves no access to memory past it: what lies between two of them is what was measured. */
static inline u64 rdtsc(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (u64)high << 32 | low;
}
