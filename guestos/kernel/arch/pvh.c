#include "guestos/kernel/arch/pvh.h"

#include "shared/lib/string.h"

#define PVH_MAGIC 0x336ec578u

struct hvm_start_info {
    u32 magic;
    u32 version;
    u32 flags;
    u32 module_count;
    u64 modules;
    u64 cmdline;
    u64 rsdp;
    u64 memmap; /* from version 1 on */
    u32 memmap_entries;
    u32 reserved;
};

_Static_assert(sizeof(struct hvm_start_info) == 56, "start_info.h");
_Static_assert(sizeof(struct pvh_memory) == 24, "struct hvm_memmap_table_entry");

status_t pvh_read(u64 start_info, struct pvh_boot *boot)
{
    const struct hvm_start_info *info = (const void *)start_info;

    if (info->magic != PVH_MAGIC)
        return ERR_FORMAT;
    if (info->version < 1)
        return ERR_UNSUPPORTED;
    boot->rsdp = info->rsdp;
    boot->memory_count = info->memmap_entries < PVH_MAX_MEMORY ? info->memmap_entries : PVH_MAX_MEMORY;
    if (boot->memory_count == 0)
        return ERR_NOT_FOUND;
    memcpy(boot->memory, (const void *)info->memmap, boot->memory_count * sizeof(boot->memory[0]));
    boot->cmdline[0] = '\0';
    if (info->cmdline != 0)
        str_copy(boot->cmdline, sizeof(boot->cmdline), (const char *)info->cmdline);
    return OK;
}
