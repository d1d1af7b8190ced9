/*
 * Paravirtual end of interrupt, as KVM's MSR 0x4b564d04: a flag in the guest's memory saves it the exit for EOI.
 *
 *            accept, nothing else requested            after an exit: flag clear -> the interrupt has ended
 *   not offered ---------------------------> offered --------------------------> not offered
 *                     (flag set)                \---- something is requested meanwhile -> flag cleared: the guest must
 * write EOI
 *
 * The last arrow matters: a request of lower priority would else wait for the next exit, whenever that comes. The flag
 * is touched only while the vCPU is not in guest mode, so plain accesses do.
 */
#include "hv/platform/state.h"

#define PV_EOI_ENABLED 1ull
#define PV_EOI_RESERVED 2ull
#define PV_EOI_FLAG 1u

/* NULL can only be met when the address was never set. */
static u8 *flag_of(struct vm *vm)
{
    return vm_ram(vm, GPA(vm->platform->pv_eoi.flag), sizeof(u32));
}

void pv_eoi_offer(struct vm *vm, u8 vector)
{
    struct platform *platform = vm->platform;
    u8 *flag = platform->pv_eoi.enabled ? flag_of(vm) : NULL;
    /* A level-triggered interrupt must reach the IOAPIC when it ends. */
    if (!flag || lapic_is_level(&platform->lapic, vector) || lapic_anything_requested(&platform->lapic))
        return;
    *flag |= PV_EOI_FLAG;
    platform->pv_eoi.offered = true;
}

void pv_eoi_withdraw(struct vm *vm)
{
    struct pv_eoi *pv_eoi = &vm->platform->pv_eoi;
    u8 *flag = pv_eoi->offered ? flag_of(vm) : NULL;
    pv_eoi->offered = false;
    if (flag)
        *flag &= (u8)~PV_EOI_FLAG;
}

void pv_eoi_collect(struct vm *vm)
{
    struct platform *platform = vm->platform;
    u8 *flag = platform->pv_eoi.offered ? flag_of(vm) : NULL;
    if (!flag)
        return;
    if (!(*flag & PV_EOI_FLAG)) {
        platform->pv_eoi.offered = false;
        platform->stats.pv_eois++;
        lapic_end_interrupt(vm);
    } else if (lapic_anything_requested(&platform->lapic)) {
        pv_eoi_withdraw(vm);
    }
}

void platform_after_exit(struct vm *vm)
{
    pv_eoi_collect(vm);
}

bool pv_eoi_msr(struct vm *vm, bool write, u64 *value)
{
    struct pv_eoi *pv_eoi = &vm->platform->pv_eoi;
    if (!write) {
        *value = pv_eoi->flag | (pv_eoi->enabled ? PV_EOI_ENABLED : 0);
        return true;
    }
    u64 address = *value & ~3ull;
    bool enable = *value & PV_EOI_ENABLED;
    if (*value & PV_EOI_RESERVED || (enable && !vm_ram(vm, GPA(address), sizeof(u32))))
        return false;
    pv_eoi_withdraw(vm);
    pv_eoi->enabled = enable;
    pv_eoi->flag = address;
    return true;
}
