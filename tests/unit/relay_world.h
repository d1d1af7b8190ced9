/*
 * The world around a relay, for its unit tests and its fuzz target: a guest's RAM, a driver VM, page tables and an
 * IOMMU that remember stale translations, recovery and interrupts that count. Included once a program.
 *
 * What a device can reach is what was mapped at any time since the last flush: a missing flush shows as a page that is
 * still reachable, which no emulator would tell.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "hv/control/control.h"
#include "hv/platform/platform.h"
#include "hv/relay/internal.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"

#define WORLD_PAGES 128u
#define WORLD_RAM ((u64)WORLD_PAGES * PAGE_SIZE)
#define WORLD_RAM_HPA 0x40000000ull

/* Where the guest keeps its queues: queue q at q * QUEUE_STRIDE, then indirect tables, then buffers. */
#define QUEUE_STRIDE 0x3000ull
#define DESC_AT 0x0000ull
#define AVAIL_AT 0x1000ull
#define USED_AT 0x2000ull
#define BUFFERS_AT 0x10000ull

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

struct world_page {
    u32 rights; /* in the table now */
    u32 stale;  /* what some TLB may still allow: a superset */
    u32 least;  /* what a TLB that still holds an older entry allows: a subset */
};

static struct world {
    struct vm guest, driver_vm;
    struct manifest_vm config;
    struct driver driver;
    struct iommu_domain domain;
    struct driver_offer offer;
    struct relay *relay;
    u8 *ram;
    struct world_page npt[WORLD_PAGES], io[WORLD_PAGES];
    u64 frames_used;
    u32 table_budget; /* maps that still succeed: for want of table memory */
    u32 reports, first_completions, flushes;
    enum fault_kind report_kind;
    u32 messages[MSIX_ENTRIES]; /* by data: the tests program entry v with data v */
    bool signalled;
    u32 port_resets; /* of the guest's control port */
} world;

struct vm *main_guest;
static const u64 world_arena = MIB(4);

/* ---- fakes ---- */

void *boot_frames(u64 count, const char *what)
{
    (void)what;
    CHECK(world.frames_used + count * PAGE_SIZE <= world_arena);
    void *frames = hpa_to_ptr(HPA(MIB(16) + world.frames_used));
    world.frames_used += count * PAGE_SIZE;
    return memset(frames, 0, count * PAGE_SIZE);
}

void *vm_ram(const struct vm *vm, gpa_t gpa, u64 len)
{
    CHECK(vm == &world.guest);
    return gpa.v <= WORLD_RAM && len <= WORLD_RAM - gpa.v ? world.ram + gpa.v : NULL;
}

status_t vm_write(const struct vm *vm, gpa_t gpa, const void *data, u64 len)
{
    void *to = vm_ram(vm, gpa, len);
    if (to == NULL)
        return ERR_RANGE;
    memcpy(to, data, len);
    return OK;
}

static status_t world_map(struct world_page *pages, u64 at, hpa_t hpa, u64 size, u32 rights)
{
    u64 page = (at - DRIVER_WINDOW_BASE) / PAGE_SIZE;
    CHECK(at >= DRIVER_WINDOW_BASE && at % PAGE_SIZE == 0 && size == PAGE_SIZE && page < WORLD_PAGES);
    CHECK(hpa.v == WORLD_RAM_HPA + page * PAGE_SIZE && pages[page].rights == 0);
    CHECK((rights & PAGE_READ) != 0 && (rights & PAGE_EXECUTE) == 0);
    if (world.table_budget == 0)
        return ERR_NO_MEMORY;
    world.table_budget--;
    pages[page].rights = pages[page].least = rights;
    pages[page].stale |= pages[page].rights;
    return OK;
}

/* A range, of which parts may be absent. */
static status_t world_unmap(struct world_page *pages, u64 at, u64 size)
{
    u64 first = (at - DRIVER_WINDOW_BASE) / PAGE_SIZE, count = size / PAGE_SIZE;
    CHECK((at | size) % PAGE_SIZE == 0 && count != 0 && first < WORLD_PAGES && count <= WORLD_PAGES - first);
    for (u64 page = first; page < first + count; page++)
        pages[page].rights = 0;
    return OK;
}

