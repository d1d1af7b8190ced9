/* Interrupt remapping (VT-d 5): a device can raise the one vector that its entry names, and only by its own source id;
 * so can each pin of an IOAPIC. */
#include "hv/core/hypervisor.h"
#include "hv/iommu/unit.h"
#include "shared/x86/apic.h"

#define VECTOR_FIRST 16u /* SDM 3A 10.5.2: those below are illegal */
#define APIC_ID_BROADCAST 0xffu
#define ENTRIES 256u  /* one page */
#define SIZE_FIELD 7u /* 2^(7+1) entries */

static struct vtd_entry *table;
static u32 used;
static struct dmar_info sources; /* of IOAPICs */

void interrupt_remap_init(const struct dmar_info *dmar)
{
    table = boot_frames(1, "the interrupt remapping table");
    used = 0;
    sources = *dmar;
    unit_publish(table, PAGE_SIZE);
    /* 8-bit destinations (EIME = 0). An absent entry faults: all interrupts are blocked that were not given out. */
    unit_write64(VTD_INTERRUPT_TABLE, ptr_to_hpa(table).v | SIZE_FIELD);
    unit_command(VTD_SET_INTERRUPT_TABLE, true);
    unit_invalidate(vtd_invalidate_interrupts());
    unit_command(VTD_REMAP_INTERRUPTS, true);
    if (unit_read32(VTD_STATUS) & VTD_COMPATIBILITY)
        panic("VT-d unit at 0x%lx: lets plain interrupt messages pass", iommu_unit.base);
    iommu_unit.remaps_interrupts = true;
}

/* A new entry; absent until iommu_interrupt_open(). */
static status_t entry_create(struct vtd_entry entry, u16 *index)
{
    if (used == ENTRIES)
        return ERR_NO_SPACE;
    *index = (u16)used++;
    table[*index] = (struct vtd_entry){.low = entry.low & ~VTD_PRESENT, .high = entry.high};
    return OK;
}

status_t iommu_message_create(u16 bdf, u8 vector, u32 apic_id, u64 *address, u32 *data)
{
    u16 index;

    if (vector < VECTOR_FIRST || apic_id >= APIC_ID_BROADCAST)
        return ERR_RANGE;
    if (!iommu_unit.remaps_interrupts) {
        *address = msi_address((u8)apic_id);
        *data = vector;
        return OK;
    }
    status_t status = entry_create(vtd_interrupt_entry(bdf, vector, (u8)apic_id, false), &index);
    if (status != OK)
        return status;
    iommu_interrupt_open(index, true);
    *address = vtd_message_address(index);
    *data = 0;
    return OK;
}

status_t iommu_line_create(u8 ioapic_id, u8 vector, u32 apic_id, bool level, u16 *index)
{
    if (!iommu_unit.remaps_interrupts)
        return ERR_STATE;
    if (vector < VECTOR_FIRST || apic_id >= APIC_ID_BROADCAST)
        return ERR_RANGE;
    for (u32 i = 0; i < sources.ioapic_count; i++)
        if (sources.ioapic[i].id == ioapic_id)
            return entry_create(vtd_interrupt_entry(sources.ioapic[i].source, vector, (u8)apic_id, level), index);
    return ERR_NOT_FOUND;
}

void iommu_interrupt_open(u16 index, bool open)
{
    u64 low = (table[index].low & ~VTD_PRESENT) | (open ? VTD_PRESENT : 0);

    if (low == table[index].low)
        return;
    __atomic_store_n(&table[index].low, low, __ATOMIC_RELEASE); /* the present bit last */
    unit_publish(&table[index], sizeof(table[index]));
    unit_invalidate(vtd_invalidate_interrupts());
}
