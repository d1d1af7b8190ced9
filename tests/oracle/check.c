/* The real structures against the abstract state. Tables are walked here with no help of page_table.c. */
#include "hv/core/hypervisor.h"
#include "hv/iommu/unit.h"
#include "shared/pci/registers.h"
#include "tests/oracle/oracle.h"

#define ADDRESS 0x000ffffffffff000ull
#define LARGE (1ull << 7)
#define CLASS_BRIDGE 6u /* some master the bus always */

static const struct vtd_entry *root; /* read from the unit now and then: a register costs */
static struct vtd_entry blocked;     /* the context entry of whoever has no live owner */

void oracle_differ(const struct oracle *o, const char *what, u64 where, u64 expected, u64 found)
{
    panic("oracle: %s: %s 0x%lx: expected 0x%lx, found 0x%lx", o ? o->driver->vm->name : "no VM", what, where, expected,
          found);
}

/* The entry that maps `at`, or leaves it out. *size: of the page, or of the hole. */
static const u64 *find(const struct page_table *pt, u64 at, u64 *size)
{
    const u64 *entry = &pt->root.v;

    *size = PAGE_TABLE_REACH;
    do {
        *size /= 512;
        entry = (const u64 *)hpa_to_ptr(HPA(*entry & ADDRESS)) + at / *size % 512;
    } while ((*entry & 3) && *size > PAGE_SIZE && !(*entry & LARGE));
    return entry;
}

/* An entry as address | PAGE_*; 0: it maps nothing. */
static u64 decode(const struct page_table *pt, u64 entry)
{
    u64 found = entry & ADDRESS;

    for (u32 i = 0; i < PAGE_RIGHTS; i++) {
        u64 right = pt->format->right[i];
        found |= right && ((entry ^ pt->format->inverted) & right) == right ? 1u << i : 0;
    }
    return entry & 3 ? found : 0;
}

static u64 look_up(const struct page_table *pt, u64 at)
{
    u64 size;

    return decode(pt, *find(pt, at, &size));
}

static void expect(struct oracle *o, u64 at, u64 hpa, u64 size, u32 rights)
{
    ASSERT_HV(o->mappings < ARRAY_SIZE(o->mapping));
    o->mapping[o->mappings++] = (struct oracle_mapping){at, hpa, size, rights};
}

static void expect_bars(struct oracle *o, const struct pci_device *dev)
{
    for (u32 i = 0; i < ARRAY_SIZE(dev->bar); i++) {
        u64 first = PAGE_DOWN(dev->bar[i].address), end = PAGE_UP(dev->bar[i].address + dev->bar[i].size), page, piece;
        for (page = piece = first; dev->bar[i].memory && dev->bar[i].size && page <= end; page += PAGE_SIZE) {
            if (page != end && !pci_is_msix_page(dev, HPA(page)))
                continue;
            if (page != piece)
                expect(o, DRIVER_BARS_ADDRESS + i * DRIVER_BAR_STRIDE + piece - first, piece, page - piece,
                       PAGE_READ | PAGE_WRITE | PAGE_UNCACHED);
            piece = page + PAGE_SIZE;
        }
    }
}

/* Root and context tables as the unit itself finds them (VT-d 9.1, 9.3). */
static void find_root(void)
{
    if (iommu_present())
        root = hpa_to_ptr(HPA(unit_read64(VTD_ROOT_TABLE) & VTD_TABLE_MASK));
}

static const struct vtd_entry *context(u16 bdf)
{
    return (const struct vtd_entry *)hpa_to_ptr(HPA(root[bdf >> 8].low & VTD_TABLE_MASK)) + (bdf & 0xff);
}

