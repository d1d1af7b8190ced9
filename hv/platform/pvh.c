/*
 * Start of an ELF64 guest by the PVH protocol (Xen docs/misc/pvh.pandoc, include/public/arch-x86/hvm/start_info.h):
 * 32-bit flat protected mode at the address of the note XEN_ELFNOTE_PHYS32_ENTRY, EBX = address of hvm_start_info.
 */
#include "hv/arch/x86/vendor.h"
#include "hv/platform/state.h"
#include "shared/lib/checked.h"
#include "shared/lib/elf.h"
#include "shared/lib/string.h"

#define PVH_MAGIC 0x336ec578u
#define MEMMAP_RAM 1u
#define MEMMAP_RESERVED 2u

struct pvh_page {
    u32 magic, version, flags, modules; /* struct hvm_start_info */
    u64 module_list, cmdline_address, rsdp, memmap_address;
    u32 memmap_entries, reserved;
    struct {
        u64 address, size;
        u32 type, reserved;
    } memmap[3];
    char cmdline[MANIFEST_CMDLINE_SIZE];
};
_Static_assert(offsetof(struct pvh_page, memmap) == 56, "start_info.h, version 1");
_Static_assert(sizeof(struct pvh_page) <= PAGE_SIZE, "PVH_AREA is one page");

static void write_start_info(const struct vm *vm, struct pvh_page *page)
{
    *page = (struct pvh_page){
        .magic = PVH_MAGIC,
        .version = 1,
        .cmdline_address = PVH_AREA + offsetof(struct pvh_page, cmdline),
        .rsdp = ACPI_AREA,
        .memmap_address = PVH_AREA + offsetof(struct pvh_page, memmap),
        .memmap_entries = ARRAY_SIZE(page->memmap),
        .memmap = {{0, PVH_AREA, MEMMAP_RAM, 0},
                   {PVH_AREA, LOW_RESERVED_END - PVH_AREA, MEMMAP_RESERVED, 0},
                   {LOW_RESERVED_END, vm->ram_size - LOW_RESERVED_END, MEMMAP_RAM, 0}},
    };
    (void)str_copy(page->cmdline, sizeof(page->cmdline), vm->config->cmdline); /* same size: never cut */
}

/* Why the image cannot be this VM's; NULL when it can. */
static const char *find_misfit(const struct vm *vm, const struct elf_image *elf)
{
    bool entry_loaded = false;
    for (u32 i = 0; i < elf->count; i++) {
        const struct elf_segment *segment = &elf->segment[i];
        if (!range_inside(segment->paddr, segment->mem_size, 0, vm->ram_size))
            return "a segment of the guest image does not fit into the guest's memory";
        if (ranges_overlap(segment->paddr, segment->mem_size, PVH_AREA, LOW_RESERVED_END - PVH_AREA))
            return "a segment of the guest image overlaps the start information and ACPI tables (0x9f000-0xfffff)";
        entry_loaded |= range_inside(elf->pvh_entry, 1, segment->paddr, segment->mem_size);
    }
    if (!elf->pvh_entry)
        return "the guest image has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)";
    /* RAM ends below 4 GiB, so the entry fits EIP */
    return entry_loaded ? NULL : "the PVH entry of the guest image lies outside its segments";
}

status_t pvh_load(struct vm *vm, const char **why)
{
    const struct platform *platform = vm->platform;
    u8 *ram = vm_ram(vm, GPA(0), vm->ram_size);
    struct elf_image elf;
    status_t status = elf_parse(platform->image, platform->image_size, &elf, why);
    if (status != OK)
        return status;
    *why = find_misfit(vm, &elf);
    if (*why)
        return ERR_INVALID;
    for (u32 i = 0; i < elf.count; i++)
        memcpy(ram + elf.segment[i].paddr, (const u8 *)platform->image + elf.segment[i].offset,
               elf.segment[i].file_size);
    write_start_info(vm, (struct pvh_page *)(ram + PVH_AREA));
    vendor->reset(&vm->vcpu, &(struct vcpu_start){.entry = elf.pvh_entry});
    vm->vcpu.regs.rbx = PVH_AREA;
    return OK;
}
