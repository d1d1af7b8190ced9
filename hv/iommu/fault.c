/* Fault records (VT-d 7, primary fault logging): what a device tried, told by an interrupt, read out oldest first. */
#include "hv/core/hypervisor.h"
#include "hv/iommu/unit.h"
#include "shared/x86/apic.h"

#define STATUS_OVERFLOW (1u << 0)
#define STATUS_PENDING (1u << 1)
#define STATUS_INDEX(status) ((status) >> 8 & 0xff)
#define CONTROL_MASK (1u << 31)
#define RECORD_SIZE 16u
#define RECORD_PRESENT (1u << 31) /* in the last of a record's four words; write one to clear */

static const char *const reason_text[] = {
    [0x01] = "no root entry for its bus",
    [0x02] = "no context entry",
    [0x03] = "invalid context entry",
    [0x04] = "address beyond the unit's width",
    [0x05] = "write without permission",
    [0x06] = "read without permission",
    [0x07] = "page table not readable",
    [0x08] = "root table not readable",
    [0x09] = "context table not readable",
    [0x0a] = "reserved bits in root entry",
    [0x0b] = "reserved bits in context entry",
    [0x0c] = "reserved bits in page table",
    [0x0d] = "translation request or translated request",
    [0x0e] = "address in the interrupt range",
    [0x20] = "reserved bits in interrupt request",
    [0x21] = "interrupt index beyond the table",
    [0x22] = "no such interrupt entry",
    [0x23] = "interrupt table not readable",
    [0x24] = "reserved bits in interrupt entry",
    [0x25] = "plain interrupt message",
    [0x26] = "interrupt entry of another source id",
};

const char *iommu_reason_text(u8 reason)
{
    return reason < ARRAY_SIZE(reason_text) && reason_text[reason] ? reason_text[reason] : "unknown reason";
}

/* Record i, if it holds a fault; then it is free for the next one. */
static bool take_record(u32 index, struct iommu_fault *out)
{
    u32 at = CAP_FAULT_OFFSET(iommu_unit.capability) + index * RECORD_SIZE;

    if (!(unit_read32(at + 12) & RECORD_PRESENT))
        return false;
    *out = vtd_fault_decode(unit_read64(at), unit_read64(at + 8));
    unit_write32(at + 12, RECORD_PRESENT);
    return true;
}

u32 iommu_drain_faults(void (*each)(const struct iommu_fault *fault), bool *overflow)
{
    u32 records = CAP_FAULT_COUNT(iommu_unit.capability), taken = 0;
    struct iommu_fault fault;

    *overflow = false;
    if (!iommu_unit.present)
        return 0;
    /* A fault that comes while others are pending raises no interrupt (VT-d 7, fault events): look until none is. */
    for (;;) {
        u32 status = unit_read32(VTD_FAULT_STATUS);
        if (status & STATUS_OVERFLOW) {
            *overflow = true;
            unit_write32(VTD_FAULT_STATUS, STATUS_OVERFLOW);
        }
        if (!(status & STATUS_PENDING))
            return taken;
        u32 first = STATUS_INDEX(status) % records, before = taken;
        for (u32 i = 0; i < records && taken < IOMMU_DRAIN_MAX; i++) {
            if (!take_record((first + i) % records, &fault))
                continue;
            taken++;
            each(&fault);
        }
        if (taken == IOMMU_DRAIN_MAX || taken == before)
            return taken;
    }
}

void fault_init(u8 vector, u8 apic_id)
{
    struct iommu_fault stale;

    unit_write32(VTD_FAULT_CONTROL, CONTROL_MASK);
    for (u32 i = 0; i < CAP_FAULT_COUNT(iommu_unit.capability); i++)
        (void)take_record(i, &stale);
    unit_write32(VTD_FAULT_STATUS, STATUS_OVERFLOW);

    /* The unit's own messages are not remapped (VT-d 5.1). */
    unit_write32(VTD_FAULT_DATA, vector);
    unit_write32(VTD_FAULT_ADDRESS, (u32)msi_address(apic_id));
    unit_write32(VTD_FAULT_ADDRESS_HIGH, 0);
    unit_write32(VTD_FAULT_CONTROL, 0);
}
