/*
 * Time: the TSC, its rate, and one timer interrupt. The timer ticks ten times a second so that nothing waits for ever
 * for an interrupt that a device forgot; it is moved forward when somebody waits for less.
 */
#pragma once

#include "shared/lib/types.h"

/* Find the TSC's rate (CPUID, else the PM timer or PIT) and start the timer. After lapic_init, interrupts still off. */
void clock_init(void);

/* Let `handler` run in the timer interrupt, every period_us microseconds instead of ten times a second. */
void clock_set_tick(u64 period_us, void (*handler)(void));

u64 clock_tsc_khz(void);
const char *clock_source(void); /* how the rate was found */
u64 clock_us(void);             /* microseconds since clock_init */
u64 clock_tsc_to_ns(u64 ticks); /* valid for differences of up to some days */

/* Sleep until an interrupt later than `serial` (see interrupt.h), but not beyond clock_us() == deadline_us. */
void clock_wait_until(u64 serial, u64 deadline_us);