static status_t world_protect(struct world_page *pages, u64 at, u32 rights)
{
    u64 page = (at - DRIVER_WINDOW_BASE) / PAGE_SIZE;
    CHECK(page < WORLD_PAGES && pages[page].rights != 0 && (rights & PAGE_EXECUTE) == 0);
    pages[page].rights = rights;
    pages[page].stale |= pages[page].rights;
    return OK;
}

static void world_flush(struct world_page *pages, u64 first, u64 count)
{
    CHECK(first < WORLD_PAGES && count <= WORLD_PAGES - first);
    for (u64 page = first; page < first + count; page++)
        pages[page].stale = pages[page].least = pages[page].rights;
    world.flushes++;
}

status_t page_table_map(struct page_table *pt, u64 at, hpa_t hpa, u64 size, u32 rights)
{
    CHECK(pt == &world.driver_vm.npt);
    if (at >= DRIVER_RINGS_ADDRESS && at < DRIVER_RINGS_ADDRESS + RING_MAX_QUEUES * DRIVER_RING_STRIDE) {
        bool requests = (at & DRIVER_RING_COMPLETION_OFFSET) == 0;
        CHECK(rights == (requests ? PAGE_READ : PAGE_READ | PAGE_WRITE));
        return OK;
    }
    return world_map(world.npt, at, hpa, size, rights);
}

status_t page_table_unmap(struct page_table *pt, u64 at, u64 size)
{
    CHECK(pt == &world.driver_vm.npt);
    return world_unmap(world.npt, at, size);
}

status_t page_table_protect(struct page_table *pt, u64 at, u32 rights)
{
    CHECK(pt == &world.driver_vm.npt);
    return world_protect(world.npt, at, rights);
}

status_t iommu_map(struct iommu_domain *domain, iova_t at, hpa_t hpa, u64 size, u32 rights)
{
    CHECK(domain == &world.domain);
    return world_map(world.io, at.v, hpa, size, rights);
}

status_t iommu_unmap(struct iommu_domain *domain, iova_t at, u64 size)
{
    CHECK(domain == &world.domain);
    return world_unmap(world.io, at.v, size);
}

status_t iommu_protect(struct iommu_domain *domain, iova_t at, u32 rights)
{
    CHECK(domain == &world.domain);
    return world_protect(world.io, at.v, rights);
}

void iommu_flush_pages(struct iommu_domain *domain, iova_t at, u64 pages)
{
    CHECK(domain == &world.domain);
    world_flush(world.io, (at.v - DRIVER_WINDOW_BASE) / PAGE_SIZE, pages);
}

void vcpu_shootdown(struct vcpu *vcpu)
{
    CHECK(vcpu == &world.driver_vm.vcpu);
    vcpu->flush_tlb = true;
    world_flush(world.npt, 0, WORLD_PAGES);
}

void driver_signal(struct driver *driver, u32 events)
{
    CHECK(driver == &world.driver && events != 0);
    world.signalled = true;
}

void platform_message(struct vm *vm, u64 address, u32 data)
{
    CHECK(vm == &world.guest);
    if (address >> 20 != 0xfee)
        return; /* no interrupt: lost */
    /* The guest hears of a completion now: in strict mode its pages are out of reach, stale translations included. */
    for (u64 page = 0; world.relay->grants.strict && page < WORLD_PAGES; page++)
        CHECK(world.relay->grants.page[page].users != 0 || (world.npt[page].stale | world.io[page].stale) == 0);
    if (data < MSIX_ENTRIES)
        world.messages[data]++;
}

void event_add(enum event_kind kind, u32 vm, const char *fmt, ...)
{
    CHECK(kind == EVENT_BROKEN_DEVICE && vm == world.guest.id && fmt != NULL);
}

void control_reset_guest(void)
{
    world.port_resets++;
}

void recovery_report(struct driver *driver, enum fault_kind kind, u64 detail, u64 address, const char *fmt, ...)
{
    CHECK(driver == &world.driver && fmt != NULL);
    (void)detail;
    (void)address;
    world.reports++;
    world.report_kind = kind;
}

void recovery_first_completion(struct driver *driver)
{
    CHECK(driver == &world.driver);
    world.first_completions++;
}

