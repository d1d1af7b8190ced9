/* SOURCES: tests/oracle/check.c tests/oracle/seams.c hv/relay/inflight.c hv/core/page_table.c hv/core/frames.c */
/* INCLUDE_FAKES */
/*
 * The oracle around the real grants, log and page tables, one driver VM with its device behind an IOMMU: silent as long
 * as they are right, and for each mistake the difference that names it. What the linker does in a checked image (calls
 * between files lead through the oracle) is done by hand here.
 */
#include "tests/unit/unit.h"

#include "hv/core/start.h"
#include "hv/exit/dispatch.h"
#include "hv/iommu/unit.h"
#include "hv/recovery/stages.h"
#include "shared/lib/string.h"
#include "shared/pci/registers.h"
#include "tests/oracle/oracle.h"
#include "tests/unit/fakes.h"

#define RAM_BASE MIB(16)
#define RAM_SIZE MIB(32)
#define GUEST_HPA MIB(512)
#define GUEST_PAGES 1024u
#define BDF 0x00fa
#define OTHER_BDF 0x0010
#define BAR 0xfebf1000ull
#define MSIX_PAGE (BAR + PAGE_SIZE)
#define RW (PAGE_READ | PAGE_WRITE)

struct vm *main_guest;
struct relay *relays[VM_MAX]; /* no console in the guest's slot */
struct driver *drivers[VM_MAX];
u32 driver_count;
struct pci_device pci_devices[PCI_MAX_DEVICES];
u32 pci_device_count;

static struct vm guest, vm;
static struct driver driver;
static struct relay relay;
static struct manifest_vm config;
static struct iommu_domain domain;
static struct page_table empty;
static hpa_t root_table;
static struct vtd_entry *contexts;
static u32 command, other_command;
static bool has_iommu, forget_flush, forget_shootdown, forget_domain, forget_block;

/* ---- the seams, and what lies behind them ---- */

#define BEHIND(type, name, ...)                                                                                        \
    type __wrap_##name(__VA_ARGS__);                                                                                   \
    type __real_##name(__VA_ARGS__);                                                                                   \
    type __real_##name(__VA_ARGS__)

BEHIND(status_t, grants_take, struct relay *r, const struct chain *chain)
{
    return grants_take(r, chain);
}
BEHIND(void, grants_release, struct relay *r, const struct chain *chain)
{
    grants_release(r, chain);
}
BEHIND(void, grants_settle, struct relay *r)
{
    grants_settle(r);
}
BEHIND(void, grants_revoke_all, struct relay *r)
{
    grants_revoke_all(r);
}
BEHIND(u8, inflight_add, struct inflight *log, u64 id, u64 now)
{
    return inflight_add(log, id, now);
}
BEHIND(void, inflight_remove, struct inflight *log, u8 tag)
{
    inflight_remove(log, tag);
}
BEHIND(void, virtqueue_fill, struct virtqueue *vq, u16 head, u32 length)
{
    (void)head;
    (void)length;
    vq->used_idx++;
}
BEHIND(status_t, page_table_unmap, struct page_table *pt, u64 at, u64 size)
{
    return page_table_unmap(pt, at, size);
}
BEHIND(void, vcpu_shootdown, struct vcpu *vcpu)
{
    (void)vcpu;
}
BEHIND(void, iommu_flush_pages, struct iommu_domain *d, iova_t at, u64 pages)
{
    assert_true(d == &domain && pages > 0 && at.v >= DRIVER_WINDOW_BASE);
}
BEHIND(status_t, driver_enable_dma, struct driver *d)
{
    contexts[BDF] = vtd_context_entry(d->domain->table.root, d->domain->id);
    command |= PCI_COMMAND_MASTER;
    return OK;
}
/* With a spare the RAM is another one each time. */
BEHIND(void, driver_start, struct driver *d)
{
    hpa_t dead = vm.ram;

    if (!config.spare)
        return;
    vm.ram = d->next_ram;
    d->next_ram = dead;
    vm.vcpu.flush_tlb = !forget_shootdown;
    domain.flushes += !forget_flush;
    assert_int_equal(page_table_unmap(&vm.npt, 0, vm.ram_size), OK);
    assert_int_equal(page_table_map(&vm.npt, 0, vm.ram, vm.ram_size, RW | PAGE_EXECUTE), OK);
    assert_int_equal(iommu_unmap(&domain, IOVA(0), vm.ram_size), OK);
    assert_int_equal(iommu_map(&domain, IOVA(0), vm.ram, vm.ram_size, RW), forget_domain ? ERR_EXISTS : OK);
}
BEHIND(void, recovery_quiesce, struct driver *d)
{
    (void)d;
    command &= ~PCI_COMMAND_MASTER;
    if (!forget_block)
        contexts[BDF] = vtd_context_entry(empty.root, 1);
    __wrap_grants_revoke_all(&relay);
}
BEHIND(void, recovery_reset_device, struct driver *d)
{
    (void)d;
}
BEHIND(void, recovery_restart_vm, struct driver *d)
{
    (void)d;
}
BEHIND(status_t, recovery_offer, struct driver *d, const struct driver_offer *offer)
{
    (void)d;
    (void)offer;
    return OK;
}
BEHIND(void, exit_dispatch, struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    (void)vcpu;
    (void)exit;
}
BEHIND(void, start_vms, const struct boot_info *boot, const struct manifest *manifest)
{
    (void)boot;
    (void)manifest;
}

