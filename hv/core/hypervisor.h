/*
 * What every file of the hypervisor may use: the one lock, the log, the end of the machine, time.
 *
 * Locking: one lock (docs/decisions/002). It is held whenever hypervisor code runs on shared state: from a VM exit to
 * the next entry, in boot after other CPUs run, while draining interrupts. It is not held in guest mode and while idle.
 * Every function of hv/ needs it unless its header says otherwise. Hypervisor code runs with interrupts off; the
 * interrupt stubs only set flags, in the windows that the run loop opens.
 *
 * Severities, never mixed: a request error is answered to its sender; a VM fault (recovery_report, vm_fail) costs that
 * VM; panic() is for broken hypervisor invariants only and must not be reachable by anyone's data.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

void hv_lock(void);
void hv_unlock(void);

/* One line to the console (COM1), "[hv  12.345678] text"; no newline in fmt. Also into the event log as EVENT_LOG. */
void hv_log(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A broken invariant of our own: say where, stop all CPUs, end the machine with MACHINE_PANIC. */
_Noreturn void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A boot error: "bulkhead: <text>" on the console, nothing started, end with MACHINE_BOOT_ERROR. */
_Noreturn void boot_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);

#define ASSERT_HV(cond)                                                                                                \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            panic("%s:%d: %s", __FILE__, __LINE__, #cond);                                                             \
    } while (0)

enum machine_end { MACHINE_POWER_OFF = 0x20, MACHINE_BOOT_ERROR = 0x21, MACHINE_PANIC = 0x22 };

/* Quiet all devices, write `how` to the manifest's exit_port if there is one, else halt every CPU. */
_Noreturn void machine_end(enum machine_end how);

/* The clock of the whole machine. tsc_khz is set once at boot. No lock needed. */
extern u64 tsc_khz;
u64 tsc_now(void);
static inline u64 tsc_from_us(u64 us)
{
    return us / 1000 * tsc_khz + us % 1000 * tsc_khz / 1000;
}
static inline u64 tsc_to_us(u64 ticks)
{
    return ticks / tsc_khz * 1000 + ticks % tsc_khz * 1000 / tsc_khz;
}
/* Busy waiting: for hardware that asks for a pause. */
static inline void delay_us(u64 us)
{
    for (u64 end = tsc_now() + tsc_from_us(us); tsc_now() < end;)
        __builtin_ia32_pause();
}
/* Busy waiting for a condition; false: it did not come within that time. The clock first, then the look: there is
 * always one after the end, however long we did not run. */
#define WAIT_UNTIL(condition, us)                                                                                      \
    ({                                                                                                                 \
        u64 now_ = tsc_now(), end_ = now_ + tsc_from_us(us);                                                           \
        bool came_;                                                                                                    \
        for (; !(came_ = (condition)) && now_ < end_; now_ = tsc_now())                                                \
            __builtin_ia32_pause();                                                                                    \
        came_;                                                                                                         \
    })
/* Microseconds since the hypervisor was entered. */
u64 time_us(void);
