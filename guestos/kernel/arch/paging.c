#include "guestos/kernel/arch/paging.h"

#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/panic.h"
#include "shared/lib/string.h"
#include "shared/x86/paging.h"

#define LARGE_PAGE MIB(2)

#define RIGHTS_CODE (PTE_PRESENT)
#define RIGHTS_CONSTANT (PTE_PRESENT | PTE_NO_EXECUTE)
#define RIGHTS_DATA (PTE_PRESENT | PTE_WRITE | PTE_NO_EXECUTE)
#define RIGHTS_DEVICE (RIGHTS_DATA | PTE_WRITE_THROUGH | PTE_CACHE_DISABLE)
#define RIGHTS_NONE 0ull

#define CPUID_7_EBX_SMEP (1u << 7)

extern u8 kernel_start[], kernel_text_end[], kernel_rodata_end[], kernel_end[], boot_stack_guard[];

static u64 *root;

static u64 *new_table(void)
{
    u64 frame = frames_alloc(1, PAGE_SIZE);

    if (frame == 0)
        panic("no memory for page tables");
    memset((void *)frame, 0, PAGE_SIZE);
    return (u64 *)frame;
}

/* The table below *entry. A missing one is made; a 2 MiB page is split into 4 KiB pages with the same rights. */
static u64 *table_below(u64 *entry)
{
    if ((*entry & PTE_PRESENT) == 0) {
        *entry = (u64)new_table() | PTE_PRESENT | PTE_WRITE;
    } else if ((*entry & PTE_LARGE) != 0) {
        u64 *table = new_table();
        for (u64 i = 0; i < 512; i++)
            table[i] = (*entry & ~PTE_LARGE) + i * PAGE_SIZE;
        *entry = (u64)table | PTE_PRESENT | PTE_WRITE;
    }
    return (u64 *)(*entry & PTE_ADDRESS);
}

static void map(u64 from, u64 to, u64 rights)
{
    for (u64 at = from; at < to;) {
        u64 *pdpt = table_below(&root[at >> 39 & 511]);
        u64 *pd = table_below(&pdpt[at >> 30 & 511]);
        u64 *entry = &pd[at >> 21 & 511];
        bool is_table = (*entry & PTE_PRESENT) != 0 && (*entry & PTE_LARGE) == 0;
        u64 step = LARGE_PAGE;
        if ((at & (LARGE_PAGE - 1)) == 0 && to - at >= LARGE_PAGE && !is_table && rights != RIGHTS_NONE) {
            *entry = at | rights | PTE_LARGE;
        } else {
            step = PAGE_SIZE;
            table_below(entry)[at >> 12 & 511] = rights == RIGHTS_NONE ? 0 : at | rights;
        }
        cpu_invalidate_page(at);
        at += step;
    }
}

void paging_init(const struct pvh_boot *boot)
{
    root = new_table();
    for (u32 i = 0; i < boot->memory_count; i++) {
        const struct pvh_memory *memory = &boot->memory[i];
        if (memory->type == PVH_MEMORY_RAM)
            map(PAGE_UP(memory->base), PAGE_DOWN(memory->base + memory->size), RIGHTS_DATA);
    }
    map((u64)kernel_start, (u64)kernel_text_end, RIGHTS_CODE);
    map((u64)kernel_text_end, (u64)kernel_rodata_end, RIGHTS_CONSTANT);
    map((u64)kernel_rodata_end, (u64)kernel_end, RIGHTS_DATA);
    map((u64)boot_stack_guard, (u64)boot_stack_guard + PAGE_SIZE, RIGHTS_NONE);
    map(0, PAGE_SIZE, RIGHTS_NONE);
    cr3_write((u64)root);
    /* Nothing runs in ring 3 yet; where the CPU can, it shall never execute what will belong to it. */
    if (cpu_cpuid(0).eax >= 7 && (cpu_cpuid(7).ebx & CPUID_7_EBX_SMEP) != 0)
        cr4_write(cr4_read() | CR4_SMEP);
}

volatile u8 *paging_map_device(u64 physical, u64 size)
{
    map(PAGE_DOWN(physical), PAGE_UP(physical + size), RIGHTS_DEVICE);
    return (volatile u8 *)physical;
}

void paging_set_entry(u64 address, u64 entry)
{
    u64 *at = root;

    for (u32 shift = 39; shift > 12; shift -= 9) {
        u64 *above = &at[address >> shift & 511];
        at = table_below(above);
        *above |= entry & PTE_USER; /* ring 3 needs it on every level */
    }
    at[address >> 12 & 511] = entry;
    cpu_invalidate_page(address);
}
