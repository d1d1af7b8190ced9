/* Control, debug and table registers: every bit, alone and in combinations that no CPU allows. */
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/hostile/case.h"
#include "shared/lib/string.h"

#define CR4_LAST_KNOWN 10u /* VME to OSXMMEXCPT; above, only FSGSBASE, SMEP and SMAP are shown by CPUID */
#define CR4_PCE (1ull << 8)
#define CPUID_7_FSGSBASE (1u << 0)
#define CPUID_7_SMEP (1u << 7)
#define CPUID_7_SMAP (1u << 20)

#define CR0_HARMLESS (1ull << 1 | 1ull << 2 | 1ull << 3 | 1ull << 5 | 1ull << 16 | 1ull << 18 | 1ull << 30)

#define CR8_MAX 15u
#define UNUSED_PORT 0x80u
#define DR7_EXACT 0x400ull

static const u8 code_cr0[] = {0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc0};             /* MOV CR0, RAX; MOV RAX, CR0 */
static const u8 code_cr4[] = {0x0f, 0x22, 0xe0, 0x0f, 0x20, 0xe0};             /* MOV CR4, RAX; MOV RAX, CR4 */
static const u8 code_cr8[] = {0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc0}; /* MOV CR8, RAX; MOV RAX, CR8 */
static const u8 code_wrmsr[] = {0x0f, 0x30};
static const u8 code_rdmsr[] = {0x0f, 0x32};

/* What CPUID shows of a bit of CR4 that not every CPU has. UMIP has no bit in this machine's CPUID: either way. */
static bool cr4_shown(u32 bit, bool *either)
{
    u32 leaf7 = cpu_cpuid(7).ebx;
    u64 mask = 1ull << bit;

    *either = mask == CR4_UMIP;
    if (bit <= CR4_LAST_KNOWN)
        return mask != CR4_PAE && mask != CR4_PCE; /* PAE cannot go in long mode; PCE without counters */
    return (mask == CR4_FSGSBASE && (leaf7 & CPUID_7_FSGSBASE)) || (mask == CR4_SMEP && (leaf7 & CPUID_7_SMEP)) ||
           (mask == CR4_SMAP && (leaf7 & CPUID_7_SMAP));
}

static const char *run_cr4_bits(void)
{
    for (u32 bit = 0; bit < 64; bit++) {
        bool either, shown = cr4_shown(bit, &either);
        u64 value = cr4_read() ^ 1ull << bit;
        struct attempt a = {.rax = value};
        case_run_once(code_cr4, sizeof(code_cr4), &a);
        if (a.outcome != (shown ? ATTEMPT_ENDED : FAULT_GP) && !either)
            return case_wrong("CR4 bit %u: %s", bit, attempt_name(a.outcome));
        if (a.outcome == ATTEMPT_ENDED && a.rax != value)
            return case_wrong("CR4 reads 0x%llx", (unsigned long long)a.rax);
    }
    return NULL;
}

static const char *run_cr0_bits(void)
{
    u64 old;

    __asm__ volatile("mov %%cr0, %0" : "=r"(old));
    for (u32 bit = 0; bit < 32; bit++) {
        u64 value = old ^ 1ull << bit;
        struct attempt a = {.rax = value};
        if (!(CR0_HARMLESS >> bit & 1))
            continue;
        if (case_run_once(code_cr0, sizeof(code_cr0), &a) != ATTEMPT_ENDED)
            return case_wrong("CR0 bit %u: %s", bit, attempt_name(a.outcome));
        if ((a.rax | CR0_ET) != (value | CR0_ET))
            return case_wrong("CR0 reads 0x%llx, 0x%llx was written", (unsigned long long)a.rax,
                              (unsigned long long)value);
    }
    return NULL;
}

/* The highest priority class: if it were the machine's own, no interrupt would reach the hypervisor any more. */
static const char *run_cr8(void)
{
    for (u64 value = 0; value <= CR8_MAX; value++) {
        struct attempt a = {.rax = value};
        if (case_run_once(code_cr8, sizeof(code_cr8), &a) != ATTEMPT_ENDED)
            return case_wrong("CR8 = %llu: %s", (unsigned long long)value, attempt_name(a.outcome));
        u64 from = rdtsc();
        while (value == CR8_MAX && rdtsc() - from < 100000000)
            cpu_pause();
    }
    struct attempt last = {.rax = 0};
    case_run_once(code_cr8, sizeof(code_cr8), &last);
    return last.rax == 0 ? NULL : "CR8 does not read 0 again";
}

static const char *run_efer_bits(void)
{
    struct attempt read = {.rcx = MSR_EFER};

    if (case_run_once(code_rdmsr, sizeof(code_rdmsr), &read) != ATTEMPT_ENDED)
        return "EFER cannot be read";
    u64 old = read.rdx << 32 | (u32)read.rax;
    for (u32 bit = 0; bit < 64; bit++) {
        u64 value = old ^ 1ull << bit;
        struct attempt a = {.rcx = MSR_EFER, .rax = (u32)value, .rdx = value >> 32};
        if (1ull << bit == EFER_NXE) /* the tables of this kernel would become invalid: a case of its own */
            continue;
        case_run_once(code_wrmsr, sizeof(code_wrmsr), &a);
        msr_write(MSR_EFER, old);
        if (1ull << bit != EFER_LMA && a.outcome != (1ull << bit == EFER_SCE ? ATTEMPT_ENDED : FAULT_GP))
            return case_wrong("EFER bit %u: %s", bit, attempt_name(a.outcome));
    }
    return NULL;
}