static void create(struct oracle *o, struct driver *driver)
{
    const struct vm *vm = driver->vm;
    u64 pages = main_guest->ram_size / PAGE_SIZE;

    o->driver = driver;
    o->first = ~0ull;
    o->page = boot_frames(PAGE_UP(pages * (sizeof(*o->page) + sizeof(*o->touched))) / PAGE_SIZE, "the oracle");
    o->touched = (u32 *)(o->page + pages);
    expect(o, 0, vm->ram.v, vm->ram_size, PAGE_READ | PAGE_WRITE | PAGE_EXECUTE);
    expect(o, DRIVER_INFO_ADDRESS, driver->info_page.v, PAGE_SIZE, PAGE_READ);
    expect(o, DRIVER_EVENTS_ADDRESS, driver->events_page.v, PAGE_SIZE, PAGE_READ);
    expect(o, DRIVER_STASH_ADDRESS, driver->stash_page.v, PAGE_SIZE, PAGE_READ | PAGE_WRITE);
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        const struct relay_queue *queue = &driver->relay->queue[q];
        u64 at = DRIVER_RINGS_ADDRESS + q * DRIVER_RING_STRIDE;
        expect(o, at, ptr_to_hpa(queue->requests).v, RING_REQUEST_BYTES, PAGE_READ);
        expect(o, at + DRIVER_RING_COMPLETION_OFFSET, ptr_to_hpa(queue->completions).v, RING_COMPLETION_BYTES,
               PAGE_READ | PAGE_WRITE);
    }
    expect_bars(o, driver->pci);
}

void oracle_start(void)
{
    find_root();
    if (iommu_present())
        blocked = *context(pci_devices[0].bdf); /* nobody lives yet */
    for (u32 i = 0; i < driver_count; i++)
        create(&oracles[drivers[i]->vm->id], drivers[i]);
    oracle_check_all();
}

void oracle_check_page(struct oracle *o, u64 page)
{
    struct oracle_page *p = &o->page[page];
    u64 at = DRIVER_WINDOW_BASE + page * PAGE_SIZE, hpa = main_guest->ram.v + page * PAGE_SIZE, found, io;
    u8 must = p->users == 0 ? 0 : p->writers == 0 ? PAGE_READ : PAGE_READ | PAGE_WRITE;

    if (p->users == 0 && o->driver->config->grants == MANIFEST_GRANTS_STRICT)
        p->may = 0;
    found = look_up(&o->driver->vm->npt, at);
    u8 rights = found & PAGE_MASK;
    if (must & ~rights || rights & ~p->may || found != (rights ? hpa | rights : 0))
        oracle_differ(o, "nested table, guest page", page, must & ~rights ? hpa | must : hpa | p->may, found);
    io = o->driver->domain ? look_up(&o->driver->domain->table, at) : found;
    if (io != found)
        oracle_differ(o, "IOMMU domain, guest page", page, found, io);
    if (p->found != rights && p->found &&
        !(o->shot && (!o->driver->domain || page - o->flushed < o->flushed_to - o->flushed)))
        oracle_differ(o, "not flushed from TLB and IOTLB, guest page", page, rights, p->found);
    p->found = rights;
    p->may = p->users ? p->may : rights;
}

/* All that a table maps: nothing unexpected, and nothing missing. */
static void check_table(struct oracle *o, const struct page_table *pt, u32 mappings, u32 mask)
{
    u64 size, expected = 0, mapped = 0, granted = 0, used = 0;

    for (u64 at = 0; at < PAGE_TABLE_REACH; at = (at | (size - 1)) + 1) {
        const u64 *entry = find(pt, at, &size);
        while (!*entry && size == PAGE_SIZE && (at + size) % MIB(2) != 0) { /* within one table no new walk */
            entry++;
            at += size;
        }
        u64 found = decode(pt, *entry), page = (at - DRIVER_WINDOW_BASE) / PAGE_SIZE, here = 0;
        if (!found)
            continue;
        if (at >= DRIVER_WINDOW_BASE && page < main_guest->ram_size / PAGE_SIZE && size == PAGE_SIZE) {
            if (pt == &o->driver->vm->npt || !o->page[page].found) /* the nested table comes first, with both */
                oracle_check_page(o, page);
            granted++;
            used += o->page[page].users != 0;
            continue;
        }
        for (const struct oracle_mapping *m = o->mapping; m < o->mapping + mappings; m++)
            if (at >= m->at && at - m->at < m->size && size <= m->size - (at - m->at))
                here = (m->hpa + at - m->at) | (m->rights & mask);
        if (found != here)
            oracle_differ(o, "mapped at", at, here, found);
        mapped += size;
    }
    for (u32 i = 0; i < mappings; i++)
        expected += o->mapping[i].size;
    if (mapped != expected || used != o->used || granted > o->driver->config->grant_pages)
        oracle_differ(o, "bytes mapped, pages in use", mapped, expected << 32 | o->used, granted << 32 | used);
}

