/* The remapping unit, for the files of iommu/ only: its registers (VT-d 11.4) and its queue. Context: hv lock held. */
#pragma once

#include "hv/iommu/dmar.h"
#include "hv/iommu/formats.h"

#define VTD_CAPABILITY 0x08u
#define VTD_EXTENDED 0x10u
#define VTD_COMMAND 0x18u
#define VTD_STATUS 0x1cu
#define VTD_ROOT_TABLE 0x20u
#define VTD_FAULT_STATUS 0x34u
#define VTD_FAULT_CONTROL 0x38u
#define VTD_FAULT_DATA 0x3cu
#define VTD_FAULT_ADDRESS 0x40u
#define VTD_FAULT_ADDRESS_HIGH 0x44u
#define VTD_PROTECTED_MEMORY 0x64u
#define VTD_QUEUE_TAIL 0x88u
#define VTD_QUEUE_ADDRESS 0x90u
#define VTD_INTERRUPT_TABLE 0xb8u

/* Global command and status share their bit numbers. */
#define VTD_TRANSLATION (1u << 31)
#define VTD_SET_ROOT (1u << 30)
#define VTD_QUEUE (1u << 26)
#define VTD_REMAP_INTERRUPTS (1u << 25)
#define VTD_SET_INTERRUPT_TABLE (1u << 24)
#define VTD_COMPATIBILITY (1u << 23) /* compatibility-format interrupts pass: never on here */

#define CAP_DOMAINS(cap) (1u << (4 + 2 * ((cap)&7)))
#define CAP_WRITE_BUFFER (1ull << 4)
#define CAP_PROTECTED_MEMORY (3ull << 5) /* a low and a high region */
#define CAP_CACHING_MODE (1ull << 7)
#define CAP_LEVELS_4 (1ull << 10) /* SAGAW: 48 bits */
#define CAP_ADDRESS_BITS(cap) (((u32)((cap) >> 16) & 0x3f) + 1)
#define CAP_FAULT_OFFSET(cap) (((u32)((cap) >> 24) & 0x3ff) * 16)
#define CAP_SUPERPAGES(cap) ((u32)((cap) >> 34) & 3) /* bit 0: 2 MiB, bit 1: 1 GiB */
#define CAP_PAGE_SELECTIVE (1ull << 39)
#define CAP_FAULT_COUNT(cap) (((u32)((cap) >> 40) & 0xff) + 1)
#define CAP_MASK_MAX(cap) ((u32)((cap) >> 48) & 0x3f)

#define ECAP_COHERENT (1ull << 0)
#define ECAP_QUEUE (1ull << 1)
#define ECAP_INTERRUPTS (1ull << 3)

struct iommu_unit {
    bool present; /* found and fit for use; iommu_init() ends with translation on or with a boot error */
    bool remaps_interrupts;
    u64 base; /* host-physical, for messages */
    volatile u8 *registers;
    u64 capability, extended;
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
/* Have the unit carry out an invalidation descriptor, and wait until it is done. */
void unit_invalidate(struct vtd_entry descriptor);
/* Tables were written: make them visible to a unit that does not snoop (ECAP.C = 0). */
void unit_publish(const void *at, u64 size);

/* domain.c: root table, blocking domain and a context table for each bus with devices, known to the unit on return. */
void domain_init(void);

/* interrupt_remap.c: table in place, remapping on, plain messages of devices and IOAPICs blocked. Keeps a copy. */
void interrupt_remap_init(const struct dmar_info *dmar);

/* fault.c: clear what is recorded and raise `vector` on `apic_id` for new ones. */
void fault_init(u8 vector, u8 apic_id);
