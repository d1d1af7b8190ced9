/* Walks of a guest's own page tables (APM 2 5.3): everything read here is the guest's and may change under us. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "shared/lib/checked.h"
#include "shared/x86/paging.h"

/* Without paging, or through the four levels of long mode: a kernel that reaches for devices has one or the other. */
status_t vcpu_translate(struct vcpu *vcpu, u64 va, gpa_t *out)
{
    u64 entry = vendor->read(vcpu, GUEST_CR3);

    if (!(vendor->read(vcpu, GUEST_CR0) & CR0_PG)) {
        *out = GPA(va & 0xffffffff);
        return OK;
    }
    if (!(vendor->read(vcpu, GUEST_EFER) & EFER_LMA))
        return ERR_NOT_FOUND;
    for (u32 shift = 39;; shift -= 9) {
        u64 table = entry & PTE_ADDRESS, index = va >> shift & 511, offset = (1ull << shift) - 1;
        if (vm_read(vcpu->vm, GPA(table + index * sizeof(entry)), &entry, sizeof(entry)) != OK ||
            !(entry & PTE_PRESENT))
            return ERR_NOT_FOUND;
        if (shift == 12 || (shift < 39 && (entry & PTE_LARGE))) { /* 4 KiB, 2 MiB, 1 GiB */
            *out = GPA((entry & PTE_ADDRESS & ~offset) | (va & offset));
            return OK;
        }
    }
}

u32 vcpu_fetch(struct vcpu *vcpu, u64 va, void *out, u32 len)
{
    u32 done = 0;
    gpa_t gpa;

    while (done < len) {
        u64 at = va + done;
        u32 chunk = min_u32((u32)(PAGE_SIZE - (at & PAGE_MASK)), len - done);
        if (vcpu_translate(vcpu, at, &gpa) != OK || vm_read(vcpu->vm, gpa, (u8 *)out + done, chunk) != OK)
            break;
        done += chunk;
    }
    return done;
}
