#include "hv/iommu/dmar.h"
#include "shared/lib/string.h"

#define TABLE_LENGTH 4u /* VT-d 8.1 */
#define TABLE_FLAGS 37u
#define TABLE_HEADER_SIZE 48u
#define TABLE_FLAG_INTERRUPTS 1u
#define STRUCTURE_HEADER_SIZE 4u
#define STRUCTURE_UNIT 0u

struct unit_structure { /* VT-d 8.3. Type and length begin a structure of any type. */
    u16 type, length;
    u8 flags, size;
    u16 segment;
    u64 base;
} __attribute__((packed));

const char *dmar_parse(const void *table, u64 size, struct dmar_info *out)
{
    const u8 *bytes = table;
    struct unit_structure unit;
    u32 total;

    *out = (struct dmar_info){0};
    if (size < TABLE_HEADER_SIZE || memcmp(bytes, "DMAR", 4) != 0)
        return "not a DMAR table";
    memcpy(&total, bytes + TABLE_LENGTH, sizeof(total));
    if (total < TABLE_HEADER_SIZE || total > size)
        return "table's length is wrong";
    out->interrupt_remapping = bytes[TABLE_FLAGS] & TABLE_FLAG_INTERRUPTS;

    for (u32 at = TABLE_HEADER_SIZE; at < total; at += unit.length) {
        if (total - at < STRUCTURE_HEADER_SIZE)
            return "structure has an impossible length";
        memcpy(&unit, bytes + at, STRUCTURE_HEADER_SIZE);
        if (unit.length < STRUCTURE_HEADER_SIZE || unit.length > total - at)
            return "structure has an impossible length";
        if (unit.type != STRUCTURE_UNIT)
            continue;
        if (unit.length < sizeof(unit))
            return "remapping unit structure is too short";
        memcpy(&unit, bytes + at, sizeof(unit));
        if (unit.base == 0 || (unit.base & PAGE_MASK))
            return "remapping unit's registers are not page aligned";
        out->unit_count++;
        out->unit_base = unit.base;
        out->unit_segment = unit.segment;
    }
    return NULL;
}
