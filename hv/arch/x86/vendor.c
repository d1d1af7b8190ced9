/* Picks the CPU back end. */
#include "hv/arch/x86/vendor.h"

#include "hv/core/hypervisor.h"

static const struct vcpu_vendor *const vendors[] = {&vcpu_vendor_svm, &vcpu_vendor_vmx};

const struct vcpu_vendor *vendor;

void vcpu_vendor_select(void)
{
    const char *missing[ARRAY_SIZE(vendors)];

    for (u32 i = 0; i < ARRAY_SIZE(vendors); i++) {
        missing[i] = vendors[i]->missing();
        if (!missing[i]) {
            vendor = vendors[i];
            return;
        }
    }
    boot_fail("this CPU cannot run virtual machines: %s; %s", missing[0], missing[1]);
}
