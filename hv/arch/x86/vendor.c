/* Picks the CPU back end. */
#include "hv/arch/x86/vendor.h"

#include "hv/core/hypervisor.h"

static const struct vcpu_vendor *const vendors[] = {&vcpu_vendor_svm};

const struct vcpu_vendor *vendor;

void vcpu_vendor_select(void)
{
    const char *missing = NULL;

    for (u32 i = 0; i < ARRAY_SIZE(vendors); i++) {
        const char *why = NULL;
        if (vendors[i]->present(&why)) {
            vendor = vendors[i];
            return;
        }
        if (why)
            missing = why;
    }
    boot_fail("this CPU cannot run virtual machines: %s", missing ? missing : "no AMD SVM (CPUID 80000001h ECX bit 2)");
}
