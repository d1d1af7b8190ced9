/*
 * kvm-clock (Linux Documentation/virt/kvm/x86/msr.rst): an MSR names a place in the guest's memory. The TSC is constant
 * and never offset, so one write when the guest names the place is enough, and the clock is marked stable.
 */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"

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

bool clock_set_system_time(struct vm *vm, u64 value)
{
    struct pvclock_time time = {
        .version = 2,
        .tsc_timestamp = vm->platform->clock_start,
        .flags = PVCLOCK_TSC_STABLE,
    };
    /* ns = ((ticks << shift) * mul) >> 32, with mul below 2^32: the shift lifts a TSC of under 1 GHz over that. */
    u64 khz = tsc_khz;
    for (; khz <= NS_PER_MS; khz <<= 1)
        time.tsc_shift++;
    time.tsc_to_system_mul = (u32)((NS_PER_MS << 32) / khz);
    return !(value & SYSTEM_TIME_ENABLED) || vm_write(vm, GPA(value & ~SYSTEM_TIME_ENABLED), &time, sizeof(time)) == OK;
}
