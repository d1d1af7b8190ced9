/*
 * Grants: which pages of the guest a driver VM and its device reach now, at DRIVER_WINDOW_BASE + guest address in both
 * the nested table and the IOMMU domain.
 *
 * What was taken back, or given more rights, may live on in TLBs as it was. Such pages are collected in `stale`, and
 * grants_settle() ends that: vcpu_shootdown() and one IOTLB flush for all of them. It comes before a request is shown
 * to the driver and before a completion is shown to the guest. A page that is given anew needs no flush: neither TLB
 * keeps not-present entries (APM 2 15.25, VT-d 6.2 with CM = 0; the IOMMU's driver handles CM = 1).
 */
#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

void grants_create(struct relay *relay)
{
    struct grants *grants = &relay->grants;
    const struct manifest_vm *config = relay->driver->config;
    grants->strict = config->grants == MANIFEST_GRANTS_STRICT;
    grants->page_count = main_guest->ram_size / PAGE_SIZE;
    grants->capacity = (u32)min_u64(config->grant_pages, grants->page_count);
    grants->stale_first = ~0ull;
    u64 bytes = PAGE_UP(grants->page_count * sizeof(struct grant) + grants->capacity * sizeof(u32));
    grants->page = boot_frames(bytes / PAGE_SIZE, "grants");
    grants->list = (u32 *)(grants->page + grants->page_count);
}

static void mark_stale(struct grants *grants, u64 first, u64 last)
{
    grants->stale_first = min_u64(grants->stale_first, first);
    grants->stale_last = max_u64(grants->stale_last, last);
}

static void flush_stale(struct relay *relay)
{
    struct grants *grants = &relay->grants;
    u64 first = grants->stale_first, last = grants->stale_last;
    if (first > last)
        return;
    grants->stale_first = ~0ull;
    grants->stale_last = 0;
    vcpu_shootdown(&relay->driver->vm->vcpu);
    if (relay->driver->domain != NULL)
        iommu_flush_pages(relay->driver->domain, IOVA(DRIVER_WINDOW_BASE + first * PAGE_SIZE), last - first + 1);
}

/* Out of both tables; pages that are not in them are skipped. */
static void pages_unmap(struct relay *relay, u64 first, u64 count)
{
    u64 at = DRIVER_WINDOW_BASE + first * PAGE_SIZE, size = count * PAGE_SIZE;
    status_t status = page_table_unmap(&relay->driver->vm->npt, at, size);
    if (status == OK && relay->driver->domain != NULL)
        status = iommu_unmap(relay->driver->domain, IOVA(at), size);
    ASSERT_HV(status == OK);
    mark_stale(&relay->grants, first, first + count - 1);
}

/*
 * Take back up to `want` pages without users. The clock spares a page once when it was used since the last round
 * (never in strict mode): two rounds suffice in any case.
 */
static u32 sweep(struct relay *relay, u32 want)
{
    struct grants *grants = &relay->grants;
    u32 taken = 0;
    for (u64 steps = 2ull * grants->count; steps != 0 && grants->unused != 0 && taken < want; steps--) {
        if (grants->hand >= grants->count)
            grants->hand = 0;
        u64 page = grants->list[grants->hand];
        struct grant *grant = &grants->page[page];
        if (grant->users != 0) {
            grants->hand++;
        } else if (grant->referenced) {
            grant->referenced = 0;
            grants->hand++;
        } else {
            grants->list[grants->hand] = grants->list[--grants->count];
            grants->unused--;
            *grant = (struct grant){0};
            pages_unmap(relay, page, 1);
            taken++;
        }
    }
    return taken;
}

static status_t page_map(struct relay *relay, u64 page, u8 rights)
{
    struct grants *grants = &relay->grants;
    struct driver *driver = relay->driver;
    u64 at = DRIVER_WINDOW_BASE + page * PAGE_SIZE;
    hpa_t frame = HPA(main_guest->ram.v + page * PAGE_SIZE);
    if (grants->count == grants->capacity) { /* in batches, so that it is seldom */
        u32 evicted = sweep(relay, grants->capacity / 16 + 1);
        relay->stats.grants_evicted += evicted;
        if (evicted == 0)
            return ERR_NO_SPACE;
    }
    status_t status = page_table_map(&driver->vm->npt, at, frame, PAGE_SIZE, rights);
    if (status == OK && driver->domain != NULL)
        status = iommu_map(driver->domain, IOVA(at), frame, PAGE_SIZE, rights);
    if (status != OK) {
        pages_unmap(relay, page, 1); /* the vCPU may run on another CPU and have walked it already */
        return status;
    }
    grants->page[page].rights = rights;
    grants->list[grants->count++] = (u32)page;
    grants->unused++;
    relay->stats.grants_new++;
    return OK;
}

