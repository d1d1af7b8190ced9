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
#include "guestos/kernel/dev/virtio_console.h"
#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/panic.h"
#include "guestos/kernel/shell/shell.h"

void kernel_main(u64 start_info); /* called by boot.S only */

static void report_disks(void)
{
    for (u32 i = 0; i < blk_count(); i++) {
        const struct blk_info *disk = blk_get_info(blk_get(i));
        if (disk->present)
            console_print("guestos: /dev/%s: %llu sectors, queue of %u\n", disk->name,
                          (unsigned long long)disk->sectors, disk->queue_size);
        else
            console_print("guestos: /dev/%s: not usable: %s\n", disk->name, arena_status_text(disk->error));
    }
    if (blk_count() == 0)
        console_print("guestos: no block device\n");
    if (blk_count() == BLK_MAX_DISKS && virtio_count(VIRTIO_ID_BLOCK) > BLK_MAX_DISKS)
        console_print("guestos: disks beyond these %u are not used\n", blk_count());
}

static void report_cards(void)
{
    for (u32 i = 0; i < nic_count(); i++) {
        const struct nic_info *nic = nic_get_info(nic_get(i));
        if (nic->present)
            console_print("guestos: %s: %02x:%02x:%02x:%02x:%02x:%02x, queues of %u and %u\n", nic->name, nic->mac[0],
                          nic->mac[1], nic->mac[2], nic->mac[3], nic->mac[4], nic->mac[5], nic->rx_size, nic->tx_size);
        else
            console_print("guestos: %s: not usable: %s\n", nic->name, arena_status_text(nic->error));
    }
    if (!net_is_present() && net_error() != ERR_NOT_FOUND && nic_count() == 0)
        console_print("guestos: no network: %s\n", arena_status_text(net_error()));
    if (nic_count() == NIC_MAX && virtio_count(VIRTIO_ID_NET) > NIC_MAX)
        console_print("guestos: network cards beyond these %u are not used\n", nic_count());
}

static void report_devices(void)
{
    console_print("guestos: %s, TSC %llu kHz (%s), RAM %llu MiB, I/O arena %llu MiB at 0x%llx\n", lapic_mode(),
                  (unsigned long long)clock_tsc_khz(), clock_source(),
                  (unsigned long long)frames_get_info().total >> 20, (unsigned long long)arena_size() >> 20,
                  (unsigned long long)arena_base());
    report_disks();
    report_cards();
    if (vcon_error() != ERR_NOT_FOUND)
        console_print("guestos: control port: %s\n", arena_status_text(vcon_error()));
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
    vcon_init();
    console_print("\nguestos: 64-bit, booted by PVH, command line '%s'\n", boot.cmdline);
    report_devices();
    shell_run();
}
