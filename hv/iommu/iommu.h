/*
 * VT-d (Intel VT-d specification 4.0): DMA remapping, interrupt remapping, faults. One remapping unit that covers all
 * devices, with tables for 48 bits, is supported; others are a boot error with their address. Firmware's reserved
 * memory (VT-d 8.4, RMRR) is mapped for no device: none keeps the DMA that firmware set up.
 *
 * Promises: after iommu_init() every source id without an owner is in the blocking domain (present context entry, empty
 * table, so that its DMA is recorded as a fault). Mapping takes effect at once; unmapping when iommu_flush_pages()
 * returned. All register and queue waits are bounded; a unit that does not answer is a panic (trusted hardware).
 * Context: hv lock held.
 */
#pragma once

#include "hv/core/page_table.h"

#define IOMMU_MAX_DOMAINS 32u /* the blocking one included */

struct iommu_domain {
    u16 id;
    struct page_table table;   /* iova = guest-physical of the driver VM */
    u64 maps, unmaps, flushes; /* counters for stats */
};

struct iommu_fault {
    u16 source;  /* bdf */
    u64 address; /* page of the access; interrupt faults: the index << 48 */
    u8 reason;   /* VT-d 7.1: fault reason */
    bool write;
    bool interrupt; /* an interrupt-remapping fault */
};

/*
 * Parse the DMAR table (untrusted firmware data: bounded, checked), map the unit, set up root and context tables,
 * queued invalidation, interrupt remapping, fault interrupt to host vector `fault_vector` of APIC `apic_id`, and switch
 * translation on. dmar NULL: no IOMMU: returns ERR_NOT_FOUND and iommu_present() stays false. Other errors name the
 * cause in the log. Boot, once, after pci_enumerate(): every bus that exists gets its table of blocking entries here.
 */
NODISCARD status_t iommu_init(const void *dmar, u32 dmar_size, u8 fault_vector, u32 apic_id);
bool iommu_present(void);
/* For the boot log: "VT-d at 0xfed90000, 48-bit, 2M+1G pages, interrupt remapping, 65536 domains". */
const char *iommu_description(void);

/* Never destroyed. ERR_STATE (no IOMMU), ERR_NO_SPACE, ERR_NO_MEMORY. */
NODISCARD status_t iommu_domain_create(struct iommu_domain **out);

/*
 * As page_table_map / unmap / protect on the domain's table; of the rights PAGE_READ and PAGE_WRITE count. ERR_RANGE
 * too: beyond what the unit translates, or in 0xfee00000..0xfeefffff, which is interrupts to every device. After unmap
 * and protect the old right lives on in the IOTLB until iommu_flush_pages(); that holds for added rights too.
 */
NODISCARD status_t iommu_map(struct iommu_domain *domain, iova_t at, hpa_t hpa, u64 size, u32 rights);
NODISCARD status_t iommu_unmap(struct iommu_domain *domain, iova_t at, u64 size);
NODISCARD status_t iommu_protect(struct iommu_domain *domain, iova_t at, u32 rights);

/*
 * Invalidate the IOTLB for at least [at, at + pages*4096), pages > 0: for the smallest aligned power of two of pages
 * that holds it, or for the whole domain where the unit cannot. Reads and writes are drained on return.
 */
void iommu_flush_pages(struct iommu_domain *domain, iova_t at, u64 pages);

/*
 * Point a source id at a domain, or at the blocking domain; context cache and IOTLB invalidated, DMA drained on return.
 * attach: ERR_STATE (no IOMMU, or no device is on that bus). Without an IOMMU nothing is blocked.
 */
NODISCARD status_t iommu_attach(u16 bdf, struct iommu_domain *domain);
void iommu_block(u16 bdf);
bool iommu_is_blocked(u16 bdf);

/*
 * An IRTE that lets `bdf` (source-id checked, VT-d 9.10) raise host vector `vector` on APIC `apic_id`, and the message
 * that uses it. Without interrupt remapping: a plain message (VM isolation then says so). Lives for ever; at boot.
 * ERR_NO_SPACE, ERR_RANGE (vector below 16, APIC id that needs x2APIC).
 */
NODISCARD status_t iommu_message_create(u16 bdf, u8 vector, u32 apic_id, u64 *address, u32 *data);

/*
 * The same for one pin of the IOAPIC that has this id in MADT: the entry's index, for the pin's redirection entry.
 * Closed, as it begins: a request from there is blocked, and recorded as a fault. ERR_STATE: interrupts are not
 * remapped; ERR_NOT_FOUND: DMAR does not tell that IOAPIC's source id; else as above.
 */
NODISCARD status_t iommu_line_create(u8 ioapic_id, u8 vector, u32 apic_id, bool level, u16 *index);
void iommu_interrupt_open(u16 index, bool open);

/*
 * Read and clear recorded faults, oldest first; `each` is called per fault. Returns how many. *overflow: some were
 * lost. Takes all that stood in the records at the time of the call (at most 256), and what comes meanwhile up to a
 * bound: when IOMMU_DRAIN_MAX is returned there may be more and the unit will not interrupt for them: block the
 * sources, call again.
 */
#define IOMMU_DRAIN_MAX 512u
u32 iommu_drain_faults(void (*each)(const struct iommu_fault *fault), bool *overflow);
/* English text for a reason code; never NULL. */
const char *iommu_reason_text(u8 reason);