/* ---- set-up ---- */

static inline void world_destroy(void)
{
    free(world.ram);
    relays[1] = NULL;
}

/* A relay that no driver has offered on yet. */
static inline void world_create(enum manifest_grants grants, u32 grant_pages, bool with_iommu)
{
    static bool has_arena; /* one for all worlds: the fuzz target makes thousands a second */
    if (!has_arena)
        fake_memory_create(MIB(16), world_arena);
    has_arena = true;
    memset(&world, 0, sizeof(world));
    world.ram = calloc(1, WORLD_RAM); /* exactly: ASan watches its ends */
    world.table_budget = ~0u;
    world.guest = (struct vm){.id = 0, .name = "main", .ram = HPA(WORLD_RAM_HPA), .ram_size = WORLD_RAM};
    world.driver_vm = (struct vm){.id = 1, .name = "blk0", .driver = &world.driver};
    world.config.grants = grants;
    world.config.grant_pages = grant_pages;
    world.driver.vm = &world.driver_vm;
    world.driver.config = &world.config;
    world.driver.domain = with_iommu ? &world.domain : NULL;
    main_guest = &world.guest;
    world.driver.events_page = ptr_to_hpa(boot_frames(1, "events"));
    CHECK(relay_create(&world.driver, &world.relay) == OK);
    world.driver.relay = world.relay;
    world.offer = (struct driver_offer){.virtio_type = 2,
                                        .queues = 1,
                                        .features = 1u << 9,
                                        .queue_size = RING_TAGS,
                                        .config_length = 16,
                                        .config = {1, 2, 3, 4, 5, 6, 7, 8},
                                        .error_length = 1,
                                        .error = {1}};
}

/* ---- the guest's registers ---- */

#define REGISTER(name) ((u32)offsetof(struct virtio_pci_common_cfg, name))
#define NOTIFY_REGISTER 0x44u
#define ISR_REGISTER 0x40u
#define GUEST_FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

static inline u32 guest_config_read(u32 offset, u32 width)
{
    u32 value;
    relay_pci_config(world.relay, offset, width, false, &value);
    return value;
}

static inline void guest_config_write(u32 offset, u32 width, u32 value)
{
    relay_pci_config(world.relay, offset, width, true, &value);
}

/* Offsets into BAR 0, wherever it lies now. What no BAR claims reads all ones. */
static inline u32 guest_in(u32 offset, u32 width)
{
    u32 value = ~0u;
    (void)relay_port(world.relay, (u16)((guest_config_read(0x10, 4) & ~0xffu) + offset), width, false, &value);
    return value;
}

static inline void guest_out(u32 offset, u32 width, u32 value)
{
    (void)relay_port(world.relay, (u16)((guest_config_read(0x10, 4) & ~0xffu) + offset), width, true, &value);
}

/* Offsets into BAR 1 */
static inline u64 guest_msix_read(u32 offset, u32 width)
{
    u64 value = ~0ull;
    (void)relay_memory(world.relay, GPA(guest_config_read(0x14, 4) + offset), width, false, &value);
    return value;
}

static inline void guest_msix_write(u32 offset, u32 width, u64 value)
{
    (void)relay_memory(world.relay, GPA(guest_config_read(0x14, 4) + offset), width, true, &value);
}

static inline u8 guest_status(void)
{
    return (u8)guest_in(REGISTER(device_status), 1);
}

static inline void guest_set_status(u8 status)
{
    guest_out(REGISTER(device_status), 1, status);
}

static inline void guest_out64(u32 offset, u64 value)
{
    guest_out(offset, 4, (u32)value);
    guest_out(offset + 4, 4, (u32)(value >> 32));
}