/* Evictions are seen by this call only. */
#define page_table_unmap __wrap_page_table_unmap
#include "hv/relay/grant.c"
#undef page_table_unmap

void vcpu_shootdown(struct vcpu *vcpu)
{
    if (!forget_shootdown)
        __wrap_vcpu_shootdown(vcpu);
}
void iommu_flush_pages(struct iommu_domain *d, iova_t at, u64 pages)
{
    if (!forget_flush)
        __wrap_iommu_flush_pages(d, at, pages);
}
status_t iommu_map(struct iommu_domain *d, iova_t at, hpa_t hpa, u64 size, u32 rights)
{
    return page_table_map(&d->table, at.v, hpa, size, rights);
}
status_t iommu_unmap(struct iommu_domain *d, iova_t at, u64 size)
{
    return forget_domain ? OK : page_table_unmap(&d->table, at.v, size);
}
status_t iommu_protect(struct iommu_domain *d, iova_t at, u32 rights)
{
    return page_table_protect(&d->table, at.v, rights);
}
bool iommu_present(void)
{
    return has_iommu;
}
u64 unit_read64(u32 offset)
{
    assert_int_equal(offset, VTD_ROOT_TABLE);
    return root_table.v;
}
struct driver *driver_by_bdf(u16 bdf)
{
    return bdf == BDF ? &driver : NULL;
}
u32 pci_read(const struct pci_device *dev, u32 offset, u32 width)
{
    assert_true(offset == PCI_COMMAND && width == 2);
    return dev->bdf == BDF ? command : other_command;
}
bool pci_is_msix_page(const struct pci_device *dev, hpa_t page)
{
    return dev == driver.pci && page.v == MSIX_PAGE;
}

/* ---- the machine ---- */

static void map(u64 at, u64 hpa, u64 size, u32 rights)
{
    assert_int_equal(page_table_map(&vm.npt, at, HPA(hpa), size, rights), OK);
}

static void create_relay(void)
{
    memset(&relay, 0, sizeof(relay));
    relay.driver = &driver;
    driver.relay = &relay;
    grants_create(&relay);
    for (u32 q = 0; q < RING_MAX_QUEUES; q++) {
        u64 at = DRIVER_RINGS_ADDRESS + q * DRIVER_RING_STRIDE;
        inflight_init(&relay.queue[q].log);
        relay.queue[q].requests = boot_frames(RING_REQUEST_BYTES / PAGE_SIZE, "rings");
        relay.queue[q].completions = boot_frames(1, "rings");
        map(at, ptr_to_hpa(relay.queue[q].requests).v, RING_REQUEST_BYTES, PAGE_READ);
        map(at + DRIVER_RING_COMPLETION_OFFSET, ptr_to_hpa(relay.queue[q].completions).v, PAGE_SIZE, RW);
    }
}

