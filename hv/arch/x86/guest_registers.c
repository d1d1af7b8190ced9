/* Guests' writes to registers that the vendor's structure holds: what both back ends must refuse (SDM 4, APM 2). */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"

static bool is_low_half(u64 value) /* the rest is reserved; the CPU would refuse it when the hypervisor loads it */
{
    return !(value >> 32);
}

static const struct guest_msr {
    u32 index;
    enum guest_register reg;
    bool (*valid)(u64 value); /* may the hypervisor give it to the CPU? NULL: any, or more than its value counts */
} msrs[] = {
    {MSR_EFER, GUEST_EFER, NULL},
    {MSR_PAT, GUEST_PAT, pat_is_valid},
    {MSR_STAR, GUEST_STAR, NULL},
    {MSR_LSTAR, GUEST_LSTAR, address_is_canonical},
    {MSR_CSTAR, GUEST_CSTAR, address_is_canonical},
    {MSR_SFMASK, GUEST_SFMASK, is_low_half},
    {MSR_KERNEL_GS_BASE, GUEST_KERNEL_GS_BASE, address_is_canonical},
    {MSR_FS_BASE, GUEST_FS_BASE, address_is_canonical},
    {MSR_GS_BASE, GUEST_GS_BASE, address_is_canonical},
    {MSR_SYSENTER_CS, GUEST_SYSENTER_CS, is_low_half},
    {MSR_SYSENTER_ESP, GUEST_SYSENTER_ESP, address_is_canonical},
    {MSR_SYSENTER_EIP, GUEST_SYSENTER_EIP, address_is_canonical},
};

/* LMA is the CPU's own: paging switches it. */
static bool efer_write(struct vcpu *vcpu, u64 value)
{
    u64 old = vendor->read(vcpu, GUEST_EFER);

    if (value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE))
        return false;
    if ((vendor->read(vcpu, GUEST_CR0) & CR0_PG) && ((value ^ old) & EFER_LME))
        return false; /* APM 2 14.6.1, SDM 3A 9.8.5: not while paging is on */
    vendor->write(vcpu, GUEST_EFER, (value & ~EFER_LMA) | (old & EFER_LMA));
    vcpu->flush_tlb = true;
    return true;
}

bool vcpu_msr(struct vcpu *vcpu, u32 index, bool write, u64 *value, bool *known)
{
    const struct guest_msr *msr = msrs;

    while (msr < msrs + ARRAY_SIZE(msrs) && msr->index != index)
        msr++;
    *known = msr < msrs + ARRAY_SIZE(msrs);
    if (!*known)
        return false;
    if (!write)
        *value = vendor->read(vcpu, msr->reg);
    else if (index == MSR_EFER)
        return efer_write(vcpu, *value);
    else if (msr->valid && !msr->valid(*value))
        return false;
    else
        vendor->write(vcpu, msr->reg, *value);
    return true;
}

u64 vcpu_cr4_allowed(void)
{
    u32 leaf[4];

    cpuid(7, 0, leaf);
    return 0x6ff /* VME to PGE, OSFXSR, OSXMMEXCPT; not PCE */ | (leaf[1] & 1u << 0 ? CR4_FSGSBASE : 0) |
           (leaf[1] & 1u << 7 ? CR4_SMEP : 0) | (leaf[1] & 1u << 20 ? CR4_SMAP : 0) |
           (leaf[2] & 1u << 2 ? CR4_UMIP : 0);
}

bool vcpu_cr4_write(struct vcpu *vcpu, u64 value)
{
    if (value & ~vcpu_cr4_allowed())
        return false;
    if ((vendor->read(vcpu, GUEST_EFER) & EFER_LMA) && !(value & CR4_PAE))
        return false; /* APM 2 3.1.3, SDM 3A 4.1.2 */
    vendor->write(vcpu, GUEST_CR4, value);
    vcpu->flush_tlb = true; /* PGE, PAE, PSE, SMEP change what the TLB may hold */
    return true;
}