static inline void guest_negotiate(u64 features)
{
    guest_set_status(VIRTIO_STATUS_ACKNOWLEDGE);
    guest_set_status(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (u32 half = 0; half < 2; half++) {
        guest_out(REGISTER(driver_feature_select), 4, half);
        guest_out(REGISTER(driver_feature), 4, (u32)(features >> half * 32));
    }
    guest_set_status(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
}

static inline void guest_enable_queue(u16 queue, u16 size)
{
    u64 base = queue * QUEUE_STRIDE;
    memset(world.ram + base, 0, QUEUE_STRIDE);
    guest_out(REGISTER(queue_select), 2, queue);
    guest_out(REGISTER(queue_size), 2, size);
    guest_out(REGISTER(queue_msix_vector), 2, queue);
    guest_out64(REGISTER(queue_desc), base + DESC_AT);
    guest_out64(REGISTER(queue_driver), base + AVAIL_AT);
    guest_out64(REGISTER(queue_device), base + USED_AT);
    guest_out(REGISTER(queue_enable), 2, 1);
}

static inline void guest_driver_ok(void)
{
    guest_set_status(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                     VIRTIO_STATUS_DRIVER_OK);
}

static inline void guest_enable_msix(void)
{
    guest_config_write(0x10, 4, PLATFORM_BAR_PORTS);
    guest_config_write(0x04, 2, 3); /* decode both BARs */
    for (u32 vector = 0; vector < MSIX_ENTRIES; vector++) {
        guest_msix_write(vector * 16, 8, 0xfee00000);
        guest_msix_write(vector * 16 + 8, 4, vector);
        guest_msix_write(vector * 16 + 12, 4, 0);
    }
    guest_config_write(0x86, 2, 0x8000);
    guest_out(REGISTER(config_msix_vector), 2, MSIX_ENTRIES - 1);
}

/* All of the above; then the device is live with `offer.queues` queues. */
static inline void guest_start(u64 features, u16 size)
{
    guest_negotiate(features);
    guest_enable_msix();
    for (u16 queue = 0; queue < world.offer.queues; queue++)
        guest_enable_queue(queue, size);
    guest_driver_ok();
}

static inline void world_start(enum manifest_grants grants, u32 grant_pages, u64 features, u16 size)
{
    world_create(grants, grant_pages, true);
    CHECK(relay_offer(world.relay, &world.offer) == OK);
    guest_start(features, size);
}

/* ---- the guest's rings, raw ---- */

static inline struct virtq_desc *guest_desc(u16 queue)
{
    return (struct virtq_desc *)(world.ram + queue * QUEUE_STRIDE + DESC_AT);
}

static inline struct virtq_avail *guest_avail(u16 queue)
{
    return (struct virtq_avail *)(world.ram + queue * QUEUE_STRIDE + AVAIL_AT);
}

static inline struct virtq_used *guest_used(u16 queue)
{
    return (struct virtq_used *)(world.ram + queue * QUEUE_STRIDE + USED_AT);
}

static inline void guest_make_available(u16 queue, u16 size, u16 head)
{
    struct virtq_avail *avail = guest_avail(queue);
    avail->ring[avail->idx % size] = head;
    avail->idx++;
}

static inline void guest_kick(u16 queue)
{
    guest_out(NOTIFY_REGISTER, 2, queue);
}

/* A request of two pages at descriptors `at`, at + 1: one to read, one to write. */
static inline void guest_simple_request(u16 queue, u16 size, u16 at, u64 page)
{
    struct virtq_desc *desc = guest_desc(queue);
    desc[at] = (struct virtq_desc){.addr = page * PAGE_SIZE, .len = 16, .flags = VIRTQ_DESC_F_NEXT, .next = at + 1};
    desc[at + 1] = (struct virtq_desc){.addr = (page + 1) * PAGE_SIZE, .len = 512, .flags = VIRTQ_DESC_F_WRITE};
    guest_make_available(queue, size, at);
}

/* ---- the driver VM's side, raw ---- */

struct driver_request {
    u16 tag, count, readable;
    u64 id;
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
};

static inline bool driver_take(u32 queue, struct driver_request *out)
{
    struct ring_request_page *page = relay_request_page(world.relay, queue);
    struct ring_completion_page *own = relay_completion_page(world.relay, queue);
    const union ring_cell *cells = (const union ring_cell *)(page + 1);
    u32 at = own->consumed;
    if (at == page->produced)
        return false;
    const struct ring_header_cell *header = &cells[at++ % RING_CELLS].header;
    out->tag = header->tag;
    out->count = header->segments;
    out->readable = (u16)header->readable;
    out->id = header->id;
    CHECK(out->count >= 1 && out->count <= RING_MAX_SEGMENTS && out->readable <= out->count);
    for (u32 i = 0; i < out->count; i++)
        out->segment[i] = cells[at++ % RING_CELLS].segment;
    CHECK(page->produced - own->consumed <= RING_CELLS && at - own->consumed <= page->produced - own->consumed);
    own->consumed = at;
    return true;
}

static inline void driver_complete(u32 queue, u16 tag, u32 length)
{
    struct ring_completion_page *own = relay_completion_page(world.relay, queue);
    own->entry[own->produced % RING_COMPLETIONS] = (struct ring_completion){.tag = tag, .length = length};
    own->produced++;
}

/* What the device's DMA would meet. NULL: the IOMMU (or the nested table) stops it. */
static inline u8 *device_reach(u64 address, u32 length, bool write)
{
    u32 need = write ? PAGE_WRITE : PAGE_READ;
    u64 gpa = address - DRIVER_WINDOW_BASE;
    if (address < DRIVER_WINDOW_BASE || gpa >= WORLD_RAM || length > WORLD_RAM - gpa)
        return NULL;
    for (u64 page = gpa / PAGE_SIZE; page <= (gpa + length - 1) / PAGE_SIZE; page++) {
        bool blocked = world.driver.domain != NULL && (world.io[page].rights & world.io[page].least & need) == 0;
        if (blocked || (world.npt[page].rights & need) == 0)
            return NULL;
    }
    return world.ram + gpa;
}

static inline bool page_is_reachable(u64 page)
{
    return (world.npt[page].stale | world.io[page].stale) != 0;
}

static inline u32 reachable_pages(void)
{
    u32 count = 0;
    for (u64 page = 0; page < WORLD_PAGES; page++)
        count += page_is_reachable(page);
    return count;
}

/* The way of recovery up to the successor's offer. */
static inline void world_crash(void)
{
    relay_close(world.relay);
    relay_revoke_all(world.relay);
    CHECK(reachable_pages() == 0);
    relay_reset_rings(world.relay);
}

/*
 * What must hold at every instant, recomputed from the logs: users of each page, rights of requests in flight in both
 * tables, nothing reachable that is not granted; strict: nothing granted that no request in flight names.
 */
static inline void world_check(void)
{
    static u32 users[WORLD_PAGES];
    static u8 rights[WORLD_PAGES];
    struct relay *relay = world.relay;
    u32 granted = 0, unused = 0;
    memset(users, 0, sizeof(users));
    memset(rights, 0, sizeof(rights));
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        const struct inflight *log = &relay->queue[q].log;
        u32 seen = 0, cells = 0;
        for (; seen < log->count; seen++) {
            u8 tag = log->order[seen];
            CHECK(log->slot[tag].in_flight);
            const struct chain *chain = &log->slot[tag].chain;
            cells += chain->count + 1u;
            for (u32 i = 0; log->slot[tag].granted && i < chain->count; i++) {
                u64 last = (chain->segment[i].gpa + chain->segment[i].length - 1) / PAGE_SIZE;
                for (u64 page = chain->segment[i].gpa / PAGE_SIZE; page <= last; page++) {
                    users[page]++;
                    rights[page] |= i < chain->readable ? PAGE_READ : PAGE_READ | PAGE_WRITE;
                }
            }
        }
        CHECK(cells == RING_CELLS - log->free_cells);
    }
    for (u64 page = 0; page < WORLD_PAGES; page++) {
        const struct grant *grant = &relay->grants.page[page];
        granted += grant->rights != 0;
        unused += grant->rights != 0 && grant->users == 0;
        CHECK(grant->users == users[page] && (grant->rights & rights[page]) == rights[page]);
        CHECK(world.npt[page].rights == grant->rights && world.npt[page].stale == grant->rights);
        CHECK(world.driver.domain == NULL ||
              (world.io[page].rights == grant->rights && world.io[page].stale == grant->rights));
        CHECK(!relay->grants.strict || grant->rights == 0 || grant->users != 0);
        CHECK(relay_is_granted(relay, GPA(page * PAGE_SIZE)) == (grant->rights != 0));
    }
    CHECK(granted == relay->grants.count && unused == relay->grants.unused && granted <= relay->grants.capacity);
}
