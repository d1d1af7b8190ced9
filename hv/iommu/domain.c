/* Who may reach what: root and context tables by source id, second-level tables by domain (VT-d 3.4, 3.7, 9). */
#include "hv/core/hypervisor.h"
#include "hv/iommu/unit.h"
#include "hv/pci/pci.h"
#include "shared/lib/checked.h"

#define CONTEXT_ENTRIES 256u
#define FLUSH_RANGES UNIT_BATCH /* more pieces than this: the whole domain is cheaper */
#define INTERRUPT_RANGE                                                                                                \
    0xfee00000ull /* VT-d 3, interrupt address range: writes there are interrupts, never translated */

static struct page_format format; /* VT-d's, as this unit can do it */
static struct iommu_domain domains[IOMMU_MAX_DOMAINS];
static u32 domain_count;
static struct iommu_domain *blocking; /* domains[0]: an empty table */
static struct vtd_entry *root_table;

static void table_written(const u64 *first, u32 count)
{
    unit_publish(first, count * sizeof(*first));
}

static status_t create(struct iommu_domain **out)
{
    u32 limit = 1u << (4 + 2 * CAP_DOMAINS(iommu_unit.capability));

    if (domain_count == IOMMU_MAX_DOMAINS || domain_count + 1 >= limit)
        return ERR_NO_SPACE;
    struct iommu_domain *domain = &domains[domain_count];
    *domain = (struct iommu_domain){.id = (u16)(domain_count + 1)}; /* 0 is reserved with caching mode (VT-d 6.1) */
    status_t status = page_table_create(&domain->table, &format, iommu_unit.levels);
    if (status != OK)
        return status;
    domain_count++;
    *out = domain;
    return OK;
}

status_t iommu_domain_create(struct iommu_domain **out)
{
    return iommu_unit.present ? create(out) : ERR_STATE;
}

static struct vtd_entry *context_entry(u16 bdf)
{
    const struct vtd_entry *root = &root_table[bdf >> 8];

    if (!(root->low & VTD_PRESENT))
        return NULL;
    return (struct vtd_entry *)hpa_to_ptr(HPA(root->low & VTD_TABLE_MASK)) + (bdf & 0xff);
}

/* A bus gets its table of blocking entries. Before that its absent root entry blocks as well, with another fault
 * reason. */
static status_t add_bus(u8 bus)
{
    hpa_t page;

    if (root_table[bus].low & VTD_PRESENT)
        return OK;
    status_t status = frame_alloc(&page);
    if (status != OK)
        return status;
    struct vtd_entry *table = hpa_to_ptr(page);
    for (u32 i = 0; i < CONTEXT_ENTRIES; i++)
        table[i] = vtd_context_entry(blocking->table.root, iommu_unit.levels, blocking->id);
    unit_publish(table, PAGE_SIZE);
    root_table[bus] = vtd_root_entry(page);
    unit_publish(&root_table[bus], sizeof(root_table[bus]));
    return OK;
}

status_t domain_init(void)
{
    hpa_t page;
    status_t status = frame_alloc(&page);

    if (status != OK)
        return status;
    root_table = hpa_to_ptr(page);
    unit_publish(root_table, PAGE_SIZE);
    format = page_format_vtd;
    format.superpages = CAP_SUPERPAGES(iommu_unit.capability) << 1;
    format.wrote = iommu_unit.extended & ECAP_COHERENT ? NULL : table_written;
    domain_count = 0;
    status = create(&blocking);
    for (u32 i = 0; status == OK && i < pci_device_count; i++)
        status = add_bus((u8)(pci_devices[i].bdf >> 8));
    return status;
}

hpa_t domain_root_table(void)
{
    return ptr_to_hpa(root_table);
}

static status_t check_range(iova_t at, u64 size)
{
    u64 end;

    if (!add_u64(at.v, size, &end) || end > 1ull << iommu_unit.address_bits ||
        ranges_overlap(at.v, size, INTERRUPT_RANGE, MIB(1)))
        return ERR_RANGE;
    return OK;
}