static void create_iommu(void)
{
    root_table = ptr_to_hpa(boot_frames(1, "root"));
    contexts = boot_frames(1, "contexts");
    assert_int_equal(page_table_create(&empty, &page_format_vtd), OK);
    for (u32 i = 0; i < PAGE_SIZE / sizeof(*contexts); i++)
        contexts[i] = vtd_context_entry(empty.root, 1);
    *(struct vtd_entry *)hpa_to_ptr(root_table) = vtd_root_entry(ptr_to_hpa(contexts));
    domain = (struct iommu_domain){.id = 2};
    assert_int_equal(page_table_create(&domain.table, &page_format_vtd), OK);
    assert_int_equal(iommu_map(&domain, IOVA(0), vm.ram, vm.ram_size, RW), OK);
    driver.domain = &domain;
}

static hpa_t contract_page(u64 at, u32 rights)
{
    hpa_t page = ptr_to_hpa(boot_frames(1, "contract"));

    map(at, page.v, PAGE_SIZE, rights);
    return page;
}

static void create(enum manifest_grants grants, const struct page_format *format, bool iommu)
{
    fake_frames_create(RAM_BASE, RAM_SIZE);
    memset(oracles, 0, sizeof(oracles));
    forget_flush = forget_shootdown = forget_domain = forget_block = false;
    command = other_command = PCI_COMMAND_MEMORY;
    has_iommu = iommu;
    config = (struct manifest_vm){.grants = grants, .grant_pages = 64};
    guest = (struct vm){.name = "main", .ram = HPA(GUEST_HPA), .ram_size = GUEST_PAGES * PAGE_SIZE};
    vm = (struct vm){.id = 1, .name = "blk0", .driver = &driver, .ram_size = MIB(1)};
    vm.vcpu.vm = &vm;
    pci_devices[0] = (struct pci_device){.bdf = OTHER_BDF, .class_code = 0x020000};
    pci_devices[1] = (struct pci_device){
        .bdf = BDF,
        .class_code = 0x010601,
        .bar = {{.address = 0xc000, .size = 32}, {.address = BAR, .size = 4 * PAGE_SIZE, .memory = true}}};
    pci_device_count = 2;
    driver = (struct driver){.vm = &vm, .config = &config, .pci = &pci_devices[1], .state = DRIVER_STARTING};
    main_guest = &guest;
    drivers[0] = &driver;
    driver_count = 1;

    assert_int_equal(frames_alloc(vm.ram_size / PAGE_SIZE, MIB(2), &vm.ram), OK);
    assert_int_equal(page_table_create(&vm.npt, format), OK);
    map(0, vm.ram.v, vm.ram_size, RW | PAGE_EXECUTE);
    driver.info_page = contract_page(DRIVER_INFO_ADDRESS, PAGE_READ);
    driver.events_page = contract_page(DRIVER_EVENTS_ADDRESS, PAGE_READ);
    driver.stash_page = contract_page(DRIVER_STASH_ADDRESS, RW);
    map(DRIVER_BARS_ADDRESS + DRIVER_BAR_STRIDE, BAR, PAGE_SIZE, RW | PAGE_UNCACHED);
    map(DRIVER_BARS_ADDRESS + DRIVER_BAR_STRIDE + 2 * PAGE_SIZE, BAR + 2 * PAGE_SIZE, 2 * PAGE_SIZE,
        RW | PAGE_UNCACHED);
    create_relay();
    if (iommu)
        create_iommu();
    __wrap_start_vms(NULL, NULL);
    if (iommu)
        assert_int_equal(__wrap_driver_enable_dma(&driver), OK);
    relay.queue[0].vq.enabled = 1;
}

static void create_strict(void)
{
    create(MANIFEST_GRANTS_STRICT, &page_format_npt, true);
}

/* ---- requests ---- */

/* A header in this page, and `pages` for the device to write behind it. */
static struct chain *draft(u64 page, u32 pages)
{
    struct chain *chain = inflight_draft(&relay.queue[0].log);

