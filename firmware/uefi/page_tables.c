/* The page tables that the hypervisor is entered with (SDM 3A 4.5, four levels). It replaces them at once. */
#include "firmware/uefi/loader.h"
#include "shared/x86/paging.h"
#include "shared/x86/registers.h"

#define CPUID_PAGE_1G (1u << 26) /* CPUID 80000001 EDX: 1 GiB pages */

static bool cpu_has_1g_pages(void)
{
    u32 leaf[4];

    cpuid(0x80000000u, 0, leaf);
    if (leaf[0] < 0x80000001u)
        return false;
    cpuid(0x80000001u, 0, leaf);
    return (leaf[3] & CPUID_PAGE_1G) != 0;
}

static u64 *table_alloc(void)
{
    return loader_pages_alloc(PAGE_SIZE, GIB(4), "page tables");
}

/* Map one page at va: level 0 is a 4 KiB, 1 a 2 MiB, 2 a 1 GiB page. Tables on the way are made as needed. */
static void page_map(u64 *root, u64 va, u64 pa, int level)
{
    u64 *table = root;
    for (int at = 3; at > level; at--) {
        u64 *entry = &table[(va >> (12 + 9 * at)) & 511];
        if (*entry == 0)
            *entry = (u64)table_alloc() | PTE_PRESENT | PTE_WRITE;
        table = (u64 *)(*entry & PTE_ADDRESS);
    }
    table[(va >> (12 + 9 * level)) & 511] = pa | PTE_PRESENT | PTE_WRITE | (level > 0 ? PTE_LARGE : 0);
}

u64 loader_page_tables_build(u64 identity_end, const struct loader_hypervisor *hv)
{
    /* Two mappings of one address cannot both stand; a hypervisor links itself into the upper half. */
    if (hv->vaddr < identity_end)
        loader_fail("\\bulkhead\\hv.elf: linked at 0x%llx, inside the identity map up to 0x%llx",
                    (unsigned long long)hv->vaddr, (unsigned long long)identity_end);

    u64 *root = table_alloc();
    int level = cpu_has_1g_pages() ? 2 : 1;
    u64 step = level == 2 ? GIB(1) : MIB(2);
    for (u64 at = 0; at < identity_end; at += step)
        page_map(root, at, at, level);
    for (u64 at = 0; at < hv->size; at += PAGE_SIZE)
        page_map(root, hv->vaddr + at, hv->base + at, 0);
    return (u64)root;
}
