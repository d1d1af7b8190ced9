/* The sleep and reset registers that the FADT names (ACPI 6.4 4.8.3.7, 4.8.3.6). Byte accesses only. */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"

#define SLEEP_ENABLE 0x20u
#define SLEEP_TYPE(value) ((value) >> 2 & 7)
#define SLEEP_TYPE_S5 5u /* what \_S5 in the DSDT says */
#define RESET_VALUE 1u

void power_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value)
{
    u32 port = PLATFORM_SLEEP_PORT + offset;
    if (width != 1)
        return;
    if (!write) {
        *value = 0; /* nothing is pending; the machine never wakes, it starts */
        return;
    }
    if (port == PLATFORM_SLEEP_PORT && *value & SLEEP_ENABLE && SLEEP_TYPE(*value) == SLEEP_TYPE_S5) {
        hv_log("%s: power off", vm->name);
        machine_end(MACHINE_POWER_OFF);
    }
    if (port == PLATFORM_RESET_PORT && *value == RESET_VALUE)
        platform_restart(vm);
}
