/* What the unit reads and writes in memory and on the bus, as pure functions of its fields. */
#pragma once

#include "hv/iommu/iommu.h"

/* Every structure here is 128 bits, two words. */
struct vtd_entry {
    u64 low, high;
};
_Static_assert(sizeof(struct vtd_entry) == 16, "VT-d 9.1, 9.3, 9.10, 6.5.2: 128 bits");

#define VTD_PRESENT 1ull
#define VTD_TABLE_MASK 0x000ffffffffff000ull

/* Root entry: the context table of a bus (VT-d 9.1). */
static inline struct vtd_entry vtd_root_entry(hpa_t context_table)
{
    return (struct vtd_entry){.low = context_table.v | VTD_PRESENT};
}

/* Context entry (VT-d 9.3): translation type 0 = untranslated requests only, so that a device's own address cache
 * counts nothing; address width 2 = tables of four levels. */
static inline struct vtd_entry vtd_context_entry(hpa_t table, u16 domain)
{
    const u64 four_levels = 2;

    return (struct vtd_entry){.low = table.v | VTD_PRESENT, .high = (u64)domain << 8 | four_levels};
}

static inline u16 vtd_context_domain(const struct vtd_entry *entry)
{
    return (u16)(entry->high >> 8);
}

/* Interrupt remapping entry (VT-d 9.10): fixed, physical destination by 8-bit APIC id; the whole source id is compared.
 */
static inline struct vtd_entry vtd_interrupt_entry(u16 bdf, u8 vector, u8 apic_id, bool level)
{
    const u64 verify_source = 1ull << 18, compare_all_bits = 0ull << 16;

    return (struct vtd_entry){.low = VTD_PRESENT | (u64)level << 4 | (u64)vector << 16 | (u64)apic_id << 40,
                              .high = bdf | compare_all_bits | verify_source};
}

/* The message that uses entry `index` (VT-d 5.1.2.2): remappable format, no subhandle, so that the data does not count.
 */
static inline u64 vtd_message_address(u16 index)
{
    return 0xfee00000ull | (u64)(index & 0x7fff) << 5 | 1ull << 4 | (u64)(index >> 15) << 2;
}

/* The same in an IOAPIC's redirection entry (VT-d 5.1.5.1), beside vector, polarity, trigger mode and mask. */
static inline u64 vtd_line_entry(u16 index)
{
    return (u64)(index & 0x7fff) << 49 | 1ull << 48 | (u64)(index >> 15) << 11;
}

/* Invalidation descriptors (VT-d 6.5.2): what of a cache goes. */
enum vtd_granularity { VTD_ALL = 1, VTD_DOMAIN = 2, VTD_ONE = 3 };

/* VTD_ALL, or VTD_ONE: what was cached for source id `bdf` while its entry named `domain`. */
static inline struct vtd_entry vtd_invalidate_contexts(enum vtd_granularity what, u16 domain, u16 bdf)
{
    return (struct vtd_entry){.low = 1 | (u64)what << 4 | (u64)domain << 16 | (u64)bdf << 32};
}

/*
 * VTD_ALL, VTD_DOMAIN, or VTD_ONE: 2^order pages of the domain at `at`, which is aligned to that. Hint 0: tables above
 * the leaf may have changed too. The bits that drain writes and reads (6, 7) are reserved where the capability register
 * lacks them (54, 55).
 */
static inline struct vtd_entry vtd_invalidate_iotlb(enum vtd_granularity what, u16 domain, iova_t at, u32 order,
                                                    u64 capability)
{
    return (struct vtd_entry){.low = 2 | (u64)what << 4 | (capability >> 54 & 3) << 6 | (u64)domain << 16,
                              .high = at.v | order};
}

static inline struct vtd_entry vtd_invalidate_interrupts(void)
{
    return (struct vtd_entry){.low = 4};
}

/* When all before it is done, the unit writes `value` to `status`. */
static inline struct vtd_entry vtd_wait(hpa_t status, u32 value)
{
    const u64 status_write = 1ull << 5, fence = 1ull << 6;

    return (struct vtd_entry){.low = 5 | status_write | fence | (u64)value << 32, .high = status.v};
}

/* A fault record (VT-d 11.4, FRCD_REG), its F bit set. Interrupt faults have reasons from 0x20 (VT-d 7.1). */
static inline struct iommu_fault vtd_fault_decode(u64 low, u64 high)
{
    u8 reason = (u8)(high >> 32);
    bool interrupt = reason >= 0x20 && reason < 0x30;
    bool request_type_1 = high >> 62 & 1, request_type_2 = high >> 28 & 1; /* 00 write, 10 read, 11 atomic */

    return (struct iommu_fault){.source = (u16)high,
                                .address = low & ~PAGE_MASK,
                                .reason = reason,
                                .write = !interrupt && (!request_type_1 || request_type_2),
                                .interrupt = interrupt};
}
