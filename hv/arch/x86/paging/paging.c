/* The hypervisor's own address space. */
#include "hv/arch/x86/paging/paging.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/core/hypervisor.h"
#include "hv/core/page_table.h"
#include "shared/lib/checked.h"

#define DEVICE_BASE 0xffffa00000000000ull
#define STACK_BASE 0xffffb00000000000ull
#define STACK_STRIDE (2 * CPU_STACK_SIZE) /* the lower half stays unmapped: the guard */

extern char image_start[], text_end[], rodata_end[], boot_stack_guard[], image_end[];

static struct page_table tables;
static u64 device_next = DEVICE_BASE;

/* The loader's map of RAM is aliased here by the entry code, so the direct map holds from the first C line on. */
void *hpa_to_ptr(hpa_t hpa)
{
    return (void *)(DIRECT_MAP_BASE + hpa.v);
}

static u64 image_base_hpa;

hpa_t ptr_to_hpa(const void *ptr)
{
    u64 va = (u64)ptr;

    if (va >= (u64)image_start)
        return HPA(va - (u64)image_start + image_base_hpa);
    return HPA(va - DIRECT_MAP_BASE);
}

/* Linear addresses repeat bit 47 in those above it (SDM 3A 4.5.1), which no table sees. */
static status_t map(u64 va, u64 hpa, u64 size, u32 rights)
{
    return page_table_map(&tables, va % PAGE_TABLE_REACH, HPA(hpa), size, rights);
}

static status_t map_image(void)
{
    const struct {
        char *from, *to;
        u32 rights;
    } part[] = {
        {image_start, text_end, PAGE_READ | PAGE_EXECUTE},
        {text_end, rodata_end, PAGE_READ},
        {rodata_end, boot_stack_guard, PAGE_READ | PAGE_WRITE},
        {boot_stack_guard + PAGE_SIZE, image_end, PAGE_READ | PAGE_WRITE},
    };

    for (u32 i = 0; i < ARRAY_SIZE(part); i++) {
        u64 size = (u64)(part[i].to - part[i].from);
        if (!size)
            continue;
        status_t status = map((u64)part[i].from, ptr_to_hpa(part[i].from).v, size, part[i].rights);
        if (status != OK)
            return status;
    }
    return OK;
}

static status_t map_direct(u64 from, u64 to)
{
    return from < to ? map(DIRECT_MAP_BASE + from, from, to - from, PAGE_READ | PAGE_WRITE) : OK;
}

/*
 * All RAM, in 2 MiB steps: ranges of the map that share such a step are mapped once. MMIO holes stay out but for edges,
 * and so does the image's part that nobody writes: no writable alias of code.
 */
static status_t map_ram(const struct boot_info *boot)
{
    u64 hole = boot->hv_base, hole_end = hole + (u64)(rodata_end - image_start);
    status_t status = OK;
    u64 done = 0;

    for (u32 i = 0; status == OK && i < boot->memory_count; i++) {
        const struct boot_memory *m = &boot->memory[i];
        u64 from = max_u64(m->base & ~(MIB(2) - 1), done);
        u64 to = (m->base + m->size + MIB(2) - 1) & ~(MIB(2) - 1);
        if (m->kind == BOOT_MEMORY_RESERVED || to <= done)
            continue;
        if (from <= hole && hole < to) {
            status = map_direct(from, hole);
            from = hole_end;
        }
        if (status == OK)
            status = map_direct(from, to);
        done = to;
    }
    return status;
}

status_t paging_init(const struct boot_info *boot)
{
    status_t status;

    image_base_hpa = boot->hv_base;
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_NXE);
    if ((status = page_table_create(&tables, &page_format_x86)) != OK || (status = map_image()) != OK ||
        (status = map_ram(boot)) != OK)
        return status;
    cr3_write(tables.root.v);
    cr0_write(cr0_read() | CR0_WP);
    return OK;
}

u64 paging_root(void)
{
    return tables.root.v;
}

u64 paging_physical_end(void)
{
    u32 leaf[4];

    cpuid(0x80000008, 0, leaf);
    return 1ull << (leaf[0] & 0xff);
}

void *paging_map_device(hpa_t at, u64 size)
{
    u64 first = PAGE_DOWN(at.v), bytes = PAGE_UP(at.v + size) - first;
    u64 va = device_next;

    if (bytes >= MIB(2)) /* the same offset in a 2 MiB page lets a large window (ECAM) take large pages */
        va = ((va + MIB(2) - 1) & ~(MIB(2) - 1)) + (first & (MIB(2) - 1));
    if (map(va, first, bytes, PAGE_READ | PAGE_WRITE | PAGE_UNCACHED) != OK)
        panic("no memory to map the device at %lx", at.v);
    device_next = va + bytes + PAGE_SIZE; /* an unmapped page between devices */
    return (void *)(va + (at.v - first));
}

status_t paging_create_stack(u32 cpu, void **top)
{
    u64 base = STACK_BASE + cpu * STACK_STRIDE + CPU_STACK_SIZE;
    hpa_t frames = ptr_to_hpa(boot_frames(CPU_STACK_SIZE / PAGE_SIZE, "a stack"));

    *top = (void *)(base + CPU_STACK_SIZE);
    return map(base, frames.v, CPU_STACK_SIZE, PAGE_READ | PAGE_WRITE);
}

status_t paging_map_trampoline(hpa_t page)
{
    return map(page.v, page.v, PAGE_SIZE, PAGE_READ | PAGE_EXECUTE);
}

void paging_unmap_trampoline(hpa_t page)
{
    if (page_table_unmap(&tables, page.v, PAGE_SIZE) != OK)
        panic("trampoline page %lx was not mapped", page.v);
    cr3_write(tables.root.v); /* other CPUs may remember the page, but use no low addresses after their start */
}
