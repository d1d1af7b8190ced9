/* The lock, the log, the end of the machine, time. */
#include "hv/core/hypervisor.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/control/console.h"
#include "hv/control/control.h"
#include "hv/core/cpu.h"
#include "hv/core/machine.h"
#include "hv/pci/pci.h"
#include "shared/lib/printf.h"
#include "shared/x86/io.h"

#define LINE_SIZE 256u

u64 tsc_khz = 1000000; /* a guess until apic_calibrate(), for the first lines of the log */
u64 machine_start;
u16 machine_exit_port;
bool machine_ends;
static bool panicking;

/*
 * Whoever finds it free takes it, no queue: where the CPUs below are themselves scheduled, the next in a queue may not
 * be running, and all wait for it (Linux's virt_spin_lock() has the same reason). Nobody starves: it is not held in
 * guest mode, nor while idle, and each CPU goes there between two stays.
 */
static bool lock;

void hv_lock(void)
{
    while (__atomic_exchange_n(&lock, true, __ATOMIC_ACQUIRE))
        while (__atomic_load_n(&lock, __ATOMIC_RELAXED))
            cpu_pause();
}

void hv_unlock(void)
{
    __atomic_store_n(&lock, false, __ATOMIC_RELEASE);
}

u64 tsc_now(void)
{
    return rdtsc();
}

u64 time_us(void)
{
    return tsc_to_us(rdtsc() - machine_start);
}

void machine_init(void)
{
    machine_start = rdtsc();
    console_init();
}

void hv_log(const char *fmt, ...)
{
    char line[LINE_SIZE];
    u64 us = time_us();
    int text = bh_snprintf(line, sizeof(line), "[hv %5lu.%06lu] ", us / 1000000, us % 1000000);

    BH_FORMAT(line + text, sizeof(line) - (size_t)text, fmt);
    console_line(line);
    event_add(EVENT_LOG, EVENT_NO_VM, "%s", line + text);
}

static _Noreturn void halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void stop_other_cpus(void)
{
    __atomic_store_n(&machine_ends, true, __ATOMIC_RELEASE);
    for (u32 i = 0; i < cpu_count; i++)
        if (i != this_cpu()->id && cpus[i].online)
            apic_send(cpus[i].apic_id, VECTOR_STOP);
}

void machine_end(enum machine_end how)
{
    for (u32 i = 0; i < pci_device_count; i++)
        pci_set_bus_master(&pci_devices[i], false);
    if (machine_exit_port)
        io_out32(machine_exit_port, (u32)how);
    /* Still here: whoever watches the console sees that nothing more will come, and why. */
    console_line(how == MACHINE_POWER_OFF    ? "bulkhead: the machine has stopped; it can be switched off"
                 : how == MACHINE_BOOT_ERROR ? "bulkhead: boot failed; the machine has stopped"
                                             : "bulkhead: the machine has stopped after a panic");
    stop_other_cpus();
    halt();
}

void panic(const char *fmt, ...)
{
    char text[LINE_SIZE];

    BH_FORMAT(text, sizeof(text), fmt);
    if (!__atomic_exchange_n(&panicking, true, __ATOMIC_SEQ_CST)) {
        stop_other_cpus();
        console_line("bulkhead: PANIC:");
        hv_log("panic on CPU %u: %s", this_cpu()->id, text);
        machine_end(MACHINE_PANIC);
    }
    halt();
}

void boot_fail(const char *fmt, ...)
{
    char line[LINE_SIZE];
    int text = bh_snprintf(line, sizeof(line), "bulkhead: ");

    BH_FORMAT(line + text, sizeof(line) - (size_t)text, fmt);
    console_line(line);
    machine_end(MACHINE_BOOT_ERROR);
}
