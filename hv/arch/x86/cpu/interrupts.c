/* Descriptor tables and interrupts of the hypervisor itself. */
#include "hv/arch/x86/cpu/interrupts.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/core/hypervisor.h"
#include "hv/core/machine.h"

#define IST_STACK_SIZE 4096u
#define EXCEPTIONS 32u
#define STUB_SIZE 16ul /* vectors.S */
#define VECTOR_MACHINE_CHECK 18u
#define IST_STACKS 3u

struct exception_frame {
    u64 rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};

extern char exception_stubs[], interrupt_stubs[], nmi_stub[], debug_stub[];

static struct gate idt[256];
static u64 gdt[CPU_MAX][8];
static struct tss tss[CPU_MAX];
static u8 ist_stack[CPU_MAX][IST_STACKS][IST_STACK_SIZE] __attribute__((aligned(16)));

/* Exceptions that may come on a bad stack have their own (number of the TSS's stack, from 1). */
static const u8 exception_stack[EXCEPTIONS] = {[VECTOR_DOUBLE_FAULT] = 1, [VECTOR_NMI] = 2, [VECTOR_MACHINE_CHECK] = 3};

struct cpu cpus[CPU_MAX];
u32 cpu_count = 1;

/* NMI returns like an interrupt: nothing of ours depends on it, and where old-format messages pass, a device can send
 * it. #DB just returns: no breakpoint is ours, and Bochs's SVM lets that of a guest through, right after the exit. */
static void build_idt(void)
{
    for (u32 v = 0; v < EXCEPTIONS; v++)
        idt[v] = gate_create((u64)exception_stubs + v * STUB_SIZE, CODE_SELECTOR, exception_stack[v]);
    idt[VECTOR_NMI] = gate_create((u64)nmi_stub, CODE_SELECTOR, exception_stack[VECTOR_NMI]);
    idt[VECTOR_DEBUG] = gate_create((u64)debug_stub, CODE_SELECTOR, 0);
    for (u32 v = EXCEPTIONS; v < ARRAY_SIZE(idt); v++)
        idt[v] = gate_create((u64)interrupt_stubs + (v - EXCEPTIONS) * STUB_SIZE, CODE_SELECTOR, 0);
}

u64 cpu_tss_base(const struct cpu *cpu)
{
    return (u64)&tss[cpu->id];
}

static void build_gdt(struct cpu *cpu)
{
    u64 *g = gdt[cpu->id];

    g[CODE_SELECTOR / 8] = DESCRIPTOR_CODE_64;
    g[DATA_SELECTOR / 8] = DESCRIPTOR_DATA;
    tss_describe(&g[TSS_SELECTOR / 8], &tss[cpu->id]);
    tss[cpu->id].io_map = sizeof(struct tss);
    for (u32 i = 0; i < IST_STACKS; i++)
        tss[cpu->id].ist[i] = (u64)&ist_stack[cpu->id][i][IST_STACK_SIZE];
}

void cpu_init(struct cpu *cpu)
{
    struct descriptor_pointer p;

    cpu->self = cpu;
    cpu->timer_armed = ~0ull;
    if (!idt[0].selector)
        build_idt();
    build_gdt(cpu);
    p = (struct descriptor_pointer){sizeof(gdt[0]) - 1, (u64)gdt[cpu->id]};
    __asm__ volatile("lgdt %0" ::"m"(p));
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs; mov %1, %%gs" ::"r"(DATA_SELECTOR),
                     "r"(0));
    __asm__ volatile("pushq %0; lea 1f(%%rip), %%rax; pushq %%rax; lretq; 1:" ::"i"(CODE_SELECTOR) : "rax", "memory");
    p = (struct descriptor_pointer){sizeof(idt) - 1, (u64)idt};
    __asm__ volatile("lidt %0" ::"m"(p));
    __asm__ volatile("ltr %w0" ::"r"(TSS_SELECTOR));
    msr_write(MSR_GS_BASE, (u64)cpu);
    /* FXSAVE works without EM and TS. After INIT the caches are off (SDM 3A table 9-1): on again on CPUs that we
     * started. */
    cr0_write((cr0_read() | CR0_NE | CR0_WP) & ~(CR0_EM | CR0_TS | CR0_CD | CR0_NW));
    cr4_write(cr4_read() | CR4_OSFXSR | CR4_OSXMMEXCPT);
}

/*
 * From the stubs; interrupts off. Only this CPU touches its bits, so no atomics are needed. Any vector may be forged by
 * a device where no interrupt remapping stops it, so none does more than be noted (and masked: ioapic.h): VECTOR_STOP
 * counts when the machine ends only, and the spurious vector is ended like all others. A true one has nothing to end
 * (SDM 3A 10.9), and since handlers do not nest, no other interrupt is in service that it could end.
 */
void interrupt_note(u32 vector)
{
    struct cpu *cpu = this_cpu();

    while (vector == VECTOR_STOP && __atomic_load_n(&machine_ends, __ATOMIC_ACQUIRE))
        __asm__ volatile("cli; hlt");
    cpu->irq_pending[vector / 64] |= 1ull << vector % 64;
    ioapic_interrupt(vector);
    apic_eoi();
}

bool interrupt_take(struct cpu *cpu, u8 vector)
{
    u64 bit = 1ull << vector % 64;
    bool was = cpu->irq_pending[vector / 64] & bit;

    cpu->irq_pending[vector / 64] &= ~bit;
    return was;
}

_Noreturn void exception_panic(const struct exception_frame *f)
{
    const u64 *stack = (const u64 *)f->rsp;

    hv_log("exception %lu error %lx rip %lx rsp %lx cr2 %lx", f->vector, f->error, f->rip, f->rsp, cr2_read());
    hv_log("rax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx", f->rax, f->rbx, f->rcx, f->rdx, f->rsi, f->rdi);
    if (f->vector != VECTOR_DOUBLE_FAULT && (f->rsp & 7) == 0) /* a double fault may be a stack that is used up */
        hv_log("stack %lx %lx %lx %lx", stack[0], stack[1], stack[2], stack[3]);
    panic("exception in the hypervisor");
}
