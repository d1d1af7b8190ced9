/* The hypervisor's image and the images of the VMs. */
#include "firmware/uefi/loader.h"

#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define HV_NAME "hv.elf"
#define HV_ALIGN MIB(2)
#define HV_MAX_BYTES MIB(64)

/* One line for every way in which an ELF file can be bad; a file that ends too early says so by name. */
static void image_check(const struct loader_file *file, const char *name, struct elf_image *elf)
{
    const char *why = "";
    status_t status = elf_parse(file->data, file->size, elf, &why);
    if (status == ERR_RANGE)
        loader_fail("\\bulkhead\\%s: truncated: %s", name, why);
    if (status != OK)
        loader_fail("\\bulkhead\\%s: not a usable ELF image: %s (%s)", name, why, status_text(status));
}

/* The page-aligned span of link addresses from the lowest to the highest segment. */
static void hypervisor_span(const struct elf_image *elf, u64 *low, u64 *size)
{
    u64 first = UINT64_MAX, last = 0;
    for (u32 i = 0; i < elf->count; i++) {
        const struct elf_segment *s = &elf->segment[i];
        u64 end = 0;
        if (!add_u64(s->vaddr, s->mem_size, &end))
            loader_fail("\\bulkhead\\" HV_NAME ": a segment wraps around the address space");
        first = s->vaddr < first ? s->vaddr : first;
        last = end > last ? end : last;
    }
    first = PAGE_DOWN(first);
    if (last - first > HV_MAX_BYTES)
        loader_fail("\\bulkhead\\" HV_NAME ": larger than 64 MiB in memory");
    *low = first;
    *size = PAGE_UP(last - first);
}

struct loader_hypervisor loader_hypervisor_load(void)
{
    struct loader_file file = loader_file_read(HV_NAME);
    struct elf_image elf;
    image_check(&file, HV_NAME, &elf);

    struct loader_hypervisor hv = {.entry = elf.entry};
    hypervisor_span(&elf, &hv.vaddr, &hv.size);
    if (elf.entry < hv.vaddr || elf.entry - hv.vaddr >= hv.size)
        loader_fail("\\bulkhead\\" HV_NAME ": the entry point is outside the image");

    /* UEFI allocates pages only; one alignment more leaves room to align. The slack stays loader memory. */
    u64 area = (u64)loader_pages_alloc(hv.size + HV_ALIGN, GIB(4), "the hypervisor");
    hv.base = (area + HV_ALIGN - 1) & ~(HV_ALIGN - 1);
    for (u32 i = 0; i < elf.count; i++) {
        const struct elf_segment *s = &elf.segment[i];
        memcpy((void *)(hv.base + (s->vaddr - hv.vaddr)), (const u8 *)file.data + s->offset, s->file_size);
    }
    return hv;
}

/*
 * A driver image is always ELF; a guest's may be another format. Here only what a file tells by itself: whether it fits
 * its VM is the hypervisor's to judge.
 */
static void vm_image_check(const struct manifest_vm *vm, const char *name, const struct loader_file *file)
{
    struct elf_image elf;
    if (vm->kind == MANIFEST_DRIVER || (file->size >= 4 && memcmp(file->data, "\177ELF", 4) == 0))
        image_check(file, name, &elf);
}

static bool is_loaded(const struct boot_info *info, const char *name)
{
    for (u32 i = 1; i < info->module_count; i++)
        if (strcmp(info->module[i].name, name) == 0)
            return true;
    return false;
}

/* One that is loaded already, or has no name, is done. */
static void vm_image_load(const struct manifest_vm *vm, const char *name, struct boot_info *info)
{
    if (name[0] == '\0' || is_loaded(info, name))
        return;
    struct loader_file file = loader_file_read(name);
    vm_image_check(vm, name, &file);
    struct boot_module *module = &info->module[info->module_count++];
    module->base = (u64)file.data;
    module->size = file.size;
    str_copy(module->name, sizeof(module->name), name);
}

void loader_images_load(const struct manifest *manifest, struct boot_info *info)
{
    /* manifest_parse allows MANIFEST_MAX_VMS, so the table cannot overflow. */
    _Static_assert(2 * MANIFEST_MAX_VMS + 1 <= BOOT_MAX_MODULES, "two modules a VM, and the manifest");
    _Static_assert(MANIFEST_IMAGE_SIZE <= BOOT_NAME_SIZE, "a module has its file's name");

    for (u32 i = 0; i < manifest->vm_count; i++) {
        vm_image_load(&manifest->vm[i], manifest->vm[i].image, info);
        vm_image_load(&manifest->vm[i], manifest->vm[i].fallback, info);
    }
}
