/*
 * kvm-clock (Linux Documentation/virt/kvm/x86/msr.rst): two MSRs name places in the guest's memory. The TSC is constant
 * and never offset, so one write when the guest names the place is enough, and the clock is marked stable.
 */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"

#define MSR_WALL_CLOCK 0x4b564d00u
#define MSR_SYSTEM_TIME 0x4b564d01u
#define SYSTEM_TIME_ENABLED 1ull
#define PVCLOCK_TSC_STABLE 1u
#define NS_PER_MS 1000000ull

struct pvclock_time { /* pvclock_vcpu_time_info */
    u32 version;      /* even: complete */
    u32 padding;
    u64 tsc_timestamp;
    u64 system_time; /* ns at that timestamp */
    u32 tsc_to_system_mul;
    signed char tsc_shift;
    u8 flags;
    u8 reserved[2];
};
_Static_assert(sizeof(struct pvclock_time) == 32, "pvclock ABI");

struct pvclock_wall {
    u32 version;
    u32 seconds; /* since 1970, at system time 0 */
    u32 nanoseconds;
};

void clock_reset(struct platform *platform)
{
    platform->system_time_msr = 0;
    platform->wall_clock_msr = 0;
    platform->clock_start = tsc_now();
}

static status_t write_system_time(struct vm *vm, gpa_t at)
{
    struct pvclock_time time = {
        .version = 2,
        .tsc_timestamp = vm->platform->clock_start,
        .flags = PVCLOCK_TSC_STABLE,
    };
    /* ns = ((ticks << shift) * mul) >> 32, with mul below 2^32: the shift lifts a TSC of under 1 GHz over that. */
    u64 khz = tsc_khz;
    while (khz <= NS_PER_MS) {
        khz <<= 1;
        time.tsc_shift++;
    }
    time.tsc_to_system_mul = (u32)((NS_PER_MS << 32) / khz);
    return vm_write(vm, at, &time, sizeof(time));
}

/* The machine's date is not known to the hypervisor: the guest's calendar starts at 1970. */
static status_t write_wall_clock(struct vm *vm, gpa_t at)
{
    const struct pvclock_wall wall = {.version = 2};
    return vm_write(vm, at, &wall, sizeof(wall));
}

bool clock_msr(struct vm *vm, u32 index, bool write, u64 *value)
{
    struct platform *platform = vm->platform;
    u64 *msr = index == MSR_SYSTEM_TIME ? &platform->system_time_msr : &platform->wall_clock_msr;
    status_t status = OK;
    if (!write) {
        *value = *msr;
        return true;
    }
    if (index == MSR_WALL_CLOCK)
        status = write_wall_clock(vm, GPA(*value));
    else if (*value & SYSTEM_TIME_ENABLED)
        status = write_system_time(vm, GPA(*value & ~SYSTEM_TIME_ENABLED));
    if (status != OK)
        return false;
    *msr = *value;
    return true;
}
