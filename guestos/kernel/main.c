/* guestos: the small main guest. Boot in order, then the shell. */
#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/lapic.h"
#include "guestos/kernel/arch/paging.h"
#include "guestos/kernel/arch/pvh.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/panic.h"
#include "guestos/kernel/shell/shell.h"

void kernel_main(u64 start_info); /* called by boot.S only */

static void report_devices(void)
{
    const struct blk_info *blk = blk_get_info();

    console_print("guestos: %s, TSC %llu kHz (%s), RAM %llu MiB, I/O arena %llu MiB at 0x%llx\n", lapic_mode(),
                  (unsigned long long)clock_tsc_khz(), clock_source(),
                  (unsigned long long)frames_get_info().total >> 20, (unsigned long long)arena_size() >> 20,
                  (unsigned long long)arena_base());
    if (blk->present)
        console_print("guestos: /dev/vda: %llu sectors, queue of %u\n", (unsigned long long)blk->sectors,
                      blk->queue_size);
    else
        console_print("guestos: no block device: %s\n", status_text(blk->error));
}

void kernel_main(u64 start_info)
{
    static struct pvh_boot boot;

    uart_init();
    status_t status = pvh_read(start_info, &boot); /* copied: the loader's memory is ours to give away afterwards */
    if (status != OK)
        panic("start information: %s", status_text(status));
    acpi_init(boot.rsdp); /* while all tables are still where firmware put them */
    frames_init(&boot);
    paging_init(&boot);
    interrupt_init();
    lapic_init();
    clock_init();
    uart_enable_input();
    cpu_enable_interrupts();
    status = arena_init();
    if (status != OK)
        panic("I/O arena: %s", status_text(status));
    blk_init();
    net_init();
    console_print("\nguestos: 64-bit, booted by PVH, command line '%s'\n", boot.cmdline);
    report_devices();
    shell_run();
}
