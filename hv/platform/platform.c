/* The guest's machine as a whole: creation, restart, and where each port and address leads. */
#include "hv/platform/platform.h"

#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"

/* What one tick wipes while the guest restarts: about a millisecond with the lock held, so that driver VMs go on being
 * served. */
#define WIPE_STEP MIB(2)

static struct platform the_platform;

static const struct port_range {
    u16 first, count;
    void (*access)(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);
} port_ranges[] = {
    {PLATFORM_UART_PORT, 8, uart_port},
    {PLATFORM_SLEEP_PORT, 3, power_port},
    {0xcf8, 8, pci_bus_port},
};

void platform_port(struct vm *vm, u16 port, u8 width, bool write, u32 *value)
{
    if (width != 1 && width != 2 && width != 4)
        return;
    u32 mask = width == 4 ? 0xffffffff : (1u << width * 8) - 1;
    *value = write ? *value & mask : mask;
    const struct port_range *range = port_ranges, *end = port_ranges + ARRAY_SIZE(port_ranges);
    while (range < end && (port < range->first || port - range->first >= range->count))
        range++;
    if (range < end)
        range->access(vm, port - range->first, width, write, value);
    else
        (void)pci_bus_claimed_port(port, width, write, value); /* nobody: the ones stay */
    *value &= mask;
}

bool platform_memory(struct vm *vm, gpa_t address, u8 width, bool write, u64 *value)
{
    if (PAGE_DOWN(address.v) == PLATFORM_IOAPIC_BASE) {
        ioapic_memory(vm, (u32)(address.v & PAGE_MASK), width, write, value);
        return true;
    }
    return pci_bus_claimed_memory(address, width, write, value);
}

void platform_stats(struct vm *vm, struct platform_stats *out)
{
    *out = vm->platform->stats;
}

static void reset_devices(struct platform *platform)
{
    lapic_reset(&platform->lapic);
    ioapic_reset(&platform->ioapic);
    uart_reset(&platform->uart);
    platform->pv_eoi = (struct pv_eoi){0};
    platform->pci_address = 0;
    clock_reset(platform);
}

static status_t load(struct vm *vm, const char **why)
{
    u64 rsdp;
    status_t status = acpi_write(vm, &rsdp);
    if (status != OK)
        return status;
    return pvh_load(vm, vm->platform->image, vm->platform->image_size, rsdp, why);
}

status_t platform_create(struct vm *vm, const void *image, u64 image_size, const char **why)
{
    *why = "the guest's memory must be at least 2 MiB and at most 3 GiB";
    void *ram = vm_ram(vm, GPA(0), vm->ram_size);
    if (vm->ram_size < GUEST_RAM_MIN || vm->ram_size > GUEST_RAM_MAX || !ram)
        return ERR_RANGE;
    memset(ram, 0, vm->ram_size);
    the_platform = (struct platform){.image = image, .image_size = image_size};
    vm->platform = &the_platform;
    reset_devices(vm->platform);
    return load(vm, why);
}

/* ---- restart: stop, wait for DMA to end, wipe in steps, start ---- */

void platform_restart(struct vm *vm)
{
    struct platform *platform = vm->platform;
    if (platform->phase != PLATFORM_RUNNING)
        return;
    event_add(EVENT_GUEST, vm->id, "reset");
    vcpu_stop(&vm->vcpu);
    reset_devices(platform);
    for (u32 slot = 0; slot < VM_MAX; slot++) {
        if (relays[slot])
            relay_guest_reset(relays[slot]);
    }
    platform->phase = PLATFORM_DRAINING;
}

/* Requests of the old guest may still write into memory by DMA: nothing of the new one may be there before they are
 * through. */
static bool requests_drained(void)
{
    for (u32 slot = 0; slot < VM_MAX; slot++) {
        if (relays[slot] && relay_in_flight(relays[slot]))
            return false;
    }
    return true;
}

static void start_again(struct vm *vm)
{
    const char *why = "the guest image does not load again";
    vm->platform->phase = PLATFORM_RUNNING;
    clock_reset(vm->platform);
    if (load(vm, &why) != OK) {
        vm_fail(vm, why, 0);
        return;
    }
    event_add(EVENT_GUEST, vm->id, "started again");
    vm->vcpu.state = VCPU_BLOCKED;
    vcpu_wake(&vm->vcpu);
}

void platform_tick(struct vm *vm)
{
    struct platform *platform = vm->platform;
    if (platform->phase == PLATFORM_DRAINING && requests_drained()) {
        platform->phase = PLATFORM_WIPING;
        platform->wiped = 0;
    }
    if (platform->phase != PLATFORM_WIPING)
        return;
    u64 left = vm->ram_size - platform->wiped;
    u64 step = left < WIPE_STEP ? left : WIPE_STEP;
    void *ram = vm_ram(vm, GPA(platform->wiped), step);
    if (ram)
        memset(ram, 0, step);
    platform->wiped += step;
    if (platform->wiped == vm->ram_size)
        start_again(vm);
}
