/* Walks of a guest's own page tables (APM 2 5.3): everything read here is the guest's and may change under us. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "shared/lib/string.h"

#define ENTRY_PRESENT 1ull
#define ENTRY_LARGE (1ull << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull

static bool read_entry(const struct vm *vm, u64 table, u64 index, u32 size, u64 *entry)
{
    *entry = 0;
    return vm_read(vm, GPA(table + index * size), entry, size) == OK && (*entry & ENTRY_PRESENT);
}

/* PAE and long mode: nine bits a level. Levels 4, or 3 with a four-entry top table (PAE). */
static status_t walk_wide(const struct vm *vm, const struct guest_paging *p, u64 va, gpa_t *out)
{
    bool long_mode = p->efer & EFER_LMA;
    u64 table = long_mode ? p->cr3 & ENTRY_ADDRESS : p->cr3 & 0xffffffe0ull;
    u64 entry;

    for (u32 level = long_mode ? 4 : 3; level >= 1; level--) {
        u32 shift = 12 + 9 * (level - 1);
        if (!read_entry(vm, table, va >> shift & (level == 3 && !long_mode ? 3 : 511), 8, &entry))
            return ERR_NOT_FOUND;
        if (level == 1 || ((level == 2 || (level == 3 && long_mode)) && (entry & ENTRY_LARGE))) {
            u64 offset = (1ull << shift) - 1;
            *out = GPA((entry & ENTRY_ADDRESS & ~offset) | (va & offset));
            return OK;
        }
        table = entry & ENTRY_ADDRESS;
    }
    return ERR_NOT_FOUND;
}

static status_t walk_32bit(const struct vm *vm, const struct guest_paging *p, u64 va, gpa_t *out)
{
    u64 entry;

    if (!read_entry(vm, p->cr3 & 0xfffff000ull, va >> 22 & 1023, 4, &entry))
        return ERR_NOT_FOUND;
    if ((p->cr4 & CR4_PSE) && (entry & ENTRY_LARGE)) {
        *out = GPA((entry & 0xffc00000ull) | (va & 0x3fffff));
        return OK;
    }
    if (!read_entry(vm, entry & 0xfffff000ull, va >> 12 & 1023, 4, &entry))
        return ERR_NOT_FOUND;
    *out = GPA((entry & 0xfffff000ull) | (va & 0xfff));
    return OK;
}

status_t vcpu_translate(struct vcpu *vcpu, u64 va, gpa_t *out)
{
    struct guest_paging p = vendor->paging(vcpu);

    if (!(p.cr0 & CR0_PG)) {
        *out = GPA(va & 0xffffffff);
        return OK;
    }
    if (!(p.cr4 & CR4_PAE))
        return walk_32bit(vcpu->vm, &p, va & 0xffffffff, out);
    return walk_wide(vcpu->vm, &p, va, out);
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
