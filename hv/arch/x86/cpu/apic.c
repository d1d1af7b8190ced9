/* Local APIC and its timer. */
#include "hv/arch/x86/cpu/apic.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "shared/acpi/tables.h"
#include "shared/lib/checked.h"
#include "shared/x86/apic.h"
#include "shared/x86/io.h"

#define SOONEST_US 10u /* the timer's period may be no shorter, or its interrupts are all that happens */

static volatile u32 *mmio;
static bool x2apic;
static u64 timer_per_tsc_q32; /* APIC timer counts per TSC tick, 32.32 fixed point */

static u32 apic_read(u32 reg)
{
    return x2apic ? (u32)msr_read(MSR_X2APIC + reg / 16) : mmio[reg / 4];
}

static void apic_write(u32 reg, u32 value)
{
    if (x2apic)
        msr_write(MSR_X2APIC + reg / 16, value);
    else
        mmio[reg / 4] = value;
}

u32 apic_id(void)
{
    return x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

void apic_init_cpu(void)
{
    u64 base = msr_read(MSR_APIC_BASE);

    if (!mmio) { /* first CPU: the others follow its mode */
        x2apic = base & APIC_BASE_EXTD;
        mmio = paging_map_device(HPA(base & APIC_BASE_ADDRESS), PAGE_SIZE);
    }
    msr_write(MSR_APIC_BASE, base | APIC_BASE_ENABLE | (x2apic ? APIC_BASE_EXTD : 0));
    apic_write(APIC_TPR, 0x1f); /* nobody may send what would come in at the gate of an exception */
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    apic_write(APIC_LVT_LINT1, APIC_MASKED);
    apic_write(APIC_LVT_ERROR, APIC_MASKED);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
    apic_write(APIC_SPURIOUS, APIC_ENABLE | VECTOR_SPURIOUS);
}

static void icr_write(u32 destination, u32 low)
{
    if (x2apic) {
        msr_write(MSR_X2APIC + APIC_ICR_LOW / 16, (u64)destination << 32 | low);
        return;
    }
    while (mmio[APIC_ICR_LOW / 4] & ICR_PENDING)
        cpu_pause();
    mmio[APIC_ICR_HIGH / 4] = destination << 24;
    mmio[APIC_ICR_LOW / 4] = low;
}

void apic_send(u32 destination, u8 vector)
{
    icr_write(destination, ICR_ASSERT | vector);
}

void apic_start_cpu(u32 destination, u8 page)
{
    icr_write(destination, ICR_ASSERT | ICR_INIT);
    delay_us(10000);
    icr_write(destination, ICR_ASSERT | ICR_STARTUP | page);
    delay_us(200);
    icr_write(destination, ICR_ASSERT | ICR_STARTUP | page);
}

void apic_calibrate(u16 pm_timer_port)
{
    const u32 window = ACPI_PM_TIMER_HZ / 50; /* 20 ms */
    u32 start = io_in32(pm_timer_port), passed;

    apic_write(APIC_TIMER_INITIAL, 0xffffffff);
    u64 tsc = rdtsc();
    do {
        passed = (io_in32(pm_timer_port) - start) & 0xffffff; /* 24 bits at least */
    } while (passed < window);
    tsc = rdtsc() - tsc;
    u64 counts = 0xffffffff - apic_read(APIC_TIMER_CURRENT);
    apic_write(APIC_TIMER_INITIAL, 0);

    tsc_khz = tsc * ACPI_PM_TIMER_HZ / passed / 1000;
    timer_per_tsc_q32 = (counts << 32) / tsc;
}

void apic_timer_arm(u64 deadline, bool again)
{
    u64 now = rdtsc();

    if (deadline == ~0ull) {
        apic_write(APIC_LVT_TIMER, APIC_MASKED);
        apic_write(APIC_TIMER_INITIAL, 0);
        return;
    }
    u64 soonest = tsc_from_us(SOONEST_US), ticks = deadline > now + soonest ? deadline - now : soonest;
    ticks = min_u64(ticks, tsc_khz * 1000); /* a second at most: the run loop arms again */
    u64 counts = (u64)(((unsigned __int128)ticks * timer_per_tsc_q32) >> 32) + 1;
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | (again ? APIC_PERIODIC : 0));
    apic_write(APIC_TIMER_INITIAL, (u32)min_u64(counts, 0xffffffff));
}