/* More rights for a granted page. They shrink only by revocation: another request may still rely on them. */
static void page_grow(struct relay *relay, u64 page, u8 rights)
{
    struct driver *driver = relay->driver;
    struct grant *grant = &relay->grants.page[page];
    u64 at = DRIVER_WINDOW_BASE + page * PAGE_SIZE;
    grant->rights |= rights;
    status_t status = page_table_protect(&driver->vm->npt, at, grant->rights);
    if (status == OK && driver->domain != NULL)
        status = iommu_protect(driver->domain, IOVA(at), grant->rights);
    ASSERT_HV(status == OK);
    mark_stale(&relay->grants, page, page);
    relay->stats.grants_new++;
}

static void segment_release(struct grants *grants, const struct chain_segment *segment, u64 end_page)
{
    for (u64 page = segment->gpa / PAGE_SIZE; page < end_page; page++)
        if (--grants->page[page].users == 0)
            grants->unused++;
}

static inline u64 segment_end_page(const struct chain_segment *segment)
{
    return (segment->gpa + segment->length - 1) / PAGE_SIZE + 1;
}

/* All pages of one segment, or none of them counted. */
static status_t segment_take(struct relay *relay, const struct chain_segment *segment, u8 rights)
{
    struct grants *grants = &relay->grants;
    u64 end = segment_end_page(segment);
    for (u64 page = segment->gpa / PAGE_SIZE; page < end; page++) {
        struct grant *grant = &grants->page[page];
        status_t status = OK;
        if ((grant->rights & rights) == rights)
            relay->stats.grants_hit++;
        else if (grant->rights != 0)
            page_grow(relay, page, rights);
        else
            status = page_map(relay, page, rights);
        if (status != OK) {
            segment_release(grants, segment, page);
            return status;
        }
        if (grant->users++ == 0)
            grants->unused--;
        grant->referenced = !grants->strict;
    }
    return OK;
}

status_t grants_take(struct relay *relay, const struct chain *chain)
{
    u64 pages = 0, previous = ~0ull;
    for (u32 i = 0; i < chain->count; i++) { /* neighbours in one page count once; more precise it need not be */
        u64 first = chain->segment[i].gpa / PAGE_SIZE, end = segment_end_page(&chain->segment[i]);
        pages += end - first - (first == previous);
        previous = end - 1;
    }
    if (pages > relay->grants.capacity)
        return ERR_RANGE;
    /* Backwards: writable segments are last, and a page that has both kinds is then mapped right at once. */
    for (u32 i = chain->count; i-- > 0;) {
        u8 rights = i < chain->readable ? PAGE_READ : PAGE_READ | PAGE_WRITE;
        status_t status = segment_take(relay, &chain->segment[i], rights);
        if (status != OK) {
            for (u32 k = i + 1; k < chain->count; k++)
                segment_release(&relay->grants, &chain->segment[k], segment_end_page(&chain->segment[k]));
            return status;
        }
    }
    return OK;
}

void grants_release(struct relay *relay, const struct chain *chain)
{
    for (u32 i = 0; i < chain->count; i++)
        segment_release(&relay->grants, &chain->segment[i], segment_end_page(&chain->segment[i]));
}

void grants_settle(struct relay *relay)
{
    if (relay->grants.strict && relay->grants.unused != 0)
        relay->stats.grants_revoked += sweep(relay, relay->grants.unused);
    flush_stale(relay);
}

void grants_revoke_all(struct relay *relay)
{
    struct grants *grants = &relay->grants;
    if (grants->count != 0)
        pages_unmap(relay, 0, grants->page_count); /* one pass over the tables, not a walk for each page */
    for (u32 i = 0; i < grants->count; i++)
        grants->page[grants->list[i]] = (struct grant){0};
    relay->stats.grants_revoked += grants->count;
    grants->count = grants->unused = grants->hand = 0;
    flush_stale(relay);
    for (u32 q = 0; q < RING_MAX_QUEUES; q++)
        for (u32 tag = 0; tag < RING_TAGS; tag++)
            relay->queue[q].log.slot[tag].granted = false;
}