    chain->head = (u16)page % RING_TAGS;
    chain->count = 2;
    chain->readable = 1;
    chain->segment[0] = (struct chain_segment){.gpa = page * PAGE_SIZE + 8, .length = 16};
    chain->segment[1] = (struct chain_segment){.gpa = (page + 1) * PAGE_SIZE, .length = pages * (u32)PAGE_SIZE};
    relay.queue[0].vq.last_avail++;
    return chain;
}

static u8 request(u64 page, u32 pages)
{
    static u64 id;

    assert_int_equal(__wrap_grants_take(&relay, draft(page, pages)), OK);
    u8 tag = __wrap_inflight_add(&relay.queue[0].log, ++id, 0);
    __wrap_grants_settle(&relay);
    return tag;
}

static void answer(u8 tag)
{
    struct log_slot *slot = &relay.queue[0].log.slot[tag];

    __wrap_grants_release(&relay, &slot->chain);
    __wrap_virtqueue_fill(&relay.queue[0].vq, slot->chain.head, 0);
    __wrap_inflight_remove(&relay.queue[0].log, tag);
}

static void publish(void)
{
    __wrap_grants_settle(&relay);
    relay.queue[0].vq.published = relay.queue[0].vq.used_idx;
}

static void look(void)
{
    __wrap_exit_dispatch(&vm.vcpu, NULL);
    oracle_check_all();
}

static void differs(const char *text)
{
    if (!strstr(fake_panic_text, text))
        fail_msg("expected '%s' in '%s'", text, fake_panic_text);
}

/* ---- silent ---- */

static void work(void)
{
    u8 tags[8];

    look();
    for (u32 round = 0; round < 40; round++) {
        for (u32 i = 0; i < 8; i++) {
            tags[i] = request((u64)(round * 37 + i * 5) % (GUEST_PAGES - 8), 1 + i % 4);
            look();
        }
        for (u32 i = 0; i < 8; i++)
            answer(tags[(i * 3) % 8]);
        publish();
        look();
    }
}

static void silent_in_every_mode(void **state)
{
    create(MANIFEST_GRANTS_STRICT, &page_format_npt, true);
    work();
    create(MANIFEST_GRANTS_STICKY, &page_format_ept, true);
    work();
    create(MANIFEST_GRANTS_STICKY, &page_format_npt, false);
    work();
}

static void silent_through_a_recovery(void **state)
{
    create_strict();
    u8 tag = request(7, 3);
    __wrap_recovery_quiesce(&driver);
    __wrap_recovery_reset_device(&driver);
    __wrap_recovery_restart_vm(&driver);
    look();
    assert_int_equal(__wrap_grants_take(&relay, &relay.queue[0].log.slot[tag].chain), OK);
    __wrap_grants_settle(&relay);
    relay.queue[0].log.slot[tag].granted = true;
    assert_int_equal(__wrap_recovery_offer(&driver, NULL), OK);
    answer(tag);
    publish();
    look();
}

static void create_with_a_spare(void)
{
    create_strict();
    config.spare = true;
    assert_int_equal(frames_alloc(vm.ram_size / PAGE_SIZE, MIB(2), &driver.next_ram), OK);
}

static void silent_when_ram_is_exchanged(void **state)
{
    create_with_a_spare();
    for (u32 i = 0; i < 3; i++) {
        __wrap_recovery_quiesce(&driver);
        __wrap_driver_start(&driver);
        look();
    }
}

/* A refused chain is answered without having been logged; one too large for the cache is not even looked at. */
static void silent_about_refusals(void **state)
{
    create_strict();
    struct chain *chain = draft(3, 100);
    assert_int_equal(__wrap_grants_take(&relay, chain), ERR_RANGE);
    __wrap_virtqueue_fill(&relay.queue[0].vq, chain->head, 0);
    publish();
    look();
}

/* ---- grants ---- */

static void a_device_that_keeps_a_page(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    forget_domain = true;
    answer(tag);
    assert_true(PANICS(__wrap_grants_settle(&relay)));
    differs("blk0: IOMMU domain, guest page 0x");
}

