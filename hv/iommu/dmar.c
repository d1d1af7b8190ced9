#include "hv/iommu/dmar.h"
#include "shared/acpi/tables.h"
#include "shared/lib/string.h"

#define TABLE_FLAG_INTERRUPTS 1u
#define STRUCTURE_HEADER_SIZE 4u
#define STRUCTURE_UNIT 0u
#define SCOPE_IOAPIC 3u
#define SCOPE_ONE_STEP 8u

struct dmar_table { /* VT-d 8.1; structures behind it */
    struct acpi_header header;
    u8 address_width, flags, reserved[10];
} __attribute__((packed));

struct unit_structure { /* VT-d 8.3. Type and length begin a structure of any type. */
    u16 type, length;
    u8 flags, size;
    u16 segment;
    u64 base;
} __attribute__((packed));

/*
 * The IOAPICs among the devices of a unit (VT-d 8.3.1: type, length, two bytes, id, bus, and a path of device and
 * function for each step from there). One behind a bridge, with a path of several steps, is left out.
 */
static void read_scopes(const u8 *at, const u8 *end, struct dmar_info *out)
{
    for (; end - at >= 2 && at[1] >= 2 && at[1] <= end - at; at += at[1])
        if (at[0] == SCOPE_IOAPIC && at[1] == SCOPE_ONE_STEP && out->ioapic_count < DMAR_IOAPICS)
            out->ioapic[out->ioapic_count++] =
                (struct dmar_ioapic){at[4], (u16)(at[5] << 8 | (at[6] & 31) << 3 | (at[7] & 7))};
}

const char *dmar_parse(const void *table, u64 size, struct dmar_info *out)
{
    const struct dmar_table *dmar = table;
    const u8 *bytes = table;
    struct unit_structure unit;

    *out = (struct dmar_info){0};
    if (size < sizeof(*dmar) || memcmp(dmar->header.signature, "DMAR", 4) != 0)
        return "not a DMAR table";
    u32 total = dmar->header.length;
    if (total < sizeof(*dmar) || total > size)
        return "table's length is wrong";
    out->interrupt_remapping = dmar->flags & TABLE_FLAG_INTERRUPTS;

    for (u32 at = sizeof(*dmar); at < total; at += unit.length) {
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
        read_scopes(bytes + at + sizeof(unit), bytes + at + unit.length, out);
    }
    return NULL;
}
