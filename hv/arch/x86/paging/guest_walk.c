/* Walks of a guest's own page tables (APM 2 5.3): everything read here is the guest's and may change under us. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "shared/lib/string.h"

#define ENTRY_PRESENT 1ull
#define ENTRY_LARGE (1ull << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull

/*
 * The three ways of paging differ in levels, bits a level and size of an entry: long mode 4 x 9, PAE 3 x 9 (its top
 * table has the four entries that a 32-bit address needs), 32-bit 2 x 10. Pages above 4 KiB: 2 MiB with eight-byte
 * entries, 1 GiB in long mode, 4 MiB in 32-bit mode with CR4.PSE.
 */
status_t vcpu_translate(struct vcpu *vcpu, u64 va, gpa_t *out)
{
    const struct guest_paging p = vendor->paging(vcpu);
    bool long_mode = p.efer & EFER_LMA, pae = p.cr4 & CR4_PAE;
    u32 bits = pae ? 9 : 10, entry_size = pae ? 8 : 4;
    u64 table = p.cr3 & (long_mode ? ENTRY_ADDRESS : pae ? 0xffffffe0ull : 0xfffff000ull);

    va = long_mode ? va : va & 0xffffffff;
    if (!(p.cr0 & CR0_PG)) {
        *out = GPA(va);
        return OK;
    }
    for (u32 level = long_mode ? 3 : pae ? 2 : 1;; level--) {
        u32 shift = 12 + bits * level;
        u64 index = va >> shift & ((1ull << bits) - 1), offset = (1ull << shift) - 1, entry = 0;
        bool may_be_large = level == 1 ? pae || (p.cr4 & CR4_PSE) : level == 2 && long_mode;
        if (vm_read(vcpu->vm, GPA(table + index * entry_size), &entry, entry_size) != OK || !(entry & ENTRY_PRESENT))
            return ERR_NOT_FOUND;
        if (level == 0 || (may_be_large && (entry & ENTRY_LARGE))) {
            *out = GPA((entry & ENTRY_ADDRESS & ~offset) | (va & offset));
            return OK;
        }
        table = entry & ENTRY_ADDRESS;
    }
}

u32 vcpu_fetch(struct vcpu *vcpu, u64 va, void *out, u32 len)
{
    u32 done = 0;
    gpa_t gpa;

    while (done < len) {
        u64 at = va + done;
        u32 chunk = (u32)(PAGE_SIZE - (at & PAGE_MASK));
        if (chunk > len - done)
            chunk = len - done;
        if (vcpu_translate(vcpu, at, &gpa) != OK || vm_read(vcpu->vm, gpa, (u8 *)out + done, chunk) != OK)
            break;
        done += chunk;
    }
    return done;
}