static void a_page_that_stays_mapped(void **state)
{
    create_strict();
    map(DRIVER_WINDOW_BASE + 9 * PAGE_SIZE, GUEST_HPA + 9 * PAGE_SIZE, PAGE_SIZE, PAGE_READ);
    assert_true(PANICS(look()));
    differs("blk0: nested table, guest page 0x9: expected 0x20009000, found 0x20009001");
}

static void a_request_without_its_page(void **state)
{
    create_strict();
    (void)request(7, 2);
    assert_int_equal(page_table_unmap(&vm.npt, DRIVER_WINDOW_BASE + 9 * PAGE_SIZE, PAGE_SIZE), OK);
    assert_int_equal(page_table_unmap(&domain.table, DRIVER_WINDOW_BASE + 9 * PAGE_SIZE, PAGE_SIZE), OK);
    assert_true(PANICS(look()));
    differs("blk0: bytes mapped, pages in use");
}

static void rights_that_nobody_gave(void **state)
{
    create(MANIFEST_GRANTS_STICKY, &page_format_ept, true);
    (void)request(7, 2);
    assert_int_equal(page_table_protect(&vm.npt, DRIVER_WINDOW_BASE + 7 * PAGE_SIZE, RW), OK);
    assert_true(PANICS(look()));
    differs("blk0: nested table, guest page 0x7: expected 0x20007001, found 0x20007003");
}

static void another_frame(void **state)
{
    create_strict();
    (void)request(7, 1);
    assert_int_equal(page_table_unmap(&domain.table, DRIVER_WINDOW_BASE + 8 * PAGE_SIZE, PAGE_SIZE), OK);
    assert_int_equal(page_table_map(&domain.table, DRIVER_WINDOW_BASE + 8 * PAGE_SIZE, HPA(GUEST_HPA), PAGE_SIZE, RW),
                     OK);
    assert_true(PANICS(look()));
    differs("blk0: IOMMU domain, guest page 0x8: expected 0x20008003, found 0x20000003");
}

static void translations_that_live_on(void **state)
{
    bool *forgotten[] = {&forget_flush, &forget_shootdown};

    for (u32 i = 0; i < ARRAY_SIZE(forgotten); i++) {
        create_strict();
        u8 tag = request(7, 1);
        *forgotten[i] = true;
        answer(tag);
        assert_true(PANICS(__wrap_grants_settle(&relay)));
        differs("blk0: not flushed from TLB and IOTLB, guest page 0x");

        create_strict();
        (void)request(7, 1);
        *forgotten[i] = true;
        assert_true(PANICS(__wrap_grants_revoke_all(&relay)));
        differs("blk0: not flushed when revoked, guest page 0x7: expected 0x0, found 0x1");
    }
}

static void ram_that_lives_on(void **state)
{
    for (u32 which = 0; which < 3; which++) {
        create_with_a_spare();
        forget_shootdown = which == 0;
        forget_flush = which == 1;
        forget_domain = which == 2;
        if (which < 2) {
            assert_true(PANICS(__wrap_driver_start(&driver)));
            differs("blk0: RAM exchanged, not flushed 0x");
        } else {
            __wrap_driver_start(&driver);
            assert_true(PANICS(look()));
            differs("blk0: mapped at 0x0");
        }
    }
}

static void what_is_not_settled(void **state)
{
    create_strict();
    answer(request(7, 1));
    assert_true(PANICS(look()));
    differs("blk0: not settled, guest page 0x");
    create(MANIFEST_GRANTS_STICKY, &page_format_npt, true);
    assert_int_equal(__wrap_page_table_unmap(&vm.npt, DRIVER_WINDOW_BASE + 5 * PAGE_SIZE, PAGE_SIZE), OK);
    assert_true(PANICS(look()));
    differs("blk0: not settled, guest page 0x5");
}

static void a_grant_released_twice(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    answer(tag);
    assert_true(PANICS(__wrap_grants_release(&relay, &relay.queue[0].log.slot[tag].chain)));
    differs("blk0: released, request");
}

/* ---- the rest of the tables ---- */

