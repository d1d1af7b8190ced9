#include "guestos/kernel/arch/clock.h"

#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/panic.h"
#include "shared/acpi/tables.h"

#define TICK_US 100000u
#define CALIBRATE_US 20000u

#define CPUID_1_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_HYPERVISOR_TIMING 0x40000010u

#define PM_TIMER_MASK 0xffffffu
#define PIT_HZ 1193182ull
#define PIT_CHANNEL_2 0x42u
#define PIT_COMMAND 0x43u
#define PIT_GATE 0x61u

static u64 tsc_khz, tsc_start;
static const char *source;
static bool tsc_deadline;
static u64 lapic_khz; /* of the one-shot timer, when there is no TSC deadline */
static u64 armed_tsc; /* when the timer will fire */
static u64 tick_us = TICK_US;
static void (*tick_handler)(void);

/* What the hypervisor or the CPU says of its own accord; 0 when neither does. */
static u64 rate_from_cpuid(void)
{
    if ((cpu_cpuid(1).ecx & CPUID_1_ECX_HYPERVISOR) != 0) {
        u32 last = cpu_cpuid(CPUID_HYPERVISOR).eax;
        if (last >= CPUID_HYPERVISOR_TIMING && last < CPUID_HYPERVISOR + 0x1000) {
            source = "hypervisor";
            return cpu_cpuid(CPUID_HYPERVISOR_TIMING).eax;
        }
    }
    if (cpu_cpuid(0).eax >= 0x15) {
        struct cpuid_result r = cpu_cpuid(0x15); /* SDM 3B 18.7.3: crystal Hz * EBX / EAX */
        if (r.eax != 0 && r.ebx != 0 && r.ecx != 0) {
            source = "CPUID 15h";
            return (u64)r.ecx * r.ebx / r.eax / 1000;
        }
    }
    return 0;
}

static u64 rate_from_pm_timer(u16 port)
{
    u64 ticks = (u64)ACPI_PM_TIMER_HZ * CALIBRATE_US / 1000000;
    u32 first = io_in32(port), passed;
    u64 from = rdtsc();

    source = "PM timer";
    do {
        passed = (io_in32(port) - first) & PM_TIMER_MASK;
    } while (passed < ticks);
    return (rdtsc() - from) * ACPI_PM_TIMER_HZ / passed / 1000;
}

/* 8254 data sheet: channel 2 counts down once (mode 0); its output shows in bit 5 of port 0x61. */
static u64 rate_from_pit(void)
{
    u64 count = PIT_HZ * CALIBRATE_US / 1000000;

    source = "PIT";
    io_out8(PIT_GATE, (u8)((io_in8(PIT_GATE) & ~2u) | 1u));
    io_out8(PIT_COMMAND, 0xb0);
    io_out8(PIT_CHANNEL_2, (u8)count);
    io_out8(PIT_CHANNEL_2, (u8)(count >> 8));
    u64 from = rdtsc();
    while ((io_in8(PIT_GATE) & 0x20) == 0)
        cpu_pause();
    return (rdtsc() - from) * 1000 / CALIBRATE_US;
}

static u64 find_tsc_rate(void)
{
    u64 khz = rate_from_cpuid();

    if (khz != 0)
        return khz;
    if (acpi_get()->pm_timer_port != 0)
        return rate_from_pm_timer(acpi_get()->pm_timer_port);
    if (acpi_get()->hardware_reduced)
        panic("neither CPUID nor a PM timer tells the rate of the TSC");
    return rate_from_pit();
}

static u64 measure_lapic_timer(void)
{
    u64 ticks = tsc_khz * CALIBRATE_US / 1000;

    lapic_timer_start(~0u);
    u64 from = rdtsc();
    while (rdtsc() - from < ticks)
        cpu_pause();
    u64 khz = (u64)(~0u - lapic_timer_remaining()) * 1000 / CALIBRATE_US;
    lapic_timer_start(0);
    return khz;
}

static void arm(u64 at_tsc)
{
    armed_tsc = at_tsc;
    if (tsc_deadline) {
        msr_write(MSR_TSC_DEADLINE, at_tsc);
        return;
    }
    u64 now = rdtsc();
    u64 count = at_tsc > now ? (at_tsc - now) * lapic_khz / tsc_khz : 0;
    if (count == 0)
        count = 1; /* zero would stop the timer */
    lapic_timer_start(count > ~0u ? ~0u : (u32)count);
}

static void on_timer(void *unused)
{
    (void)unused;
    arm(rdtsc() + tick_us * tsc_khz / 1000);
    if (tick_handler != NULL)
        tick_handler();
}

void clock_init(void)
{
    tsc_khz = find_tsc_rate();
    if (tsc_khz == 0)
        panic("the TSC does not count");
    tsc_deadline = (cpu_cpuid(1).ecx & CPUID_1_ECX_TSC_DEADLINE) != 0;
    if (!tsc_deadline)
        lapic_khz = measure_lapic_timer();
    tsc_start = rdtsc();
    interrupt_set_handler(VECTOR_TIMER, on_timer, NULL);
    lapic_timer_configure(VECTOR_TIMER, tsc_deadline);
    arm(rdtsc() + tick_us * tsc_khz / 1000);
}

void clock_set_tick(u64 period_us, void (*handler)(void))
{
    tick_handler = handler;
    tick_us = period_us;
}

u64 clock_tsc_khz(void)
{
    return tsc_khz;
}

const char *clock_source(void)
{
    return source;
}

u64 clock_us(void)
{
    return (rdtsc() - tsc_start) * 1000 / tsc_khz;
}

u64 clock_tsc_to_ns(u64 ticks)
{
    return ticks * 1000 / tsc_khz * 1000 + ticks * 1000 % tsc_khz * 1000 / tsc_khz;
}

void clock_wait_until(u64 serial, u64 deadline_us)
{
    u64 deadline_tsc = tsc_start + deadline_us * tsc_khz / 1000;

    if (deadline_us <= clock_us())
        return;
    cpu_disable_interrupts();
    /* Nearer than the next tick: worth an access to the timer. Else the tick will do, and its handler arms the next. */
    if (deadline_us < ~0ull / tsc_khz && deadline_tsc < armed_tsc)
        arm(deadline_tsc);
    interrupt_wait(serial);
}
