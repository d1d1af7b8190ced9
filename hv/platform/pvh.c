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
#define PVH_VERSION 1u
#define MEMMAP_RAM 1u
#define MEMMAP_RESERVED 2u

struct pvh_start_info {
    u32 magic, version, flags, modules;
    u64 module_list, cmdline, rsdp, memmap;
    u32 memmap_entries, reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "start_info.h, version 1");

struct pvh_memmap_entry {
    u64 address, size;
    u32 type, reserved;
};

struct pvh_page {
    struct pvh_start_info start;
    struct pvh_memmap_entry memmap[3];
    char cmdline[MANIFEST_CMDLINE_SIZE];
};
_Static_assert(sizeof(struct pvh_page) <= PAGE_SIZE, "PVH_AREA is one page");

static void write_start_info(const struct vm *vm, struct pvh_page *page)
{
    const u64 low_end = LOW_RESERVED_END;
    page->start = (struct pvh_start_info){
        .magic = PVH_MAGIC,
        .version = PVH_VERSION,
        .cmdline = PVH_AREA + offsetof(struct pvh_page, cmdline),
        .rsdp = ACPI_AREA,
        .memmap = PVH_AREA + offsetof(struct pvh_page, memmap),
        .memmap_entries = ARRAY_SIZE(page->memmap),
    };
    page->memmap[0] = (struct pvh_memmap_entry){0, PVH_AREA, MEMMAP_RAM, 0};
    page->memmap[1] = (struct pvh_memmap_entry){PVH_AREA, low_end - PVH_AREA, MEMMAP_RESERVED, 0};
    page->memmap[2] = (struct pvh_memmap_entry){low_end, vm->ram_size - low_end, MEMMAP_RAM, 0};
    (void)str_copy(page->cmdline, sizeof(page->cmdline), vm->config->cmdline); /* same size: never cut */
}

static status_t check_segments(const struct vm *vm, const struct elf_image *elf, const char **why)
{
    bool entry_loaded = false;
    for (u32 i = 0; i < elf->count; i++) {
        const struct elf_segment *segment = &elf->segment[i];
        if (!range_inside(segment->paddr, segment->mem_size, 0, vm->ram_size)) {
            *why = "a segment of the guest image does not fit into the guest's memory";
            return ERR_RANGE;
        }
        if (ranges_overlap(segment->paddr, segment->mem_size, PVH_AREA, LOW_RESERVED_END - PVH_AREA)) {
            *why = "a segment of the guest image overlaps the start information and ACPI tables (0x9f000-0xfffff)";
            return ERR_INVALID;
        }
        entry_loaded |= range_inside(elf->pvh_entry, 1, segment->paddr, segment->mem_size);
    }
    if (!elf->pvh_entry)
        *why = "the guest image has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)";
    else if (!entry_loaded) /* RAM ends below 4 GiB, so the entry fits EIP */
        *why = "the PVH entry of the guest image lies outside its segments";
    return elf->pvh_entry && entry_loaded ? OK : ERR_FORMAT;
}

status_t pvh_load(struct vm *vm, const char **why)
{
    const struct platform *platform = vm->platform;
    struct elf_image elf;
    status_t status = elf_parse(platform->image, platform->image_size, &elf, why);
    if (status == OK)
        status = check_segments(vm, &elf, why);
    if (status != OK)
        return status;
    for (u32 i = 0; i < elf.count; i++)
        memcpy(platform->ram + elf.segment[i].paddr, (const u8 *)platform->image + elf.segment[i].offset,
               elf.segment[i].file_size);
    write_start_info(vm, (struct pvh_page *)(platform->ram + PVH_AREA));
    memset(&vm->vcpu.regs, 0, sizeof(vm->vcpu.regs));
    vcpu_vendor_reset_protected32(&vm->vcpu, elf.pvh_entry);
    vm->vcpu.regs.rbx = PVH_AREA;
    return OK;
}