static void the_table_of_messages(void **state)
{
    create_strict();
    map(DRIVER_BARS_ADDRESS + DRIVER_BAR_STRIDE + PAGE_SIZE, MSIX_PAGE, PAGE_SIZE, RW | PAGE_UNCACHED);
    assert_true(PANICS(look()));
    differs("blk0: mapped at 0x500001000: expected 0x0, found 0xfebf200b");
}

static void a_contract_page_that_can_be_written(void **state)
{
    create_strict();
    assert_int_equal(page_table_protect(&vm.npt, DRIVER_INFO_ADDRESS, RW), OK);
    assert_true(PANICS(look()));
    differs("blk0: mapped at 0xf00000000");
}

static void a_ring_that_is_gone(void **state)
{
    create_strict();
    assert_int_equal(page_table_unmap(&vm.npt, DRIVER_RINGS_ADDRESS, PAGE_SIZE), OK);
    assert_true(PANICS(look()));
    differs("blk0: bytes mapped, pages in use");
}

static void memory_beside_the_domain(void **state)
{
    create_strict();
    assert_int_equal(page_table_map(&domain.table, MIB(512), HPA(RAM_BASE), PAGE_SIZE, PAGE_READ), OK);
    assert_true(PANICS(look()));
    differs("blk0: mapped at 0x20000000: expected 0x0, found 0x1000001");
}

/* ---- the log ---- */

static void an_answer_too_many(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    answer(tag);
    __wrap_virtqueue_fill(&relay.queue[0].vq, relay.queue[0].log.slot[tag].chain.head, 0);
    publish();
    assert_true(PANICS(__wrap_exit_dispatch(&vm.vcpu, NULL)));
    differs("blk0: answers owed, queue 0x0: expected 0x0, found 0xffff");
}

static void an_answer_to_nothing(void **state)
{
    create_strict();
    (void)request(7, 1);
    assert_true(PANICS(__wrap_virtqueue_fill(&relay.queue[0].vq, 99, 5)));
    differs("blk0: answer to nothing, head 0x63");
}

/* The guest may make a head available as often as it likes, with all tags in use, too. */
static void one_head_many_times(void **state)
{
    u8 tags[RING_TAGS];

    create(MANIFEST_GRANTS_STICKY, &page_format_npt, true);
    for (u32 i = 0; i < RING_TAGS; i++)
        tags[i] = request(7, 1);
    relay.queue[0].vq.last_avail++; /* and one that is refused */
    __wrap_virtqueue_fill(&relay.queue[0].vq, 7, 0);
    publish();
    look();
    for (u32 i = 0; i < RING_TAGS; i++)
        answer(tags[i]);
    publish();
    look();
}

static void an_answered_request_that_stays(void **state)
{
    create_strict();
    struct log_slot *slot = &relay.queue[0].log.slot[request(7, 1)];
    __wrap_grants_release(&relay, &slot->chain);
    __wrap_virtqueue_fill(&relay.queue[0].vq, slot->chain.head, 0);
    publish();
    assert_true(PANICS(__wrap_exit_dispatch(&vm.vcpu, NULL)));
    differs("blk0: answers owed, queue 0x0: expected 0x1, found 0x0");
}

static void a_request_that_is_lost(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    __wrap_grants_release(&relay, &relay.queue[0].log.slot[tag].chain);
    __wrap_inflight_remove(&relay.queue[0].log, tag);
    publish();
    assert_true(PANICS(__wrap_exit_dispatch(&vm.vcpu, NULL)));
    differs("blk0: answers owed, queue 0x0: expected 0x0, found 0x1");
}

static void cleared_behind_its_back(void **state)
{
    create_strict();
    inflight_remove(&relay.queue[0].log, request(7, 1));
    assert_true(PANICS(__wrap_exit_dispatch(&vm.vcpu, NULL)));
    differs("blk0: log, queue 0x0: expected 0x1, found 0x0");
}

static void cleared_with_its_grant(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    assert_true(PANICS(__wrap_inflight_remove(&relay.queue[0].log, tag)));
    differs("blk0: cleared, request");
}

