/* Sweeps: every MSR, every port, every CPUID leaf, every register of PCI configuration space; and storms of exits. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/hostile/case.h"
#include "guestos/kernel/mm/mix.h"
#include "shared/pci/ports.h"

#define MSR_LVT_TIMER 0x832u
#define MSR_SELF_IPI 0x83fu
#define ANYWHERE ~0u

#define UART_FIRST 0x3f8u
#define UART_LAST 0x3ffu
#define SLEEP_PORT 0x604u /* docs/PLATFORM.md: 0x34 switches off, and only that */
#define RESET_PORT 0x606u /* 1 resets */

#define CPUID_LEAVES 0x40u
#define CPUID_SUBLEAVES 4u
#define STORM_US 1000000u

static const u8 code_rdmsr[] = {0x0f, 0x32}, code_wrmsr[] = {0x0f, 0x30}, code_cpuid[] = {0x0f, 0xa2};

static bool msr_try_read(u32 index, u64 *value)
{
    struct attempt a = {.rcx = index};

    if (case_run_once(code_rdmsr, sizeof(code_rdmsr), &a) != ATTEMPT_ENDED)
        return false;
    *value = a.rdx << 32 | (u32)a.rax;
    return true;
}

static bool msr_try_write(u32 index, u64 value)
{
    struct attempt a = {.rcx = index, .rax = (u32)value, .rdx = value >> 32};
    return case_run_once(code_wrmsr, sizeof(code_wrmsr), &a) == ATTEMPT_ENDED;
}

/* Read; write 0, all ones and, where there is one, the old value. Nothing may be raised but #GP. */
static void sweep_msr(u32 index)
{
    u64 old;
    bool readable = msr_try_read(index, &old);

    msr_try_write(index, 0);
    msr_try_write(index, ~0ull);
    if (readable)
        msr_try_write(index, old);
}

/* The APIC's timer and enable bit were played with, and KVM's EOI switched off: as after boot again. */
static void restore_apic(u64 timer)
{
    lapic_init();
    msr_write(MSR_LVT_TIMER, timer);
    msr_write(MSR_TSC_DEADLINE, rdtsc() + clock_tsc_khz());
    uart_enable_input(); /* its edge may have come while the APIC was off */
}

/* count of them: from `first` on, or, when there is no first, anywhere (random, but always the same). */
static const char *sweep_msrs(u32 first, u32 count)
{
    u64 timer = msr_read(MSR_LVT_TIMER);

    cpu_disable_interrupts();
    for (u32 i = 0; i < count; i++)
        sweep_msr(first != ANYWHERE ? first + i : (u32)mix64(i) | 0x80000);
    restore_apic(timer);
    cpu_enable_interrupts();
    for (u32 outcome = 0; outcome < ATTEMPT_ENDED; outcome++)
        if (outcome != FAULT_GP && attempt_tally(outcome) != 0)
            return case_wrong("some were answered by %s", attempt_name(outcome));
    return NULL;
}

static const char *run_msr_low(void)
{
    return sweep_msrs(0, 0x2000);
}

static const char *run_msr_hypervisor(void)
{
    return sweep_msrs(0x40000000, 0x100);
}

static const char *run_msr_kvm(void)
{
    return sweep_msrs(0x4b564d00, 0x100);
}

static const char *run_msr_extended(void)
{
    return sweep_msrs(0xc0000000, 0x2000);
}

static const char *run_msr_amd(void)
{
    return sweep_msrs(0xc0010000, 0x2000);
}

static const char *run_msr_random(void)
{
    return sweep_msrs(ANYWHERE, 2000);
}

/* Registers that mean something to us when written: the values that hold them together. */
static const char *run_msr_values(void)
{
    static const u32 indices[] = {0x10,       0x1b,       0x3a,       0x6e0,      0x80f,      0x830,
                                  0x832,      0x277,      0x174,      0x175,      0x176,      0xc0000080,
                                  0xc0000081, 0xc0000082, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102,
                                  0xc0010114, 0xc0010117, 0x4b564d01, 0x4b564d04};
    u64 timer = msr_read(MSR_LVT_TIMER);

    cpu_disable_interrupts();
    for (u32 i = 0; i < ARRAY_SIZE(indices); i++) {
        u64 old = 0;
        msr_try_read(indices[i], &old);
        for (u32 bit = 0; bit < 64; bit++) {
            /* EFER.NXE: as in case_register.c. An interrupt with vector 16 would look like #MF to this kernel. */
            if ((indices[i] == 0xc0000080 && bit == 11) || (indices[i] == 0x830 && bit == 4))
                continue;
            msr_try_write(indices[i], old ^ 1ull << bit);
        }
        msr_try_write(indices[i], old);
    }
    restore_apic(timer);
    cpu_enable_interrupts();
    return NULL;
}

