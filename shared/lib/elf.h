/*
 * ELF64 x86-64 static executables: one checker and loader for the hypervisor (driver and guest images) and the UEFI
 * loader (the hypervisor itself). Pure: reads only [image, image+size), writes only through the caller's copy callback.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define ELF_MAX_SEGMENTS 16u

struct elf_segment {
    u64 offset;    /* in the file */
    u64 file_size; /* bytes to copy */
    u64 mem_size;  /* the rest, up to here, is zero; >= file_size */
    u64 vaddr;
    u64 paddr;
    bool write;
    bool execute;
};

struct elf_image {
    u64 entry;     /* e_entry */
    u64 pvh_entry; /* of the note XEN_ELFNOTE_PHYS32_ENTRY (type 18, name "Xen"); 0 when there is none */
    u32 count;
    struct elf_segment segment[ELF_MAX_SEGMENTS]; /* PT_LOAD only, in file order, mem_size > 0 */
};

/* The first segment of a checked image that does not lie in [first, end) of memory; NULL: all do. */
const struct elf_segment *elf_misfit(const struct elf_image *elf, u64 first, u64 end);

/*
 * Check the whole file and list its PT_LOAD segments. image is untrusted.
 * Errors: ERR_FORMAT (not ELF64 little-endian x86-64 ET_EXEC, bad header sizes, mem_size < file_size),
 * ERR_RANGE (a header or segment reaches beyond the file: a truncated image), ERR_OVERFLOW (address wraps),
 * ERR_NO_SPACE (too many segments), ERR_NOT_FOUND (no PT_LOAD), ERR_INVALID (segments overlap in paddr).
 * *why receives a static text that names the field.
 */
NODISCARD status_t elf_parse(const void *image, u64 size, struct elf_image *out, const char **why);
