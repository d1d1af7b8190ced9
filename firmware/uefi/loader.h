/*
 * The parts of the boot loader. Context of every function: one CPU, UEFI boot services alive, identity mapping. What
 * fails is said on the console and ends the loader (loader_fail): nothing is half started, so nothing is unwound.
 */
#pragma once

#include <efi.h>

#include "shared/abi/boot_info.h"
#include "shared/abi/manifest.h"
#include "shared/lib/elf.h"
#include "shared/lib/types.h"

/* A file in memory: whole pages of EfiLoaderData, the tail of the last page zero. */
struct loader_file {
    void *data;
    u64 size;
};

/* The hypervisor's image after it was copied to its place. */
struct loader_hypervisor {
    u64 base;  /* physical, 2 MiB aligned */
    u64 size;  /* bytes, a page multiple */
    u64 vaddr; /* lowest link address, page aligned */
    u64 entry;
};

/* console.c */

/* Keep what the other functions need; must come first. */
void loader_console_init(EFI_HANDLE image, EFI_SYSTEM_TABLE *table);
EFI_BOOT_SERVICES *loader_boot_services(void);
/* The port of QEMU's isa-debug-exit, once the manifest is known; 0: none. */
void loader_set_exit_port(u16 port);
/* Print one line (at most 255 bytes, the line end is added). */
void loader_say(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Print "bulkhead: ..." and end: exit code 0x21 through the exit port, else back to the firmware. */
__attribute__((noreturn)) void loader_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* files.c */

/* Open the file system that the loader itself came from. */
void loader_files_open(EFI_HANDLE image);
/* Read \bulkhead\NAME; says its name and size. */
struct loader_file loader_file_read(const char *name);

/* images.c */

/* Read \bulkhead\hv.elf and lay its segments out at a free 2 MiB aligned place below 4 GiB. */
struct loader_hypervisor loader_hypervisor_load(void);
/* Read each image that the manifest names, once a name, check it, and list it as a module. */
void loader_images_load(const struct manifest *manifest, struct boot_info *info);

/* memory.c */

/* Zeroed pages of EfiLoaderData below `limit`. what: for the error line. */
void *loader_pages_alloc(u64 bytes, u64 limit, const char *what);
/* First address behind the last byte of RAM. */
u64 loader_memory_end(void);
/* Fill info->memory from the final memory map and end boot services. No UEFI call is possible afterwards. */
void loader_exit_boot_services(EFI_HANDLE image, struct boot_info *info);

/* acpi_fallback.c */

/* Find CPUs, IOAPIC and PM timer of a PC and make ACPI tables of them, in memory that survives; returns the RSDP. */
u64 loader_acpi_make(void);

/* page_tables.c */

/* Build the tables that boot_info.h promises; returns the physical address for CR3. */
u64 loader_page_tables_build(u64 identity_end, const struct loader_hypervisor *hv);
