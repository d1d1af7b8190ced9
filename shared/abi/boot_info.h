/*
 * What the boot loader hands to the hypervisor.
 *
 * The loader enters hv.elf at its ELF entry point in 64-bit mode with interrupts off, RDI = physical address of one
 * struct boot_info, RSP = a stack of at least 16 KiB in loader memory, boot services gone, and page tables that map
 * (a) physical memory one to one up to max(4 GiB, end of RAM), writable and executable, and (b) the hypervisor's
 * segments at their link addresses. The hypervisor replaces both at once. The image lies physically contiguous at
 * hv_base, with segment s at hv_base + (s.vaddr - lowest vaddr); hv_base is 2 MiB aligned.
 *
 * Owner: the loader until it jumps, then the hypervisor; nobody writes it afterwards.
 */
#pragma once

#include "shared/lib/types.h"

#define BOOT_INFO_MAGIC 0x30444145484b4c42ull /* "BLKHEAD0" */
#define BOOT_INFO_VERSION 1u
#define BOOT_MAX_MEMORY 256u
#define BOOT_MAX_MODULES 40u
#define BOOT_NAME_SIZE 48u

enum boot_memory_kind {
    BOOT_MEMORY_FREE = 1,     /* conventional and boot-services memory: the hypervisor may take it */
    BOOT_MEMORY_LOADER = 2,   /* hv image, boot_info, modules, loader page tables and stack */
    BOOT_MEMORY_ACPI = 3,     /* ACPI reclaimable and NVS */
    BOOT_MEMORY_RESERVED = 4, /* runtime services, MMIO, anything else that is listed */
};

struct boot_memory {
    u64 base; /* page aligned */
    u64 size; /* page multiple */
    u32 kind; /* enum boot_memory_kind */
    u32 reserved;
};

struct boot_module {
    u64 base;                  /* physical, page aligned */
    u64 size;                  /* bytes */
    char name[BOOT_NAME_SIZE]; /* the file name as the manifest gives it, NUL terminated */
};

struct boot_info {
    u64 magic;
    u32 version;
    u32 size; /* sizeof(struct boot_info) */
    u64 rsdp; /* physical; where firmware names none, of tables that the loader made */
    u64 hv_base;
    u64 hv_size; /* bytes in memory, from the lowest to the highest segment */
    u32 memory_count;
    u32 module_count;
    struct boot_memory memory[BOOT_MAX_MEMORY];  /* sorted by base, not overlapping, neighbours of a kind merged */
    struct boot_module module[BOOT_MAX_MODULES]; /* module[0] is the manifest text, named "manifest.ini" */
};
