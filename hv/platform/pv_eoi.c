/*
 * Paravirtual end of interrupt, as KVM's MSR 0x4b564d04: a flag in the guest's memory saves it the exit for EOI.
 *
 *            accept, nothing else requested            after an exit: flag clear -> the interrupt has ended
 *   not offered ---------------------------> offered --------------------------> not offered
 *                     (flag set)                \---- something is requested meanwhile -> flag cleared: the guest must
 * write EOI
 *
 * The last arrow matters: a request of lower priority would else wait for the next exit, whenever that comes. The flag
 * is touched only while the vCPU is not in guest mode, so plain accesses do. While offered, the MSR names RAM.
 */
#include "hv/platform/state.h"

#define PV_EOI_ENABLED 1ull
#define PV_EOI_RESERVED 2ull
#define PV_EOI_FLAG 1u

/* The flag that this value of the MSR names; NULL: switched off, or not in RAM. */
static u8 *flag_of(struct vm *vm, u64 msr)
{
    return msr & PV_EOI_ENABLED ? vm_ram(vm, GPA(msr & ~3ull), sizeof(u32)) : NULL;
}

void pv_eoi_offer(struct vm *vm)
{
    struct platform *platform = vm->platform;
    u8 *flag = flag_of(vm, platform->pv_eoi_msr);
    if (!flag || lapic_highest_request(&platform->lapic) >= 0)
        return;
    *flag |= PV_EOI_FLAG;
    platform->pv_eoi_offered = true;
}

void pv_eoi_withdraw(struct vm *vm)
{
    struct platform *platform = vm->platform;
    if (platform->pv_eoi_offered)
        *flag_of(vm, platform->pv_eoi_msr) &= (u8)~PV_EOI_FLAG;
    platform->pv_eoi_offered = false;
}

void platform_after_exit(struct vm *vm)
{
    struct platform *platform = vm->platform;
    if (!platform->pv_eoi_offered)
        return;
    if (!(*flag_of(vm, platform->pv_eoi_msr) & PV_EOI_FLAG)) {
        platform->pv_eoi_offered = false;
        platform->stats.pv_eois++;
        lapic_end_interrupt(vm);
    } else if (lapic_highest_request(&platform->lapic) >= 0) {
        pv_eoi_withdraw(vm);
    }
}

bool pv_eoi_set(struct vm *vm, u64 value)
{
    if (value & PV_EOI_RESERVED || (value & PV_EOI_ENABLED && !flag_of(vm, value)))
        return false;
    pv_eoi_withdraw(vm); /* from the place that the MSR named until now */
    vm->platform->pv_eoi_msr = value;
    return true;
}