status_t iommu_map(struct iommu_domain *domain, iova_t at, hpa_t hpa, u64 size, u32 rights)
{
    status_t status = check_range(at, size);

    if (status == OK && (!rights || (rights & ~(PAGE_READ | PAGE_WRITE))))
        status = ERR_INVALID;
    if (status == OK)
        status = page_table_map(&domain->table, at.v, hpa, size, rights);
    if (status != OK)
        return status;
    domain->maps++;
    /* Real units hold no absent entries in their caches; one that says it does must be told (VT-d 6.1), or about its
     * write buffer. */
    if (iommu_unit.capability & (CAP_CACHING_MODE | CAP_WRITE_BUFFER))
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
    if (!rights || (rights & ~(PAGE_READ | PAGE_WRITE)))
        return ERR_INVALID;
    return page_table_protect(&domain->table, at.v, rights);
}

void iommu_flush_domain(struct iommu_domain *domain)
{
    struct vtd_entry descriptor = vtd_invalidate_domain(domain->id, iommu_unit.capability);

    domain->flushes++;
    unit_invalidate(&descriptor, 1);
}

/* The largest naturally aligned run of pages that starts at `page`, as the unit takes them (VT-d 6.5.2, IOTLB
 * invalidate: address mask). */
static u32 aligned_order(u64 page, u64 pages)
{
    u32 order = 0, max = CAP_MASK_MAX(iommu_unit.capability);

    while (order < max && !(page & ((2ull << order) - 1)) && 2ull << order <= pages)
        order++;
    return order;
}

void iommu_flush_pages(struct iommu_domain *domain, iova_t at, u64 pages)
{
    struct vtd_entry list[FLUSH_RANGES];
    u32 count = 0;

    if (!(iommu_unit.capability & CAP_PAGE_SELECTIVE)) {
        iommu_flush_domain(domain);
        return;
    }
    for (u64 page = at.v / PAGE_SIZE; pages > 0;) {
        if (count == FLUSH_RANGES) {
            iommu_flush_domain(domain);
            return;
        }
        u32 order = aligned_order(page, pages);
        list[count++] = vtd_invalidate_pages(domain->id, IOVA(page * PAGE_SIZE), order, iommu_unit.capability);
        page += 1ull << order;
        pages -= 1ull << order;
    }
    domain->flushes++;
    unit_invalidate(list, count);
}

/* The unit may look at any time, and must not see one half of the entry with the old other half: absent in between. */
static void set_context(u16 bdf, const struct iommu_domain *domain)
{
    struct vtd_entry *entry = context_entry(bdf);
    struct vtd_entry wanted = vtd_context_entry(domain->table.root, iommu_unit.levels, domain->id);
    u16 old = vtd_context_domain(entry);

    __atomic_store_n(&entry->low, 0, __ATOMIC_RELEASE);
    unit_publish(entry, sizeof(*entry));
    __atomic_store_n(&entry->high, wanted.high, __ATOMIC_RELEASE);
    __atomic_store_n(&entry->low, wanted.low, __ATOMIC_RELEASE);
    unit_publish(entry, sizeof(*entry));

    /* Caches are tagged with the domain that the entry named before. Contexts first, or the IOTLB could be filled from
     * an old one. */
    struct vtd_entry context = vtd_invalidate_context(old, bdf);
    struct vtd_entry iotlb = vtd_invalidate_domain(old, iommu_unit.capability);
    unit_invalidate(&context, 1);
    unit_invalidate(&iotlb, 1);
}

status_t iommu_attach(u16 bdf, struct iommu_domain *domain)
{
    status_t status = iommu_unit.present ? add_bus((u8)(bdf >> 8)) : ERR_STATE;

    if (status == OK)
        set_context(bdf, domain);
    return status;
}

void iommu_block(u16 bdf)
{
    if (iommu_unit.present && context_entry(bdf))
        set_context(bdf, blocking);
}

bool iommu_is_blocked(u16 bdf)
{
    if (!iommu_unit.present)
        return false;
    const struct vtd_entry *entry = context_entry(bdf);
    return !entry || vtd_context_domain(entry) == blocking->id;
}
