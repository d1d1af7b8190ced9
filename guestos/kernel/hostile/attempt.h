/*
 * An attempt: a few bytes of machine code run in ring 0 with chosen registers, and what came of it: they ended, or an
 * exception did. One at a time; interrupts are off meanwhile unless asked for. Code runs at ATTEMPT_CODE, two pages
 * that can be written and executed, behind which nothing is mapped; or in ring 3 at ATTEMPT_USER, with a stack behind
 * it.
 */
#pragma once

#include "guestos/kernel/arch/paging.h"
#include "shared/lib/types.h"

#define ATTEMPT_CODE PAGING_EXPERIMENTS
#define ATTEMPT_CODE_END (ATTEMPT_CODE + 2 * PAGE_SIZE)
#define ATTEMPT_DATA (ATTEMPT_CODE + MIB(1))   /* a page of memory, which ring 3 can write, too */
#define ATTEMPT_DEVICE (ATTEMPT_CODE + MIB(3)) /* the IOAPIC's registers */
#define ATTEMPT_USER (ATTEMPT_CODE + MIB(2))

/* Vectors; ATTEMPT_ENDED: the code came to its RET. */
enum attempt_outcome {
    FAULT_DE = 0,
    FAULT_DB = 1,
    FAULT_BP = 3,
    FAULT_UD = 6,
    FAULT_NM = 7,
    FAULT_DF = 8,
    FAULT_TS = 10,
    FAULT_NP = 11,
    FAULT_SS = 12,
    FAULT_GP = 13,
    FAULT_PF = 14,
    FAULT_AC = 17,
    ATTEMPT_ENDED = 32,
    ATTEMPT_OUTCOMES
};

#define ATTEMPT_RFLAGS_TF (1ull << 8)
#define ATTEMPT_RFLAGS_IF (1ull << 9)
#define ATTEMPT_TRAPS_MAX 4096u

struct attempt {
    u64 code;                         /* where it begins; it ends with RET, in ring 3 with UD2 */
    u64 rax, rcx, rdx, rbx, rsi, rdi; /* at the start; after an end, what it left (RSI and RDI stay) */
    u64 rflags;                       /* TF and IF, if it is to run with them */
    u64 watch;                        /* with TF: an address to be trapped at */
    bool user;                        /* in ring 3, with UD2 at `end` */
    u64 end;                          /* an exception there is no exception: it came to its end */
    /* result */
    u32 outcome;
    u32 traps;           /* #DB on the way */
    u32 steps;           /* those of them with DR6.BS set */
    bool watched;        /* one of them was at `watch` */
    u64 error, rip, cr2; /* of the exception */
};

/* Map the code pages. Repeating it is harmless. */
void attempt_init(void);

/* Copy code to its place and add the RET. Returns the address. */
u64 attempt_place(u64 at, const u8 *code, u32 length);

/* Run it; returns a->outcome. CR0, CR4 and the descriptor tables are afterwards what they were. */
u32 attempt_run(struct attempt *a);

/* How many attempts ended how since attempt_tally_clear. */
void attempt_tally_clear(void);
u64 attempt_tally(u32 outcome);
const char *attempt_name(u32 outcome);
