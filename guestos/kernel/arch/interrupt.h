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
    VECTOR_BLK_CONFIG = 0x50,
    VECTOR_BLK_QUEUE = 0x51,
    VECTOR_NET_CONFIG = 0x58,
    VECTOR_NET_RX = 0x59,
    VECTOR_NET_TX = 0x5a,
    VECTOR_SPURIOUS = 0xff, /* the low four bits are ones on every CPU (SDM 3A 11.9) */
};

/* Load GDT, TSS (with a stack of its own for double faults) and IDT. Once, with interrupts off. */
void interrupt_init(void);

/* Let handler run at each interrupt of vector. The local APIC is told of the end after it returns. */
void interrupt_set_handler(enum interrupt_vector vector, void (*handler)(void));

/* How often vector was delivered since boot. */
u64 interrupt_count(enum interrupt_vector vector);

/* A number that grows with every interrupt. Read it, look for work, and give it to interrupt_wait when there is none.
 */
u64 interrupt_serial(void);

/* Sleep until an interrupt arrives, unless one has come since `serial` was read. Returns with interrupts enabled. */
void interrupt_wait(u64 serial);
