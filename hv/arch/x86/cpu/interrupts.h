/*
 * Descriptor tables and interrupts of the hypervisor itself. Interrupts are off except in the windows that the run loop
 * opens: a stub sets the vector's bit in this_cpu()->irq_pending, ends the interrupt at the APIC, and returns.
 * An exception in the hypervisor is a panic with the registers.
 */
#pragma once

#include "hv/core/cpu.h"
#include "shared/x86/descriptors.h"

/* GDT, TSS (own stacks for double fault, NMI, machine check), IDT, GS base. Each CPU for itself, once. */
void cpu_init(struct cpu *cpu);

/* Let pending physical interrupts in for a moment. Lock held or not. */
static inline void interrupts_window(void)
{
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

/* Sleep until an interrupt; one that came before the call ends it at once. Lock not held. */
static inline void interrupts_wait(void)
{
    __asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* Test and clear the bit of a vector, this CPU. */
bool interrupt_take(struct cpu *cpu, u8 vector);

#define CODE_SELECTOR 0x08u
#define DATA_SELECTOR 0x10u
#define TSS_SELECTOR 0x28u
/* The base of its TSS. */
u64 cpu_tss_base(const struct cpu *cpu);