/* Breakpoints of each kind on what an emulated instruction does. That they trap is not asked for: that nothing breaks.
 */
static const char *run_breakpoints(void)
{
    static const u8 code[] = {0xe4, UNUSED_PORT, 0x0f, 0xa2, 0x48, 0x8b, 0x06}; /* IN; CPUID; MOV RAX, [RSI] */
    static const u64 places[] = {ATTEMPT_CODE + 2, UNUSED_PORT, ATTEMPT_DATA};
    u64 cr4 = cr4_read();

    cr4_write(cr4 | 1 << 3); /* DE: breakpoints on ports */
    for (u64 kind = 1; kind < 4; kind++) {
        for (u32 i = 0; i < ARRAY_SIZE(places); i++) {
            struct attempt a = {.code = attempt_place(ATTEMPT_CODE, code, sizeof(code)), .rsi = ATTEMPT_DATA};
            __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(places[i]), "r"(DR7_EXACT | 3 | kind << 16));
            attempt_run(&a);
            __asm__ volatile("mov %0, %%dr7" : : "r"(DR7_EXACT));
            if (a.outcome != ATTEMPT_ENDED)
                return case_wrong("breakpoint of kind %llu: %s", (unsigned long long)kind, attempt_name(a.outcome));
        }
    }
    cr4_write(cr4);
    return NULL;
}

/* MOV SS with a data breakpoint on the selector: the trap is held off until the next instruction, which exits. */
static const char *run_breakpoint_in_shadow(void)
{
    static const u8 codes[][4] = {{0x8e, 0x16, 0x0f, 0xa2}, /* MOV SS, [RSI]; CPUID */
                                  {0x8e, 0x16, 0xe4, UNUSED_PORT},
                                  {0x8e, 0x16, 0x0f, 0x30},  /* WRMSR, to an MSR that is absent */
                                  {0x8e, 0x16, 0xcd, 0x61}}; /* INT */
    for (u32 i = 0; i < ARRAY_SIZE(codes); i++) {
        struct attempt a = {.rsi = ATTEMPT_DATA, .rcx = 0x12345678};
        __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(ATTEMPT_DATA), "r"(DR7_EXACT | 3 | 3 << 16));
        case_run_once(codes[i], sizeof(codes[i]), &a);
        __asm__ volatile("mov %0, %%dr7" : : "r"(DR7_EXACT));
        if (a.outcome != ATTEMPT_ENDED && a.outcome != FAULT_GP)
            return case_wrong("code %u: %s", i, attempt_name(a.outcome));
    }
    return NULL;
}

/* LGDT and LIDT of nonsense and back, with exits in between: an emulation that looks something up finds nothing. */
static const char *run_bad_tables(void)
{
    static const u8 code[] = {0x0f, 0x01, 0x16, 0x0f,        0x01, 0x1e,        /* LGDT [RSI]; LIDT [RSI] */
                              0x0f, 0xa2, 0xe4, UNUSED_PORT,                    /* CPUID; IN */
                              0x0f, 0x01, 0x17, 0x0f,        0x01, 0x5f, 0x10}; /* LGDT [RDI]; LIDT [RDI + 16] */
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) nonsense[] = {{0, 0}, {0xffff, 0xfec00000}, {7, 1ull << 46}, {0xffff, ~0ull << 47}};
    static u8 good[32];

    __asm__ volatile("sgdt %0; sidt %1" : "=m"(good[0]), "=m"(good[16]) : : "memory");
    for (u32 i = 0; i < ARRAY_SIZE(nonsense); i++) {
        struct attempt a = {.rsi = (u64)&nonsense[i], .rdi = (u64)good};
        if (case_run_once(code, sizeof(code), &a) != ATTEMPT_ENDED)
            return attempt_name(a.outcome);
    }
    return NULL;
}

const struct cpu_case case_registers[] = {
    {"cr0-bits", "each bit of CR0 that 64-bit mode may change, read back", .run = run_cr0_bits},
    {"cr4-bits", "each bit of CR4: those that CPUID does not show are #GP", .run = run_cr4_bits},
    {"cr8", "task priorities; the highest for a while", .run = run_cr8},
    {"efer-bits", "each bit of EFER: SVME, LME, LMSLE, FFXSR, TCE are #GP", .run = run_efer_bits},
    {"breakpoints", "debug registers on emulated accesses", .run = run_breakpoints},
    {"breakpoint-shadow", "a debug trap held off by MOV SS, then an exit", .run = run_breakpoint_in_shadow},
    {"bad-tables", "exits while GDT and IDT are nonsense", .run = run_bad_tables},
    {0},
};
