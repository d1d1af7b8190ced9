/* The DMAR table (VT-d 8): pure parser. The bytes are firmware's: bounds are checked, nothing is believed. */
#pragma once

#include "shared/lib/types.h"

#define DMAR_IOAPICS 4u

struct dmar_info {
    bool interrupt_remapping;
    u32 unit_count;
    u64 unit_base; /* of the last unit's registers, host-physical */
    u16 unit_segment;
    u32 ioapic_count;
    struct dmar_ioapic {
        u8 id;      /* as in MADT */
        u16 source; /* what its interrupt requests carry */
    } ioapic[DMAR_IOAPICS];
};

/* Parse table[0..size). Structures of other types are skipped. Returns NULL, or what is wrong with the table. */
const char *dmar_parse(const void *table, u64 size, struct dmar_info *out);