/*
 * IN or OUT of 8, 16 or 32 bits for all ports of a range, in one loop of their own: nothing else is touched between two
 * exits, which under emulation is what takes the time. EBX: the value; RSI: the first port behind the range.
 */
static const struct {
    u8 code[12], length;
} port_moves[] = {
    /* 1: MOV EAX, EBX; the move; INC EDX; CMP EDX, ESI; JB 1b */
    {{0x89, 0xd8, 0xec, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf7}, 9},
    {{0x89, 0xd8, 0x66, 0xed, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf6}, 10},
    {{0x89, 0xd8, 0xed, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf7}, 9},
    {{0x89, 0xd8, 0xee, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf7}, 9},
    {{0x89, 0xd8, 0x66, 0xef, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf6}, 10},
    {{0x89, 0xd8, 0xef, 0xff, 0xc2, 0x39, 0xf2, 0x72, 0xf7}, 9},
};

static const char *sweep_ports(u32 first, u32 last, u64 value)
{
    for (u32 i = 0; i < ARRAY_SIZE(port_moves); i++) {
        struct attempt a = {.rdx = first, .rbx = value, .rsi = last + 1};
        if (case_run_once(port_moves[i].code, port_moves[i].length, &a) != ATTEMPT_ENDED)
            return case_wrong("%s", attempt_name(a.outcome));
    }
    return NULL;
}

static const char *run_ports(void)
{
    const char *wrong = sweep_ports(0, UART_FIRST - 1, ~0ull);

    if (wrong == NULL)
        wrong = sweep_ports(UART_LAST + 1, 0xffff, ~0ull);
    if (blk_restart_all() != OK)
        return "a disk does not start again";
    return wrong;
}

/* The console's own: nothing is printed while the divisor's latch is open, and afterwards it is set up again. */
static const char *run_ports_uart(void)
{
    const char *wrong = NULL;

    cpu_disable_interrupts();
    for (u64 value = 0x80; value <= 0xff && wrong == NULL; value += 0x7f) {
        io_out8(UART_FIRST + 3, (u8)value);
        wrong = sweep_ports(UART_FIRST, UART_LAST, value);
    }
    uart_init();
    uart_enable_input();
    cpu_enable_interrupts();
    return wrong;
}

