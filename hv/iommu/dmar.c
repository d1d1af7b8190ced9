#include "hv/iommu/dmar.h"
#include "shared/lib/string.h"

#define DMAR_HEADER_SIZE 48u /* VT-d 8.1 */
#define DMAR_FLAG_INTERRUPTS 1u
#define STRUCTURE_HEADER_SIZE 4u

enum dmar_structure { DMAR_UNIT = 0, DMAR_RESERVED = 1 };

struct unit_structure { /* 8.3 */
    u16 type, length;
    u8 flags, size;
    u16 segment;
    u64 base;
} __attribute__((packed));

struct reserved_structure { /* 8.4 */
    u16 type, length;
    u16 reserved, segment;
    u64 base, limit;
} __attribute__((packed));

struct device_scope { /* 8.3.1; pairs of device and function follow */
    u8 type, length;
    u16 reserved;
    u8 enumeration_id, start_bus;
} __attribute__((packed));

static status_t parse_unit(const u8 *at, u32 length, struct dmar_info *out, const char **why)
{
    struct unit_structure unit;

    *why = "remapping unit structure is too short";
    if (length < sizeof(unit))
        return ERR_FORMAT;
    memcpy(&unit, at, sizeof(unit));
    *why = "remapping unit's registers are not page aligned";
    if (unit.base == 0 || (unit.base & PAGE_MASK))
        return ERR_FORMAT;
    *why = "too many remapping units";
    if (out->unit_count == DMAR_MAX_UNITS)
        return ERR_NO_SPACE;
    out->unit[out->unit_count++] =
        (struct dmar_unit){.base = unit.base, .segment = unit.segment, .include_all = unit.flags & 1};
    return OK;
}

static status_t parse_reserved(const u8 *at, u32 length, struct dmar_info *out, const char **why)
{
    struct reserved_structure region;
    struct device_scope scope;

    *why = "reserved memory structure is too short";
    if (length < sizeof(region))
        return ERR_FORMAT;
    memcpy(&region, at, sizeof(region));
    for (u32 offset = sizeof(region); offset < length; offset += scope.length) {
        *why = "device scope has an impossible length";
        if (length - offset < sizeof(scope))
            return ERR_FORMAT;
        memcpy(&scope, at + offset, sizeof(scope));
        if (scope.length < sizeof(scope) + 2 || scope.length > length - offset)
            return ERR_FORMAT;
        *why = "too many devices with reserved memory";
        if (out->reserved_count == DMAR_MAX_RESERVED)
            return ERR_NO_SPACE;
        const u8 *path = at + offset + sizeof(scope);
        out->reserved[out->reserved_count++] =
            (struct dmar_reserved){.base = region.base,
                                   .limit = region.limit,
                                   .bdf = (u16)(scope.start_bus << 8 | (path[0] & 31) << 3 | (path[1] & 7)),
                                   .behind_bridge = scope.length > sizeof(scope) + 2};
    }
    return OK;
}

status_t dmar_parse(const void *table, u64 size, struct dmar_info *out, const char **why)
{
    const u8 *bytes = table;
    u32 total;

    *out = (struct dmar_info){0};
    *why = "not a DMAR table";
    if (size < DMAR_HEADER_SIZE || memcmp(bytes, "DMAR", 4) != 0)
        return ERR_FORMAT;
    memcpy(&total, bytes + 4, sizeof(total));
    *why = "table's length is wrong";
    if (total < DMAR_HEADER_SIZE || total > size)
        return ERR_FORMAT;
    out->address_bits = bytes[36] + 1u;
    out->interrupt_remapping = bytes[37] & DMAR_FLAG_INTERRUPTS;

    u16 head[2]; /* type, length */
    for (u32 at = DMAR_HEADER_SIZE; at < total; at += head[1]) {
        status_t status = OK;
        *why = "structure has an impossible length";
        if (total - at < STRUCTURE_HEADER_SIZE)
            return ERR_FORMAT;
        memcpy(head, bytes + at, sizeof(head));
        if (head[1] < STRUCTURE_HEADER_SIZE || head[1] > total - at)
            return ERR_FORMAT;
        if (head[0] == DMAR_UNIT)
            status = parse_unit(bytes + at, head[1], out, why);
        else if (head[0] == DMAR_RESERVED)
            status = parse_reserved(bytes + at, head[1], out, why);
        if (status != OK)
            return status;
    }
    *why = "";
    return OK;
}

status_t dmar_only_unit(const struct dmar_info *info, const struct dmar_unit **out)
{
    if (info->unit_count == 0)
        return ERR_NOT_FOUND;
    if (info->unit_count > 1 || info->unit[0].segment != 0)
        return ERR_UNSUPPORTED;
    *out = &info->unit[0];
    return OK;
}
