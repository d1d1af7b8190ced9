#include "guestos/kernel/net/support.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/mm/mix.h"
#include "guestos/kernel/panic.h"

#define CPUID_1_ECX_RDRAND (1u << 30)
#define RTC_INDEX 0x70u
#define RTC_DATA 0x71u
#define RTC_REGISTERS 10u /* time and date (MC146818A data sheet, table 4) */
#define JITTER_ROUNDS 64u

void *net_heap;
static u64 random_state;

u32 sys_now(void);            /* lwIP's clock, declared in its lwip/sys.h */
int atoi(const char *number); /* for lwIP's netif_find */

u32 sys_now(void)
{
    return (u32)(clock_us() / 1000);
}

int atoi(const char *number)
{
    int value = 0;

    for (; *number >= '0' && *number <= '9' && value < 1000000; number++)
        value = value * 10 + (*number - '0');
    return value;
}

static void stir(u64 value)
{
    random_state = mix64(random_state ^ value) + MIX_STEP;
}

/* SDM 1 7.3.17: the carry flag says whether there was a number; it may be used up for a moment. */
static void stir_rdrand(void)
{
    for (u32 i = 0; i < 16; i++) {
        u64 value;
        u8 good;
        __asm__ volatile("rdrand %0; setc %1" : "=r"(value), "=qm"(good) : : "cc");
        if (good)
            stir(value);
    }
}

void net_random_init(void)
{
    for (u8 i = 0; i < RTC_REGISTERS; i++) {
        io_out8(RTC_INDEX, i);
        stir(io_in8(RTC_DATA));
    }
    /* CPUID takes a while that varies: always on a hypervisor, where it exits, and with the caches elsewhere. */
    for (u32 i = 0; i < JITTER_ROUNDS; i++) {
        (void)cpu_cpuid(0);
        stir(rdtsc());
    }
    if ((cpu_cpuid(1).ecx & CPUID_1_ECX_RDRAND) != 0)
        stir_rdrand();
}

u32 net_random(void)
{
    return (u32)(mix_next(&random_state) >> 32);
}

void net_assertion_failed(const char *text, int line)
{
    panic("lwIP: %s (line %d)", text, line);
}
