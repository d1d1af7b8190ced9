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

/* The sleep and reset registers that the FADT names (ACPI 6.4 4.8.3.7, 4.8.3.6) */
#define SLEEP_MASK 0x3cu           /* SLP_EN, SLP_TYP; the rest is ignored */
#define SLEEP_S5 (0x20u | 5u << 2) /* the type is what \_S5 in the DSDT says */
#define RESET_VALUE 1u

#define PCI_CONFIG_PORT 0xcf8u

static struct platform the_platform;

static void power_port(struct vm *vm, u16 port, u8 width, bool write, u32 *value)
{
    if (width != 1)
        return;
    if (!write) {
        *value = 0; /* nothing is pending; the machine never wakes, it starts */
    } else if (port == PLATFORM_SLEEP_PORT && (*value & SLEEP_MASK) == SLEEP_S5) {
        hv_log("%s: power off", vm->name);
        machine_end(MACHINE_POWER_OFF);
    } else if (port == PLATFORM_RESET_PORT && *value == RESET_VALUE) {
        platform_restart(vm);
    }
}

void platform_port(struct vm *vm, u16 port, u8 width, bool write, u32 *value)
{
    if (width != 1 && width != 2 && width != 4)
        return;
    u32 mask = ~0u >> (32 - width * 8);
    *value = write ? *value & mask : mask;
    if (port - PLATFORM_UART_PORT < 8) /* unsigned: the lower ports are far above */
        uart_port(vm, port - PLATFORM_UART_PORT, width, write, value);
    else if (port - PLATFORM_SLEEP_PORT < 3)
        power_port(vm, port, width, write, value);
    else if (port - PCI_CONFIG_PORT < 8)
        pci_bus_port(vm, port - PCI_CONFIG_PORT, width, write, value);
    else
        for (u32 slot = 0; slot < VM_MAX; slot++) /* whose BAR is it? Nobody's: the ones stay */
            if (relays[slot] && relay_port(relays[slot], port, width, write, value))
                break;
    *value &= mask;
}

bool platform_memory(struct vm *vm, gpa_t address, u8 width, bool write, u64 *value)
{
    if (PAGE_DOWN(address.v) == PLATFORM_IOAPIC_BASE) {
        ioapic_memory(&vm->platform->ioapic, (u32)(address.v & PAGE_MASK), width, write, value);
        return true;
    }
    for (u32 slot = 0; slot < VM_MAX; slot++)
        if (relays[slot] && relay_memory(relays[slot], address, width, write, value))
            return true;
    return false;
}

struct platform_stats platform_stats(const struct vm *vm)
{
    return vm->platform->stats;
}

/* Everything as at power-on; only the counters go on. */
static void reset_devices(struct platform *platform)
{
    *platform =
        (struct platform){.image = platform->image, .image_size = platform->image_size, .stats = platform->stats};
    lapic_reset(&platform->lapic);
    ioapic_reset(&platform->ioapic);
}

/* Into wiped memory: the tables, the image, the vCPU's start state. */
static status_t load(struct vm *vm, const char **why)
{
    vm->platform->clock_start = tsc_now();
    acpi_write(vm_ram(vm, GPA(ACPI_AREA), LOW_RESERVED_END - ACPI_AREA));
    return pvh_load(vm, why);
}

status_t platform_create(struct vm *vm, const void *image, u64 image_size, const char **why)
{
    *why = "the guest's memory must be at least 2 MiB and at most 3 GiB";
    if (vm->ram_size < GUEST_RAM_MIN || vm->ram_size > PLATFORM_RAM_MAX)
        return ERR_RANGE;
    memset(vm_ram(vm, GPA(0), vm->ram_size), 0, vm->ram_size);
    the_platform = (struct platform){.image = image, .image_size = image_size};
    vm->platform = &the_platform;
    reset_devices(vm->platform);
    return load(vm, why);
}

/* ---- restart: stop, wait for DMA to end, wipe in steps, start ---- */

void platform_restart(struct vm *vm)
{
    if (vm->platform->restarting)
        return;
    event_add(EVENT_GUEST, vm->id, "reset");
    vcpu_stop(&vm->vcpu);
    vm->failed = NULL; /* an operator may want it back after its end */
    reset_devices(vm->platform);
    for (u32 slot = 0; slot < VM_MAX; slot++)
        if (relays[slot])
            relay_guest_reset(relays[slot]);
    vm->platform->restarting = true;
}

static void start_again(struct vm *vm)
{
    const char *why = "the guest image does not load again";
    vm->platform->restarting = false;
    if (load(vm, &why) != OK) {
        vm_fail(vm, why, 0);
        return;
    }
    event_add(EVENT_GUEST, vm->id, "started again");
    vm->vcpu.state = VCPU_BLOCKED;
    vcpu_wake(&vm->vcpu);
}

/*
 * Requests of the old guest may still write into memory by DMA: nothing of the new one may be there before they are
 * through. There are no new ones, since its vCPU is stopped and its devices are reset.
 */
void platform_tick(struct vm *vm)
{
    struct platform *platform = vm->platform;
    if (!platform->restarting)
        return;
    for (u32 slot = 0; slot < VM_MAX; slot++)
        if (relays[slot] && relay_in_flight(relays[slot]))
            return;
    u64 left = vm->ram_size - platform->wiped;
    u64 step = left < WIPE_STEP ? left : WIPE_STEP;
    memset(vm_ram(vm, GPA(platform->wiped), step), 0, step);
    platform->wiped += step;
    if (step == left)
        start_again(vm);
}
