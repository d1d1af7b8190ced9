/* Who may reach what: root and context tables by source id, second-level tables by domain (VT-d 3.4, 3.7, 9). */
#include "hv/core/hypervisor.h"
#include "hv/iommu/unit.h"
#include "hv/pci/pci.h"
#include "shared/lib/checked.h"

#define INTERRUPT_RANGE 0xfee00000ull /* VT-d 3: writes there are interrupts, never translated */

static struct page_format format; /* VT-d's, as this unit can do it */
static struct iommu_domain domains[IOMMU_MAX_DOMAINS];
static u32 domain_count;
static struct iommu_domain *blocking; /* domains[0]: an empty table */
static struct vtd_entry *root_table;

static void table_written(const u64 *first, u32 count)
{
    unit_publish(first, count * sizeof(*first));
}

status_t iommu_domain_create(struct iommu_domain **out)
{
    if (!iommu_unit.present)
        return ERR_STATE;
    if (domain_count == IOMMU_MAX_DOMAINS)
        return ERR_NO_SPACE;
    struct iommu_domain *domain = &domains[domain_count];
    *domain = (struct iommu_domain){.id = (u16)(domain_count + 1)}; /* 0 is reserved with caching mode (VT-d 6.1) */
    status_t status = page_table_create(&domain->table, &format);
    if (status != OK)
        return status;
    domain_count++;
    *out = domain;
    return OK;
}

/* NULL: there is no device on that bus, or no unit. */
static struct vtd_entry *context_entry(u16 bdf)
{
    u64 root = iommu_unit.present ? root_table[bdf >> 8].low : 0;

    return root & VTD_PRESENT ? (struct vtd_entry *)hpa_to_ptr(HPA(root & VTD_TABLE_MASK)) + (bdf & 0xff) : NULL;
}

/* A bus gets its table of blocking entries. Without one its absent root entry blocks as well, with another reason. */
static void add_bus(u8 bus)
{
    if (root_table[bus].low & VTD_PRESENT)
        return;
    struct vtd_entry *table = boot_frames(1, "VT-d context tables");
    for (u32 i = 0; i < PAGE_SIZE / sizeof(*table); i++)
        table[i] = vtd_context_entry(blocking->table.root, blocking->id);
    unit_publish(table, PAGE_SIZE);
    root_table[bus] = vtd_root_entry(ptr_to_hpa(table));
    unit_publish(&root_table[bus], sizeof(root_table[bus]));
}

void domain_init(void)
{
    root_table = boot_frames(1, "the VT-d root table");
    unit_publish(root_table, PAGE_SIZE);
    format = page_format_vtd;
    format.superpages = CAP_SUPERPAGES(iommu_unit.capability) << 1;
    format.wrote = iommu_unit.extended & ECAP_COHERENT ? NULL : table_written;
    domain_count = 0;
    if (iommu_domain_create(&blocking) != OK)
        boot_fail("no memory for the VT-d blocking domain");
    for (u32 i = 0; i < pci_device_count; i++)
        add_bus((u8)(pci_devices[i].bdf >> 8));

    /* The root table counts from SET_ROOT on; what was cached before goes, contexts first (VT-d 6.5). */
    unit_write64(VTD_ROOT_TABLE, ptr_to_hpa(root_table).v);
    unit_command(VTD_SET_ROOT, true);
    unit_invalidate(vtd_invalidate_contexts(VTD_ALL, 0, 0));
    unit_invalidate(vtd_invalidate_iotlb(VTD_ALL, 0, IOVA(0), 0, iommu_unit.capability));
}

status_t iommu_map(struct iommu_domain *domain, iova_t at, hpa_t hpa, u64 size, u32 rights)
{
    u64 end;

    if (!add_u64(at.v, size, &end) || end > 1ull << iommu_unit.address_bits ||
        ranges_overlap(at.v, size, INTERRUPT_RANGE, MIB(1)))
        return ERR_RANGE;
    status_t status = page_table_map(&domain->table, at.v, hpa, size, rights);
    if (status != OK)
        return status;
    domain->maps++;
    /* Real units hold no absent entries in their caches; one that says it does must be told (VT-d 6.1). */
    if (iommu_unit.capability & CAP_CACHING_MODE)
        iommu_flush_pages(domain, at, size / PAGE_SIZE);
    return OK;
}

status_t iommu_unmap(struct iommu_domain *domain, iova_t at, u64 size)
{
    status_t status = page_table_unmap(&domain->table, at.v, size);

    if (status == OK)
        domain->unmaps++;
    return status;
}

status_t iommu_protect(struct iommu_domain *domain, iova_t at, u32 rights)
{
    return page_table_protect(&domain->table, at.v, rights);
}

static void flush_domain(struct iommu_domain *domain)
{
    domain->flushes++;
    unit_invalidate(vtd_invalidate_iotlb(VTD_DOMAIN, domain->id, IOVA(0), 0, iommu_unit.capability));
}

/* One descriptor takes 2^order pages, aligned to that (VT-d 6.5.2): too much is better than several round trips. */
void iommu_flush_pages(struct iommu_domain *domain, iova_t at, u64 pages)
{
    u64 first = at.v / PAGE_SIZE, last = first + pages - 1;
    u32 order = 0;

    while (first >> order != last >> order)
        order++;
    if (order > CAP_MASK_MAX(iommu_unit.capability)) {
        flush_domain(domain);
        return;
    }
    domain->flushes++;
    iova_t block = IOVA((first >> order << order) * PAGE_SIZE);
    unit_invalidate(vtd_invalidate_iotlb(VTD_ONE, domain->id, block, order, iommu_unit.capability));
}

/* The unit may look at any time, and must not see one half of the entry with the old other half: absent in between. */
static void set_context(u16 bdf, struct vtd_entry *entry, const struct iommu_domain *domain)
{
    struct vtd_entry wanted = vtd_context_entry(domain->table.root, domain->id);
    u16 old = vtd_context_domain(entry);

    __atomic_store_n(&entry->low, 0, __ATOMIC_RELEASE);
    unit_publish(entry, sizeof(*entry));
    __atomic_store_n(&entry->high, wanted.high, __ATOMIC_RELEASE);
    __atomic_store_n(&entry->low, wanted.low, __ATOMIC_RELEASE);
    unit_publish(entry, sizeof(*entry));

    /* Caches are tagged with the domain that the entry named before. Contexts first, or the IOTLB could be filled from
     * an old one. */
    unit_invalidate(vtd_invalidate_contexts(VTD_ONE, old, bdf));
    unit_invalidate(vtd_invalidate_iotlb(VTD_DOMAIN, old, IOVA(0), 0, iommu_unit.capability));
}

status_t iommu_attach(u16 bdf, struct iommu_domain *domain)
{
    struct vtd_entry *entry = context_entry(bdf);

    if (!entry)
        return ERR_STATE;
    set_context(bdf, entry, domain);
    return OK;
}

void iommu_block(u16 bdf)
{
    struct vtd_entry *entry = context_entry(bdf);

    if (entry)
        set_context(bdf, entry, blocking);
}

bool iommu_is_blocked(u16 bdf)
{
    const struct vtd_entry *entry = context_entry(bdf);

    return entry ? vtd_context_domain(entry) == blocking->id : iommu_unit.present;
}
