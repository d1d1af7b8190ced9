/* Picks the CPU back end. */
#include "hv/arch/x86/vendor.h"

#include "hv/core/cpu.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

const struct vcpu_vendor *vendor;

void vcpu_vendor_init(struct cpu *cpu)
{
    const char *no_svm = vcpu_vendor_svm.missing(), *no_vmx = no_svm ? vcpu_vendor_vmx.missing() : NULL;

    if (no_svm && no_vmx)
        boot_fail("CPU %u cannot run virtual machines: %s; %s", cpu->id, no_svm, no_vmx);
    vendor = no_svm ? &vcpu_vendor_vmx : &vcpu_vendor_svm; /* all CPUs of a machine are of one make */
    vendor->cpu_init(cpu);
}

u8 *permission_map_create(u64 frames)
{
    return memset(boot_frames(frames, "permission maps"), 0xff, frames * PAGE_SIZE);
}

void vcpu_allow_ports(struct vcpu *vcpu, u16 first, u32 count)
{
    for (u32 port = first; port < first + count && port < 0x10000; port++)
        vcpu->port_map[port / 8] &= (u8) ~(1u << port % 8);
}
