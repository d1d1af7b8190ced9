/* Picks the CPU back end. */
#include "hv/arch/x86/vendor.h"

#include "hv/core/cpu.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

static const struct vcpu_vendor *const vendors[] = {&vcpu_vendor_svm, &vcpu_vendor_vmx};

const struct vcpu_vendor *vendor;

static void pick(void)
{
    const char *missing[ARRAY_SIZE(vendors)];

    for (u32 i = 0; i < ARRAY_SIZE(vendors) && !vendor; i++) {
        missing[i] = vendors[i]->missing();
        if (!missing[i])
            vendor = vendors[i];
    }
    if (!vendor)
        boot_fail("this CPU cannot run virtual machines: %s; %s", missing[0], missing[1]);
}

void vcpu_vendor_init(struct cpu *cpu)
{
    const char *missing = NULL;

    if (!vendor)
        pick();
    else
        missing = vendor->missing();
    if (missing)
        boot_fail("CPU %u: %s", cpu->id, missing);
    vendor->cpu_init(cpu);
}

u8 *permission_map_create(u64 frames)
{
    return memset(boot_frames(frames, "permission maps"), 0xff, frames * PAGE_SIZE);
}

void permission_map_allow(u8 *map, u16 first, u32 count)
{
    for (u32 port = first; port < first + count && port < 0x10000; port++)
        map[port / 8] = (u8)(map[port / 8] & ~(1u << port % 8));
}
