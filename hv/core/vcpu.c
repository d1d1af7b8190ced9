/* Virtual CPUs above the vendor seam. */
#include "hv/core/vcpu.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/event.h"
#include "hv/arch/x86/vendor.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

/* FXSAVE's layout and values after reset (SDM 1 10.5.1.1, 8.1.5) */
#define FXSAVE_MXCSR 24u
#define FCW_RESET 0x37fu
#define MXCSR_RESET 0x1f80u

#define EXIT_NAME(kind, name) [kind] = (name),
const char *const exit_kind_name[EXIT_KINDS] = {EXIT_LIST(EXIT_NAME)};

void vcpu_reset(struct vcpu *vcpu, u64 entry)
{
    struct cpu *cpu = &cpus[vcpu->cpu];

    vcpu->regs = (struct vcpu_registers){0};
    vcpu->rip = entry;
    vcpu->rflags = RFLAGS_FIXED;
    vcpu->flush_tlb = true;
    vcpu->event = vcpu->held = 0;
    memset(vcpu->fpu, 0, FXSAVE_SIZE);
    *(u16 *)vcpu->fpu = FCW_RESET;
    *(u32 *)(vcpu->fpu + FXSAVE_MXCSR) = MXCSR_RESET;
    /* What the registers of its CPU still hold is nobody's any more: the next entry loads the memory above. */
    if (cpu->loaded == vcpu)
        cpu->loaded = NULL;
}

void cpu_kick(u32 id)
{
    if (id != this_cpu()->id)
        apic_send(cpus[id].apic_id, VECTOR_KICK);
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

void vcpu_kick(struct vcpu *vcpu)
{
    if (__atomic_load_n(&vcpu->in_guest, __ATOMIC_ACQUIRE))
        cpu_kick(vcpu->cpu);
}

/* The lock is ours, so once the vCPU has left guest mode its CPU waits for us before it could enter again. */
static void force_out(struct vcpu *vcpu)
{
    vcpu_kick(vcpu);
    while (__atomic_load_n(&vcpu->in_guest, __ATOMIC_ACQUIRE))
        cpu_pause();
}

void vcpu_stop(struct vcpu *vcpu)
{
    vcpu->state = VCPU_STOPPED;
    vcpu->stops++;
    force_out(vcpu);
}

void vcpu_shootdown(struct vcpu *vcpu)
{
    force_out(vcpu);
    vcpu->flush_tlb = true;
}

void vcpu_skip(struct vcpu *vcpu, u32 length)
{
    bool trap = vcpu->rflags & RFLAGS_TF;

    vcpu->rip += length;
    vendor->end_instruction(vcpu, trap);
    if (trap) /* behind the instruction, so it is ours, too (SDM 3B 17.3.1.4, APM 2 13.1.4) */
        vcpu_inject_exception(vcpu, VECTOR_DEBUG, 0);
}

/* Vectors that push an error code (SDM 3A table 6-1). */
#define VECTORS_WITH_ERROR (1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17 | 1u << 21)

void vcpu_inject_exception(struct vcpu *vcpu, u8 vector, u32 error_code)
{
    /* Real mode pushes no error codes (SDM 3A 20.1.4), and an entry that has one there is refused (SDM 3C 26.2.1.3). */
    bool has_error = vector < 32 && (VECTORS_WITH_ERROR >> vector & 1) && (vendor->read(vcpu, GUEST_CR0) & CR0_PE);

    /*
     * On top of an event that was cut short: one after the other (SDM 3A table 6-5; of #DB and #AC, all that exit, none
     * makes a double fault). What an instruction raised comes again with it. An interrupt was taken from its APIC: it
     * is held until the guest can take it. One at most, since nothing else is delivered before (exit_guest_prepare).
     */
    if (vcpu->event && (vcpu->event & EVENT_TYPE) <= EVENT_TYPE_NMI)
        vcpu->held = vcpu->event;
    vcpu->event = EVENT_VALID | EVENT_TYPE_EXCEPTION | vector | (has_error ? EVENT_HAS_ERROR : 0);
    vcpu->event_error = error_code;
}

/*
 * SDM 3C 27.2.4, APM 2 15.7.2. The event is delivered again; but not one of INT n, INT3, INTO: RIP is still there, and
 * the instruction does it again. (To inject it would take its length, which not all CPUs tell.)
 */
void vcpu_keep_event(struct vcpu *vcpu, u32 event, u32 error_code)
{
    u32 type = event & EVENT_TYPE, vector = event & EVENT_VECTOR;
    bool software = type > EVENT_TYPE_EXCEPTION || (type == EVENT_TYPE_EXCEPTION && (vector == 3 || vector == 4));

    vcpu->event = 0;
    if ((event & EVENT_VALID) && !software)
        vcpu->event = event & (EVENT_VALID | EVENT_HAS_ERROR | EVENT_TYPE | EVENT_VECTOR); /* the rest is undefined */
    vcpu->event_error = error_code;
}
