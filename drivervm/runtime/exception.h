/* CPU exceptions: none is survivable here, each becomes the VM's last word (HYPERCALL_FAULT). */
#pragma once

#include "shared/lib/types.h"

/*
 * What the stubs of start.S leave on the stack, lowest address first. The fault's third argument points here: crash
 * reports take from it what ran when the exception came (scripts/bulkhead_lib/core.py knows the layout, too).
 */
struct exception_frame {
    u64 registers[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8 to r15; rsp: the handler's, not what was interrupted */
    u64 vector;
    u64 error;
    u64 rip, cs, rflags, rsp, ss; /* pushed by the CPU (SDM 3A 6.14.2) */
};

/* Make our own GDT and IDT. Once, before anything that may fault; the CPU has them from exception_enable() on. */
void exception_setup(void);
void exception_enable(void);
