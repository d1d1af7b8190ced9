/* Interrupts and traps around what exits; system calls; what only ring 3 can raise. */
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/hostile/case.h"

#define MSR_ICR 0x830u
#define MSR_SELF_IPI 0x83fu

#define RFLAGS_AC (1ull << 18)
#define CR0_AM (1ull << 18)
#define UNUSED_PORT 0x80u
#define NON_CANONICAL_LOW 0x0000800000000000ull

/* An interrupt waits while the code begins; did it come? Each piece of code has interrupts on at some place. */
static const struct shadow {
    const char *text;
    u8 code[16], length;
    bool delivered;
} shadows[] = {
    {"STI; CPUID; NOP; CLI", {0xfb, 0x0f, 0xa2, 0x90, 0xfa}, 5, true},
    {"STI; IN; NOP; CLI", {0xfb, 0xe4, UNUSED_PORT, 0x90, 0xfa}, 5, true},
    {"STI; HLT; CLI", {0xfb, 0xf4, 0xfa}, 3, true},
    {"STI; MOV SS; CPUID; NOP; CLI", {0xfb, 0x31, 0xc0, 0x8e, 0xd0, 0x0f, 0xa2, 0x90, 0xfa}, 9, true},
    {"STI; WBINVD; CLI", {0xfb, 0x0f, 0x09, 0xfa}, 4, true},
    {"STI; CLI", {0xfb, 0xfa}, 2, false},
    {"STI; MOV SS; STI; CLI", {0xfb, 0x31, 0xc0, 0x8e, 0xd0, 0xfb, 0xfa}, 7, true},
};

static const char *run_interrupt_shadow(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(shadows); i++) {
        const struct shadow *s = &shadows[i];
        u64 before = interrupt_count(CASE_VECTOR);
        struct attempt a = {0};
        cpu_disable_interrupts();
        msr_write(MSR_SELF_IPI, CASE_VECTOR);
        case_run_once(s->code, s->length, &a);
        u64 delivered = interrupt_count(CASE_VECTOR) - before;
        cpu_enable_interrupts(); /* what has not come comes now */
        if (a.outcome != ATTEMPT_ENDED)
            return case_wrong("%s: %s", s->text, attempt_name(a.outcome));
        if (delivered != s->delivered)
            return case_wrong("%s: %llu interrupts, %u expected", s->text, (unsigned long long)delivered, s->delivered);
    }
    return NULL;
}

/* Every delivery mode but fixed and lowest priority, to itself by every way: NMI, SMI, INIT and SIPI go nowhere. */
static const char *run_icr(void)
{
    static const u8 code[] = {0x0f, 0x30};

    for (u32 mode = 2; mode < 8; mode++)
        for (u32 shorthand = 0; shorthand < 4; shorthand++)
            for (u32 level = 0; level < 4; level++) {
                struct attempt a = {.rcx = MSR_ICR, .rax = mode << 8 | shorthand << 18 | level << 14 | 0x08};
                case_run_once(code, sizeof(code), &a);
                if (a.outcome != ATTEMPT_ENDED && a.outcome != FAULT_GP)
                    return case_wrong("mode %u: %s", mode, attempt_name(a.outcome));
            }
    return NULL;
}

static const char *run_alignment(void)
{
    static const u8 code[] = {0x8b, 0x06}; /* MOV EAX, [RSI] */
    struct attempt a = {.user = true, .rsi = ATTEMPT_DATA + 1, .rflags = RFLAGS_AC};
    u64 cr0;

    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0 | CR0_AM));
    a.code = attempt_place(ATTEMPT_USER, code, sizeof(code));
    a.end = a.code + sizeof(code);
    attempt_run(&a);
    __asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
    if (a.outcome != FAULT_AC || a.error != 0 || a.rip != a.code)
        return case_wrong("%s, error 0x%llx", attempt_name(a.outcome), (unsigned long long)a.error);
    return NULL;
}