static void a_log_out_of_order(void **state)
{
    create_strict();
    (void)request(7, 1);
    (void)request(17, 1);
    relay.queue[0].log.order[0] = 1;
    relay.queue[0].log.order[1] = 0;
    assert_true(PANICS(oracle_check_all()));
    differs("blk0: log, tag 0x0");
}

static void cells_that_do_not_add_up(void **state)
{
    create_strict();
    (void)request(7, 1);
    relay.queue[0].log.free_cells++;
    assert_true(PANICS(oracle_check_all()));
    differs("blk0: cells of queue 0x0: expected 0x1000, found 0x1001");
}

static void a_chain_that_changes(void **state)
{
    create_strict();
    u8 tag = request(7, 1);
    relay.queue[0].log.slot[tag].chain.segment[1].gpa += PAGE_SIZE;
    assert_true(PANICS(answer(tag)));
    differs("blk0: released, request");
}

/* ---- devices ---- */

static void a_device_that_is_not_blocked(void **state)
{
    create_strict();
    forget_block = true;
    assert_true(PANICS(__wrap_recovery_quiesce(&driver)));
    differs("blk0: IOMMU context of device 0xfa");
}

static void a_device_that_masters_the_bus(void **state)
{
    create_strict();
    __wrap_recovery_quiesce(&driver);
    command |= PCI_COMMAND_MASTER;
    assert_true(PANICS(__wrap_recovery_reset_device(&driver)));
    differs("blk0: bus mastering of device 0xfa: expected 0x0, found 0x6");
    create_strict();
    other_command |= PCI_COMMAND_MASTER;
    assert_true(PANICS(look()));
    differs("no VM: bus mastering of device 0x10");
}

static void a_device_in_a_foreign_domain(void **state)
{
    create_strict();
    contexts[OTHER_BDF] = contexts[BDF];
    assert_true(PANICS(look()));
    differs("no VM: IOMMU context of device 0x10");
}

static void a_blocking_domain_that_maps(void **state)
{
    create_strict();
    assert_int_equal(page_table_map(&empty, MIB(2), HPA(RAM_BASE), PAGE_SIZE, PAGE_READ), OK);
    assert_true(PANICS(look()));
    differs("no VM: entry of the blocking domain 0x0: expected 0x0");
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_in_every_mode),
        cmocka_unit_test(silent_through_a_recovery),
        cmocka_unit_test(silent_when_ram_is_exchanged),
        cmocka_unit_test(silent_about_refusals),
        cmocka_unit_test(a_device_that_keeps_a_page),
        cmocka_unit_test(a_page_that_stays_mapped),
        cmocka_unit_test(a_request_without_its_page),
        cmocka_unit_test(rights_that_nobody_gave),
        cmocka_unit_test(another_frame),
        cmocka_unit_test(translations_that_live_on),
        cmocka_unit_test(ram_that_lives_on),
        cmocka_unit_test(what_is_not_settled),
        cmocka_unit_test(a_grant_released_twice),
        cmocka_unit_test(the_table_of_messages),
        cmocka_unit_test(a_contract_page_that_can_be_written),
        cmocka_unit_test(a_ring_that_is_gone),
        cmocka_unit_test(memory_beside_the_domain),
        cmocka_unit_test(an_answer_too_many),
        cmocka_unit_test(an_answer_to_nothing),
        cmocka_unit_test(one_head_many_times),
        cmocka_unit_test(an_answered_request_that_stays),
        cmocka_unit_test(a_request_that_is_lost),
        cmocka_unit_test(cleared_behind_its_back),
        cmocka_unit_test(cleared_with_its_grant),
        cmocka_unit_test(a_log_out_of_order),
        cmocka_unit_test(cells_that_do_not_add_up),
        cmocka_unit_test(a_chain_that_changes),
        cmocka_unit_test(a_device_that_is_not_blocked),
        cmocka_unit_test(a_device_that_masters_the_bus),
        cmocka_unit_test(a_device_in_a_foreign_domain),
        cmocka_unit_test(a_blocking_domain_that_maps),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