static void check_context(const struct oracle *o, u16 bdf)
{
    const struct iommu_domain *domain = o && o->live ? o->driver->domain : NULL;
    struct vtd_entry expected = domain ? vtd_context_entry(domain->table.root, domain->id) : blocked;

    if (!iommu_present())
        return;
    const struct vtd_entry *found = context(bdf);
    if (found->low != expected.low || found->high != expected.high)
        oracle_differ(o, "IOMMU context of device", bdf, expected.low, found->low);
}

void oracle_check(struct oracle *o)
{
    check_context(o, o->driver->pci->bdf);
    if (o->touched_count != 0)
        oracle_differ(o, "not settled, guest page", o->touched[0], 0, o->touched_count);
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        const struct relay_queue *queue = &o->driver->relay->queue[q];
        const struct oracle_queue *own = &o->queue[q];
        if (queue->log.count != own->in_flight)
            oracle_differ(o, "log, queue", q, own->in_flight, queue->log.count);
        if (!queue->vq.enabled)
            continue;
        if ((u16)(queue->vq.last_avail - queue->vq.used_idx) != own->in_flight ||
            queue->vq.published != queue->vq.used_idx)
            oracle_differ(o, "answers owed, queue", q, own->in_flight,
                          (u16)(queue->vq.last_avail - queue->vq.published));
    }
}

/* In submission order, each tag once, cells that add up. */
static void check_log(const struct oracle *o, u32 q)
{
    const struct inflight *log = &o->driver->relay->queue[q].log;
    u64 last = 0, cells = log->free_cells;

    for (u32 i = 0; i < RING_TAGS; i++) {
        const struct oracle_request *own = &o->queue[q].request[log->order[i]];
        const struct log_slot *slot = &log->slot[log->order[i]];
        if (own->in_flight != (i < log->count) || slot->in_flight != own->in_flight ||
            (own->in_flight && (slot->id != own->id || own->id <= last)))
            oracle_differ(o, "log, tag", log->order[i], own->id, slot->id);
        last = own->in_flight ? own->id : last;
        cells += own->in_flight ? slot->chain.count + 1u : 0;
    }
    if (cells != RING_CELLS)
        oracle_differ(o, "cells of queue", q, RING_CELLS, cells);
}

void oracle_check_all(void)
{
    find_root();
    for (u32 i = 0; i < pci_device_count; i++) {
        const struct driver *driver = driver_by_bdf(pci_devices[i].bdf);
        const struct oracle *o = driver ? &oracles[driver->vm->id] : NULL;
        u32 command = pci_read(&pci_devices[i], PCI_COMMAND, 2); /* all ones: it is gone */
        if (pci_devices[i].class_code >> 16 != CLASS_BRIDGE && !(o && o->live) && (command & PCI_COMMAND_MASTER) &&
            command != 0xffff)
            oracle_differ(o, "bus mastering of device", pci_devices[i].bdf, 0, command);
        check_context(o, pci_devices[i].bdf);
    }
    for (u32 i = 0; i < driver_count; i++) {
        struct oracle *o = &oracles[drivers[i]->vm->id];
        oracle_check(o);
        check_table(o, &drivers[i]->vm->npt, o->mappings, ~0u);
        if (drivers[i]->domain)
            check_table(o, &drivers[i]->domain->table, 1, PAGE_READ | PAGE_WRITE);
        for (u32 q = 0; q < RING_MAX_QUEUES; q++)
            check_log(o, q);
    }
    const u64 *empty = iommu_present() ? hpa_to_ptr(HPA(blocked.low & VTD_TABLE_MASK)) : NULL;
    for (u32 i = 0; empty && i < 512; i++)
        if (empty[i])
            oracle_differ(NULL, "entry of the blocking domain", i, 0, empty[i]);
}