/* Only the documented values do something at the power ports: all others, in all widths. */
static const char *run_ports_power(void)
{
    for (u32 value = 0; value < 256; value++) {
        const char *wrong = NULL;
        if ((value & 0x3c) != 0x34)
            wrong = sweep_ports(SLEEP_PORT, SLEEP_PORT + 1, value);
        if (wrong == NULL && value != 1)
            wrong = sweep_ports(RESET_PORT, RESET_PORT, value);
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

/* Each register of every function of bus 0: ones, zero, then what was there. */
static const char *run_pci(void)
{
    for (u32 address = PCI_CONFIG_ENABLE; address < (PCI_CONFIG_ENABLE | 0x10000); address += 4) {
        if ((address >> 8 & 7) > 0 && (address & 0xff) != 0) /* there is one function each; the others are touched */
            continue;
        io_out32(PCI_CONFIG_ADDRESS, address);
        u32 old = io_in32(PCI_CONFIG_DATA);
        io_out32(PCI_CONFIG_DATA, ~0u);
        io_out8(PCI_CONFIG_DATA + 1, 0x55);
        io_out16(PCI_CONFIG_DATA + 2, 0xaaaa);
        io_out16(PCI_CONFIG_DATA + 1, 0xffff); /* not aligned */
        io_out32(PCI_CONFIG_DATA, 0);
        io_out32(PCI_CONFIG_DATA, old);
    }
    if (blk_restart_all() != OK)
        return "a disk does not start again";
    return NULL;
}

static const char *run_cpuid(void)
{
    static const u32 bases[] = {0, 0x20000000, 0x40000000, 0x80000000, 0x8fffff00, 0xc0000000, 0xffffffc0};

    for (u32 i = 0; i < ARRAY_SIZE(bases); i++)
        for (u32 leaf = bases[i]; leaf - bases[i] < CPUID_LEAVES; leaf++)
            for (u32 subleaf = 0; subleaf < CPUID_SUBLEAVES; subleaf++) {
                struct attempt a = {.rax = leaf, .rcx = subleaf == 3 ? ~0u : subleaf};
                if (case_run_once(code_cpuid, sizeof(code_cpuid), &a) != ATTEMPT_ENDED)
                    return attempt_name(a.outcome);
            }
    return NULL;
}

/* Nothing but exits for a second, interrupts off: drivers and the control port must get their turn all the same. */
static const char *storm(const u8 *code, u32 length, u64 rcx, u64 rdx)
{
    u64 end = clock_us() + STORM_US;
    u64 at = attempt_place(ATTEMPT_CODE, code, length);

    while (clock_us() < end) {
        struct attempt a = {.code = at, .rcx = rcx, .rdx = rdx};
        attempt_run(&a);
    }
    return NULL;
}

static const char *run_storm_port(void)
{
    return storm((const u8[]){0xed, 0xef, 0xed, 0xef}, 4, 0, 0x80);
}

static const char *run_storm_msr(void)
{
    return storm(code_rdmsr, sizeof(code_rdmsr), 0x12345678, 0);
}

static const char *run_storm_wbinvd(void)
{
    return storm((const u8[]){0x0f, 0x09, 0x0f, 0x08, 0x0f, 0x09, 0x0f, 0x08}, 8, 0, 0);
}

static const char *run_storm_undefined(void)
{
    return storm((const u8[]){0x0f, 0x01, 0xd9}, 3, 0, 0);
}

static const char *run_storm_ipi(void)
{
    /* MOV EAX, vector; XOR EDX, EDX; WRMSR; STI; NOP; CLI */
    static const u8 code[] = {0xb8, CASE_VECTOR, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0xfb, 0x90, 0xfa};
    u64 before = interrupt_count(CASE_VECTOR);

    storm(code, sizeof(code), MSR_SELF_IPI, 0);
    return interrupt_count(CASE_VECTOR) != before ? NULL : "none of them arrived";
}

const struct cpu_case case_sweeps[] = {
    {"msr-low", "MSRs 0 to 0x1fff, the local APIC's among them", .run = run_msr_low},
    {"msr-hypervisor", "MSRs 0x40000000 to 0x400000ff", .run = run_msr_hypervisor},
    {"msr-kvm", "MSRs 0x4b564d00 to 0x4b564dff: clock and EOI", .run = run_msr_kvm},
    {"msr-extended", "MSRs 0xc0000000 to 0xc0001fff, EFER and system calls among them", .run = run_msr_extended},
    {"msr-amd", "MSRs 0xc0010000 to 0xc0011fff, VM_CR and VM_HSAVE_PA among them", .run = run_msr_amd},
    {"msr-random", "MSRs anywhere", .run = run_msr_random},
    {"msr-values", "each bit of the registers that do something", .run = run_msr_values},
    {"ports", "each port, in and out, 8, 16 and 32 bits", .run = run_ports},
    {"ports-uart", "the console's own", .run = run_ports_uart},
    {"ports-power", "all values but those that switch off or reset", .run = run_ports_power},
    {"pci-config", "each register of PCI configuration space", .run = run_pci},
    {"cpuid-leaves", "each leaf there may be, and some there are not", .run = run_cpuid},
    {"storm-port", "a second of IN and OUT", .run = run_storm_port},
    {"storm-msr", "a second of RDMSR", .run = run_storm_msr},
    {"storm-wbinvd", "a second of WBINVD and INVD", .run = run_storm_wbinvd},
    {"storm-vmmcall", "a second of #UD", .run = run_storm_undefined},
    {"storm-ipi", "a second of interrupts sent to itself", .run = run_storm_ipi},
    {0},
};
