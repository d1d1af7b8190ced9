#include "guestos/kernel/arch/interrupt.h"

#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/panic.h"
#include "shared/x86/descriptors.h"

#define GDT_TSS 0x18u
#define FIRST_INTERRUPT 32u
#define STUB_SIZE 16u

extern const u8 interrupt_stubs[];

static struct gate idt[256];
static struct tss tss;
/* Null, 64-bit code, data, the TSS descriptor of two entries that interrupt_init fills in, data and code of ring 3. */
static u64 gdt[7] = {0,
                     DESCRIPTOR_CODE_64,
                     DESCRIPTOR_DATA,
                     0,
                     0,
                     DESCRIPTOR_DATA | DESCRIPTOR_RING_3,
                     DESCRIPTOR_CODE_64 | DESCRIPTOR_RING_3};
static u8 fault_stack[8192] __attribute__((aligned(16)));
static u8 user_stack[8192] __attribute__((aligned(16))); /* what interrupts ring 3 runs here */

static struct {
    void (*run)(void *context);
    void *context;
} handlers[256];
static bool (*exception_handler)(struct interrupt_frame *frame);
static u64 counts[256];
static volatile u64 serial_now;

void interrupt_dispatch(struct interrupt_frame *frame); /* called by the stubs only */

static void load_gdt(void)
{
    tss.ist[0] = (u64)(fault_stack + sizeof(fault_stack));
    tss.rsp[0] = (u64)(user_stack + sizeof(user_stack));
    tss.io_map = sizeof(tss);
    tss_describe(&gdt[GDT_TSS / 8], &tss);
    struct descriptor_pointer pointer = {sizeof(gdt) - 1, (u64)gdt};
    __asm__ volatile("lgdt %0\n\t"
                     "push %1\n\t"
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "ltr %w2"
                     :
                     : "m"(pointer), "i"(INTERRUPT_CODE_SELECTOR), "r"(GDT_TSS)
                     : "rax", "memory");
}

void interrupt_init(void)
{
    load_gdt();
    for (u32 i = 0; i < 256; i++) {
        u64 stub = (u64)interrupt_stubs + (u64)i * STUB_SIZE;
        /* A double fault is what a stack overflow ends in: only with a stack of its own can it be reported. */
        u8 ist = i == VECTOR_DOUBLE_FAULT ? 1 : 0;
        idt[i] = gate_create(stub, INTERRUPT_CODE_SELECTOR, ist);
    }
    struct descriptor_pointer pointer = {sizeof(idt) - 1, (u64)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void interrupt_set_handler(enum interrupt_vector vector, void (*handler)(void *context), void *context)
{
    handlers[vector].context = context;
    handlers[vector].run = handler;
}

u8 interrupt_add_handler(void (*handler)(void *context), void *context)
{
    for (u8 vector = VECTOR_FIRST_FREE; vector < VECTOR_SPURIOUS; vector++) {
        if (handlers[vector].run != NULL)
            continue;
        interrupt_set_handler(vector, handler, context);
        return vector;
    }
    return 0;
}

void interrupt_set_exception_handler(bool (*handler)(struct interrupt_frame *frame))
{
    exception_handler = handler;
}

u64 interrupt_count(enum interrupt_vector vector)
{
    return counts[vector];
}

u64 interrupt_serial(void)
{
    return serial_now;
}

void interrupt_wait(u64 serial)
{
    cpu_disable_interrupts();
    if (serial_now == serial)
        cpu_sleep();
    else
        cpu_enable_interrupts();
}

void interrupt_dispatch(struct interrupt_frame *frame)
{
    u8 vector = (u8)frame->vector;

    if (vector < FIRST_INTERRUPT && exception_handler != NULL && exception_handler(frame))
        return;
    if (vector < FIRST_INTERRUPT)
        panic("exception %u, error 0x%llx, rip 0x%llx, rsp 0x%llx, cr2 0x%llx, rax 0x%llx, rdi 0x%llx", vector,
              (unsigned long long)frame->error, (unsigned long long)frame->rip, (unsigned long long)frame->rsp,
              (unsigned long long)cr2_read(), (unsigned long long)frame->rax, (unsigned long long)frame->rdi);
    counts[vector]++;
    serial_now++;
    if (handlers[vector].run != NULL)
        handlers[vector].run(handlers[vector].context);
    if (vector != VECTOR_SPURIOUS) /* a spurious interrupt sets no in-service bit (SDM 3A 11.9) */
        lapic_end_interrupt();
}
