/* The physical CPUs. Each has one struct cpu, found through GS. Fixed after boot; fields say who writes them. */
#pragma once

#include "shared/lib/types.h"

#define CPU_MAX 16u

struct vcpu;

struct cpu {
    struct cpu *self; /* at gs:0 */
    u32 id;
    u32 apic_id;
    struct vcpu *loaded; /* whose FPU state is in the registers; this CPU */
    u64 next_tick;       /* TSC; ~0 when this CPU has no ticks */
    u64 timer_armed;     /* TSC deadline programmed into the LAPIC; ~0: none */
    u64 irq_pending[4];  /* vectors whose interrupt arrived; set by its interrupt stubs, cleared by its run loop */
    bool online;
    u64 ticks;
    u64 idle; /* TSC ticks without anything to do */
    u32 next_driver; /* the scheduler's round robin */
    u64 guest_waits; /* TSC since when the guest could run here but a driver VM does; 0: it does not wait */
    u64 host_state;  /* vendor: physical address of the page for VMSAVE of host state */
    void *stack_top;
};

extern struct cpu cpus[CPU_MAX];
extern u32 cpu_count;

static inline struct cpu *this_cpu(void)
{
    struct cpu *cpu;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

/* Make the other CPU leave guest mode or its idle loop. Own id: nothing. */
void cpu_kick(u32 id);
