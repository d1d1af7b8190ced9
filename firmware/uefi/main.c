/*
 * The boot loader: from the EFI system partition into the hypervisor. efi_main is the table of contents.
 */
#include "firmware/uefi/loader.h"

#include "shared/lib/string.h"

#define STACK_BYTES KIB(32)

static struct manifest manifest;

/* The manifest travels as module 0, so that the hypervisor parses the same bytes with the same code. */
static void manifest_load(struct boot_info *info)
{
    struct loader_file file = loader_file_read("manifest.ini");
    struct manifest_error error;
    if (manifest_parse(file.data, file.size, &manifest, &error) != OK) {
        if (error.line == 0)
            loader_fail("manifest.ini: %s", error.message);
        loader_fail("manifest.ini:%u: %s", error.line, error.message);
    }
    loader_set_exit_port(manifest.exit_port);
    info->module[0].base = (u64)file.data;
    info->module[0].size = file.size;
    str_copy(info->module[0].name, sizeof(info->module[0].name), "manifest.ini");
    info->module_count = 1;
}

/* The root pointer of ACPI 2.0 or later (ACPI 6.4 5.2.5.2); of tables made here when firmware names none. */
static u64 acpi_root_find(const EFI_SYSTEM_TABLE *table)
{
    const EFI_GUID acpi_20 = ACPI_20_TABLE_GUID;
    for (UINTN i = 0; i < table->NumberOfTableEntries; i++)
        if (memcmp(&table->ConfigurationTable[i].VendorGuid, &acpi_20, sizeof(acpi_20)) == 0)
            return (u64)table->ConfigurationTable[i].VendorTable;
    return loader_acpi_make();
}

/* Interrupts off, the promised page tables, the promised stack, then the entry point; nothing comes back. */
__attribute__((noreturn)) static void hypervisor_enter(u64 cr3, u64 stack_top, u64 entry, const struct boot_info *info)
{
    __asm__ volatile("cli\n\t"
                     "cld\n\t"
                     "movq %0, %%cr3\n\t"
                     "movq %1, %%rsp\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "jmpq *%2"
                     :
                     : "r"(cr3), "r"(stack_top), "r"(entry), "D"(info)
                     : "memory");
    __builtin_unreachable();
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    loader_console_init(image, table);
    loader_files_open(image);

    struct boot_info *info = loader_pages_alloc(sizeof(*info), GIB(4), "the boot information");
    info->magic = BOOT_INFO_MAGIC;
    info->version = BOOT_INFO_VERSION;
    info->size = sizeof(*info);

    /* What to start, and everything that it needs; the first thing that is wrong ends the boot. */
    manifest_load(info);
    struct loader_hypervisor hv = loader_hypervisor_load();
    loader_images_load(&manifest, info);
    info->rsdp = acpi_root_find(table);
    info->hv_base = hv.base;
    info->hv_size = hv.size;

    /* The world as boot_info.h promises it. */
    u64 ram_end = loader_memory_end();
    u64 identity_end = ram_end > GIB(4) ? ram_end : GIB(4);
    u64 cr3 = loader_page_tables_build(identity_end, &hv);
    u64 stack = (u64)loader_pages_alloc(STACK_BYTES, GIB(4), "the first stack");
    loader_say("[uefi] entering the hypervisor at 0x%llx (%llu KiB at 0x%llx)", (unsigned long long)hv.entry,
               (unsigned long long)(hv.size >> 10), (unsigned long long)hv.base);
    loader_exit_boot_services(image, info);
    hypervisor_enter(cr3, stack + STACK_BYTES, hv.entry, info);
}
