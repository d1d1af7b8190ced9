/*
 * What a hostile guest does to its CPU: cases, each with a name and what it attacks. A case is a function, or one
 * instruction with what may come of it, which is then run in several ways (case.c). Cases that may be this machine's
 * end are run by their name only.
 */
#pragma once

#include "guestos/kernel/hostile/attempt.h"

#define ENDS (1ull << ATTEMPT_ENDED)
#define DB (1ull << FAULT_DB)
#define BP (1ull << FAULT_BP)
#define UD (1ull << FAULT_UD)
#define NM (1ull << FAULT_NM)
#define TS (1ull << FAULT_TS)
#define NP (1ull << FAULT_NP)
#define GP (1ull << FAULT_GP)
#define PF (1ull << FAULT_PF)
#define AC (1ull << FAULT_AC)

#define CASE_VECTOR 0x61u /* an interrupt that only cases send */
#define CASE_CODE_MAX 24u
#define CASE_USER 1u       /* ring 3 may do it, too */
#define CASE_INTERRUPTS 2u /* with interrupts on */
#define CASE_ONE_WAY 4u    /* plain only: it changes what the other ways need */
#define CASE_UNSTEPPED 8u  /* a trap flag does not trap behind it */

struct cpu_case {
    const char *name;
    const char *what;
    const char *(*run)(void); /* NULL or what is wrong */
    u64 allowed;              /* instead of run: outcomes of the code, one bit each */
    u64 rax, rcx, rdx;
    u32 flags;
    u32 length;
    u8 code[CASE_CODE_MAX];
};

#define CODE(...) .length = sizeof((u8[]){__VA_ARGS__}), .code = {__VA_ARGS__}

/* Run the code plain, in the shadow of MOV SS, stepped, before an absent page, in ring 3. NULL or what is wrong. */
const char *case_run_code(const struct cpu_case *c);

/* A failure's text, printed like printf; valid until the next. */
const char *case_wrong(const char *format, ...) PRINTF_LIKE(1, 2);

/* Run code once, plain; the registers it left are in *a. */
u32 case_run_once(const u8 *code, u32 length, struct attempt *a);

/* For cases that run garbage: which. */
extern u64 case_seed;

/* Tables, each ends with a NULL name. The last may be run alone only: it need not come back. */
extern const struct cpu_case case_sweeps[];
extern const struct cpu_case case_instructions[];
extern const struct cpu_case case_registers[];
extern const struct cpu_case case_traps[];
extern const struct cpu_case case_fatal[];
