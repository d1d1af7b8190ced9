/*
 * Interrupts. Handlers run with interrupts off on the interrupted stack and only note what happened: all work on
 * devices is done by the one thread of the kernel, which sleeps in interrupt_wait. So nothing in this kernel needs a
 * lock.
 */
#pragma once

#include "shared/lib/types.h"

enum interrupt_vector {
    VECTOR_UART = 0x30,
    VECTOR_TIMER = 0x40,
    VECTOR_FIRST_FREE = 0x50, /* from here to below VECTOR_SPURIOUS: what interrupt_add_handler gives out */
    VECTOR_SPURIOUS = 0xff,   /* the low four bits are ones on every CPU (SDM 3A 11.9) */
};

/* What an entry stub has put on the stack. */
struct interrupt_frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};

#define INTERRUPT_CODE_SELECTOR 0x08u
/* Flat segments of ring 3, for experiments. */
#define INTERRUPT_USER_DATA_SELECTOR 0x2bu
#define INTERRUPT_USER_CODE_SELECTOR 0x33u

/* Load GDT, TSS (with a stack of its own for double faults) and IDT. Once, with interrupts off. */
void interrupt_init(void);

/* Let handler(context) run at each interrupt of vector. The local APIC is told of the end after it returns. */
void interrupt_set_handler(enum interrupt_vector vector, void (*handler)(void *context), void *context);

/* The same for a vector that nobody has yet, for good. Returns it; 0: all are taken. */
u8 interrupt_add_handler(void (*handler)(void *context), void *context);

/*
 * Let handler see exceptions first (NULL: nobody). It may change the frame and return true, then the CPU goes on there;
 * false is a panic. Experiments on the CPU are what this is for.
 */
void interrupt_set_exception_handler(bool (*handler)(struct interrupt_frame *frame));

/* How often vector was delivered since boot. */
u64 interrupt_count(enum interrupt_vector vector);

/* A number that grows with every interrupt. Read it, look for work, and give it to interrupt_wait when there is none.
 */
u64 interrupt_serial(void);

/* Sleep until an interrupt arrives, unless one has come since `serial` was read. Returns with interrupts enabled. */
void interrupt_wait(u64 serial);
