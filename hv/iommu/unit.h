/* The remapping unit, for the files of iommu/ only. Context: hv lock held. */
#pragma once

#include "hv/iommu/formats.h"
#include "hv/iommu/registers.h"

struct iommu_unit {
    bool present; /* translation is on */
    bool remaps_interrupts;
    u64 base; /* host-physical, for messages */
    volatile u8 *registers;
    u64 capability, extended;
    u32 levels;       /* of second-level tables */
    u32 address_bits; /* addresses that devices may use */
};
extern struct iommu_unit iommu_unit;

/* unit.c */
u32 unit_read32(u32 offset);
u64 unit_read64(u32 offset);
void unit_write32(u32 offset, u32 value);
void unit_write64(u32 offset, u64 value);
/* Give a global command and wait until the status says so. One of the VTD_* bits. */
void unit_command(u32 bit, bool on);
/* Put descriptors into the queue, at most UNIT_BATCH, and wait until the unit has done them. */
#define UNIT_BATCH 32u
void unit_invalidate(const struct vtd_entry *list, u32 count);
/* Tables were written: make them visible to a unit that does not snoop (ECAP.C = 0). */
void unit_publish(const void *at, u64 size);

/* domain.c: root table, blocking domain, a context table for each bus that exists. Not yet in force. */
NODISCARD status_t domain_init(void);
hpa_t domain_root_table(void);

/* interrupt_remap.c: table in place, remapping on, plain messages of devices blocked. */
NODISCARD status_t interrupt_remap_init(void);

/* fault.c: clear what is recorded and raise `vector` on `apic_id` for new ones. */
void fault_init(u8 vector, u8 apic_id);
