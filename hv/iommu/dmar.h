/* The DMAR table (VT-d 8): pure parser. The bytes are firmware's: bounds are checked, nothing is believed. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define DMAR_MAX_UNITS 8u
#define DMAR_MAX_RESERVED 16u

struct dmar_unit {
    u64 base; /* of its registers, host-physical */
    u16 segment;
    bool include_all;
};

/* Memory that a device's firmware uses by DMA on its own (VT-d 8.4), one entry a device. */
struct dmar_reserved {
    u64 base, limit; /* limit inclusive */
    u16 bdf;         /* of the device, or of the bridge that leads to it */
    bool behind_bridge;
};

struct dmar_info {
    u32 address_bits; /* of the machine */
    bool interrupt_remapping;
    u32 unit_count;
    struct dmar_unit unit[DMAR_MAX_UNITS];
    u32 reserved_count;
    struct dmar_reserved reserved[DMAR_MAX_RESERVED];
};

/*
 * Parse table[0..size). Structures of unknown type are skipped. Errors: ERR_FORMAT (signature, a length that is too
 * short or reaches beyond the table), ERR_NO_SPACE (more units or reserved devices than the limits). *why: static text.
 */
NODISCARD status_t dmar_parse(const void *table, u64 size, struct dmar_info *out, const char **why);

/* The one unit that covers everything: the only one of segment 0. ERR_NOT_FOUND, ERR_UNSUPPORTED (several, or another
 * segment). */
NODISCARD status_t dmar_only_unit(const struct dmar_info *info, const struct dmar_unit **out);
