/* The instructions that C has no words for: registers and ports as everywhere, and what this kernel does besides. One
 * CPU; nothing here blocks except cpu_sleep. */
#pragma once

#include "shared/lib/types.h"
#include "shared/x86/io.h"
#include "shared/x86/registers.h"

struct cpuid_result {
    u32 eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpu_cpuid(u32 leaf)
{
    u32 r[4];

    cpuid(leaf, 0, r);
    return (struct cpuid_result){r[0], r[1], r[2], r[3]};
}

static inline void cpu_invalidate_page(u64 address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static inline void cpu_disable_interrupts(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void cpu_enable_interrupts(void)
{
    __asm__ volatile("sti" : : : "memory");
}

/* Enable interrupts and halt with nothing in between: STI holds interrupts off for one more instruction (SDM 2B, STI).
 */
static inline void cpu_sleep(void)
{
    __asm__ volatile("sti; hlt" : : : "memory");
}
