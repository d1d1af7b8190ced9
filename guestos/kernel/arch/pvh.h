/* What a PVH loader hands over (Xen: public/arch-x86/hvm/start_info.h), copied out before any memory is given away. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define PVH_MAX_MEMORY 64u
#define PVH_CMDLINE_SIZE 256u
#define PVH_MEMORY_RAM 1u

struct pvh_memory {
    u64 base;
    u64 size;
    u32 type; /* E820 numbers: 1 is RAM */
    u32 reserved;
};

struct pvh_boot {
    u64 rsdp; /* physical; 0 when none was given */
    u32 memory_count;
    struct pvh_memory memory[PVH_MAX_MEMORY];
    char cmdline[PVH_CMDLINE_SIZE];
};

/*
 * Copy the start information at physical address start_info (below 4 GiB, identity-mapped) into *boot.
 * ERR_FORMAT: wrong magic. ERR_UNSUPPORTED: version 0, which has no memory map. ERR_NOT_FOUND: an empty memory map.
 */
NODISCARD status_t pvh_read(u64 start_info, struct pvh_boot *boot);