/* SYSCALL into our own code, from ring 0 and ring 3; then with a target that is none. */
static const char *run_syscall(void)
{
    static const u8 entry[] = {0x0f, 0x0b};                                           /* UD2 */
    static const u8 code[] = {0x0f, 0x05};                                            /* SYSCALL */
    static const u8 leave[] = {0x41, 0xbb, 0x02, 0x00, 0x00, 0x00, 0x48, 0x0f, 0x07}; /* MOV R11D, 2; SYSRETQ */
    u64 target = ATTEMPT_CODE + 64;
    struct attempt a = {.code = attempt_place(ATTEMPT_CODE, code, sizeof(code))};
    struct attempt user = {.user = true, .code = attempt_place(ATTEMPT_USER, code, sizeof(code))};
    struct attempt back = {.rcx = NON_CANONICAL_LOW};

    attempt_place(target, entry, sizeof(entry));
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_SCE);
    msr_write(MSR_STAR, (u64)INTERRUPT_CODE_SELECTOR << 32 | (u64)(INTERRUPT_USER_DATA_SELECTOR - 8) << 48);
    msr_write(MSR_LSTAR, target);
    msr_write(MSR_SFMASK, ~0u & ~2u);
    attempt_run(&a);
    attempt_run(&user);
    case_run_once(leave, sizeof(leave), &back);
    msr_write(MSR_EFER, msr_read(MSR_EFER) & ~EFER_SCE);
    if (a.outcome != FAULT_UD || a.rip != target || user.outcome != FAULT_UD || user.rip != target)
        return case_wrong("%s and, from ring 3, %s", attempt_name(a.outcome), attempt_name(user.outcome));
    return back.outcome == FAULT_GP ? NULL : case_wrong("SYSRET to no address: %s", attempt_name(back.outcome));
}

/* AMD has no SYSENTER in long mode; Intel enters where the MSRs say. */
static const char *run_sysenter(void)
{
    static const u8 entry[] = {0x0f, 0x0b}, code[] = {0x0f, 0x34};
    u64 target = ATTEMPT_CODE + 64;
    struct attempt a = {.code = attempt_place(ATTEMPT_CODE, code, sizeof(code))};

    attempt_place(target, entry, sizeof(entry));
    msr_write(MSR_SYSENTER_CS, INTERRUPT_CODE_SELECTOR);
    msr_write(MSR_SYSENTER_ESP, ATTEMPT_DATA + PAGE_SIZE);
    msr_write(MSR_SYSENTER_EIP, target);
    attempt_run(&a);
    msr_write(MSR_SYSENTER_CS, 0);
    if (a.outcome != FAULT_UD || (a.rip != target && a.rip != a.code))
        return case_wrong("%s at 0x%llx", attempt_name(a.outcome), (unsigned long long)a.rip);
    return NULL;
}

/* Addresses that a later system call would go to. */
static const char *run_msr_addresses(void)
{
    static const u32 indices[] = {MSR_LSTAR,  0xc0000083, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,
                                  0xc0000100, 0xc0000101, 0xc0000102};
    static const u8 code[] = {0x0f, 0x30};

    for (u32 i = 0; i < ARRAY_SIZE(indices); i++) {
        u64 old = msr_read(indices[i]);
        struct attempt a = {.rcx = indices[i], .rdx = NON_CANONICAL_LOW >> 32};
        case_run_once(code, sizeof(code), &a);
        msr_write(indices[i], old);
        if (a.outcome != FAULT_GP)
            return case_wrong("MSR 0x%x takes an address that is none: %s", indices[i], attempt_name(a.outcome));
    }
    return NULL;
}

/* A string of instructions that exit, stepped: one trap each, none lost, none twice. */
static const char *run_step_chain(void)
{
    static const u8 code[] = {0x0f, 0xa2, 0xe4, UNUSED_PORT, 0x90, 0xe6, UNUSED_PORT, 0x0f, 0xa2, 0x0f, 0x09, 0x90};
    const u32 instructions = 7;
    struct attempt a = {.rflags = ATTEMPT_RFLAGS_TF};

    case_run_once(code, sizeof(code), &a);
    /* And one at the start, for the RET that led there, and one behind the RET that leads back. */
    if (a.outcome != ATTEMPT_ENDED || a.traps != instructions + 2 || a.steps != a.traps)
        return case_wrong("%s, %u traps, %u expected, DR6.BS in %u", attempt_name(a.outcome), a.traps, instructions + 2,
                          a.steps);
    return NULL;
}

const struct cpu_case case_traps[] = {
    {"interrupt-shadow", "an interrupt that waits for the end of a shadow, and exits there",
     .run = run_interrupt_shadow},
    {"step-chain", "a trap for each emulated instruction, no more", .run = run_step_chain},
    {"icr", "NMI, SMI, INIT, SIPI and unknown modes to itself", .run = run_icr},
    {"alignment", "#AC in ring 3, which is intercepted", .run = run_alignment},
    {"syscall", "into own code, from both rings; SYSRET to no address", .run = run_syscall},
    {"sysenter", "where there is one", .run = run_sysenter},
    {"msr-addresses", "MSRs that hold addresses refuse what is none", .run = run_msr_addresses},
    {0},
};
