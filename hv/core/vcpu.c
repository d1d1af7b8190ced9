/* Virtual CPUs above the vendor seam. */
#include "hv/core/vcpu.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"

const char *const exit_kind_name[EXIT_KINDS] = {
    [EXIT_INTERRUPT] = "interrupt",    [EXIT_WINDOW] = "window",       [EXIT_HLT] = "hlt",
    [EXIT_CPUID] = "cpuid",            [EXIT_PIO] = "pio",             [EXIT_MSR] = "msr",
    [EXIT_NESTED_FAULT] = "nested",    [EXIT_HYPERCALL] = "hypercall", [EXIT_CR_WRITE] = "cr",
    [EXIT_EXCEPTION] = "exception",    [EXIT_UNDEFINED] = "undefined", [EXIT_CACHE] = "cache",
    [EXIT_SHUTDOWN] = "shutdown",      [EXIT_INVALID] = "invalid",     [EXIT_UNKNOWN] = "unknown",
};

void cpu_kick(u32 id)
{
    if (id != this_cpu()->id)
        apic_send(cpus[id].apic_id, VECTOR_KICK);
}

static bool in_guest(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->in_guest, __ATOMIC_ACQUIRE);
}

void vcpu_wake(struct vcpu *vcpu)
{
    if (vcpu->state != VCPU_BLOCKED)
        return;
    vcpu->state = VCPU_RUNNABLE;
    /* Its CPU sleeps, or runs a VM of lower rank: either way it must look again. */
    cpu_kick(vcpu->cpu);
}

void vcpu_block(struct vcpu *vcpu)
{
    if (vcpu->state == VCPU_RUNNABLE)
        vcpu->state = VCPU_BLOCKED;
}

/* The lock is ours, so once the vCPU has left guest mode its CPU waits for us before it could enter again. */
static void force_out(struct vcpu *vcpu)
{
    if (!in_guest(vcpu))
        return;
    cpu_kick(vcpu->cpu);
    while (in_guest(vcpu))
        cpu_pause();
}

void vcpu_stop(struct vcpu *vcpu)
{
    vcpu->state = VCPU_STOPPED;
    force_out(vcpu);
}

void vcpu_shootdown(struct vcpu *vcpu)
{
    force_out(vcpu);
    vcpu->flush_tlb = true;
}

void vcpu_kick(struct vcpu *vcpu)
{
    if (in_guest(vcpu))
        cpu_kick(vcpu->cpu);
}

void vcpu_skip(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vendor->skip(vcpu, exit->instruction_length);
}

/* Vectors that push an error code (SDM 3A table 6-1). */
#define VECTORS_WITH_ERROR (1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17 | 1u << 21)

void vcpu_inject_exception(struct vcpu *vcpu, u8 vector, u32 error_code)
{
    vendor->inject_exception(vcpu, vector, vector < 32 && (VECTORS_WITH_ERROR >> vector & 1), error_code);
}
