/* What happens at the seams, written down in the abstract state; and when to look. */
#include "hv/core/hypervisor.h"
#include "hv/core/start.h"
#include "hv/exit/dispatch.h"
#include "hv/recovery/stages.h"
#include "tests/oracle/oracle.h"

#define ALL_EXITS 8192u /* everything is looked at after so many exits; in between what changed */

struct oracle oracles[VM_MAX];

/* The linker leads calls of NAME to __wrap_NAME, and calls of __real_NAME to NAME. */
#define SEAM(type, name, ...)                                                                                          \
    type __real_##name(__VA_ARGS__);                                                                                   \
    type __wrap_##name(__VA_ARGS__);                                                                                   \
    type __wrap_##name(__VA_ARGS__)

static void touch(struct oracle *o, u64 page)
{
    if (!o->page[page].touched)
        o->touched[o->touched_count++] = (u32)page;
    o->page[page].touched = true;
    o->first = page < o->first ? page : o->first;
    o->end = page < o->end ? o->end : page + 1;
}

/* The relay's queue that holds this log or virtqueue, and whose it is. */
static struct oracle_queue *queue_of(const void *part, struct oracle **o)
{
    for (u32 i = 0; i < driver_count * RING_MAX_QUEUES; i++) {
        u32 q = i % RING_MAX_QUEUES;
        *o = &oracles[drivers[i / RING_MAX_QUEUES]->vm->id];
        if ((u64)part - (u64) & (*o)->driver->relay->queue[q] < sizeof(struct relay_queue))
            return &(*o)->queue[q];
    }
    panic("oracle: a queue of nobody's");
}

static struct oracle_request *request_of(const struct chain *chain)
{
    struct oracle *o;
    struct oracle_queue *own = queue_of(chain, &o);
    const struct log_slot *slots = o->driver->relay->queue[own - o->queue].log.slot;

    return &own->request[((u64)chain - (u64)slots) / sizeof(*slots)];
}

static u64 sum_of(const struct chain *chain)
{
    u64 sum = chain->head | (u64)chain->count << 16 | (u64)chain->readable << 32;

    for (u32 i = 0; i < chain->count; i++)
        sum = (sum ^ chain->segment[i].gpa ^ (u64)chain->segment[i].length << 32) * 0x100000001b3ull;
    return sum;
}

/* The pages of a chain get a user more or less (by: 1, -1), or may have got its rights (0). */
static void count(struct oracle *o, const struct chain *chain, int by)
{
    for (u32 i = 0; i < chain->count; i++) {
        const struct chain_segment *segment = &chain->segment[i];
        bool writes = i >= chain->readable;
        for (u64 n = segment->gpa / PAGE_SIZE; n <= (segment->gpa + segment->length - 1) / PAGE_SIZE; n++) {
            struct oracle_page *p = &o->page[n];
            if (by >= 0 || o->driver->config->grants == MANIFEST_GRANTS_STRICT)
                touch(o, n);
            o->used -= p->users != 0;
            p->users = (u16)(p->users + by);
            p->writers = (u16)(p->writers + by * writes);
            p->may |= by < 0 ? 0 : writes ? PAGE_READ | PAGE_WRITE : PAGE_READ;
            o->used += p->users != 0;
        }
    }
}

/* ---- grants ---- */

SEAM(status_t, grants_take, struct relay *relay, const struct chain *chain)
{
    struct oracle *o = &oracles[relay->driver->vm->id];
    struct oracle_request *own = request_of(chain);
    status_t status = __real_grants_take(relay, chain);

    if (status == ERR_RANGE) /* more pages than the cache has: none was looked at */
        return status;
    if (own->granted || (own->in_flight && own->sum != sum_of(chain)))
        oracle_differ(o, "granted, request", own->id, own->sum, sum_of(chain));
    own->granted = status == OK;
    own->sum = sum_of(chain);
    count(o, chain, status == OK);
    return status;
}

SEAM(void, grants_release, struct relay *relay, const struct chain *chain)
{
    struct oracle *o = &oracles[relay->driver->vm->id];
    struct oracle_request *own = request_of(chain);

    if (!own->granted || own->sum != sum_of(chain))
        oracle_differ(o, "released, request", own->id, own->sum, sum_of(chain));
    own->granted = false;
    count(o, chain, -1);
    __real_grants_release(relay, chain);
}

static void settled(struct oracle *o)
{
    o->touched_count = 0;
    o->shot = false;
    o->flushed = o->flushed_to = 0;
}

SEAM(void, grants_settle, struct relay *relay)
{
    struct oracle *o = &oracles[relay->driver->vm->id];

    __real_grants_settle(relay);
    for (u32 i = 0; i < o->touched_count; i++) {
        oracle_check_page(o, o->touched[i]);
        o->page[o->touched[i]].touched = false;
    }
    settled(o);
}

/* That nothing is mapped any more is for the look at the end of the stage; the flush is seen here only. */
SEAM(void, grants_revoke_all, struct relay *relay)
{
    struct oracle *o = &oracles[relay->driver->vm->id];

    __real_grants_revoke_all(relay);
    for (u64 n = o->first; n < o->end; n++) {
        if (o->page[n].found && !(o->shot && (!o->driver->domain || n - o->flushed < o->flushed_to - o->flushed)))
            oracle_differ(o, "not flushed when revoked, guest page", n, 0, o->page[n].found);
        o->page[n] = (struct oracle_page){0};
    }
    for (u32 i = 0; i < RING_MAX_QUEUES * RING_TAGS; i++)
        o->queue[i / RING_TAGS].request[i % RING_TAGS].granted = false;
    o->first = ~0ull;
    o->used = o->end = 0;
    settled(o);
}

/* Evictions: of pages that no request has named. */
SEAM(status_t, page_table_unmap, struct page_table *pt, u64 at, u64 size)
{
    for (u32 i = 0; i < driver_count && size == PAGE_SIZE; i++)
        if (pt == &drivers[i]->vm->npt && at >= DRIVER_WINDOW_BASE)
            touch(&oracles[drivers[i]->vm->id], (at - DRIVER_WINDOW_BASE) / PAGE_SIZE);
    return __real_page_table_unmap(pt, at, size);
}

SEAM(void, vcpu_shootdown, struct vcpu *vcpu)
{
    oracles[vcpu->vm->id].shot = true;
    __real_vcpu_shootdown(vcpu);
}

SEAM(void, iommu_flush_pages, struct iommu_domain *domain, iova_t at, u64 pages)
{
    for (u32 i = 0; i < driver_count; i++)
        if (domain == drivers[i]->domain && at.v >= DRIVER_WINDOW_BASE) {
            struct oracle *o = &oracles[drivers[i]->vm->id];
            o->flushed = (at.v - DRIVER_WINDOW_BASE) / PAGE_SIZE;
            o->flushed_to = o->flushed + pages;
        }
    __real_iommu_flush_pages(domain, at, pages);
}

/* ---- the log ---- */

SEAM(u8, inflight_add, struct inflight *log, u64 id, u64 now)
{
    static u64 last;
    struct oracle *o;
    struct oracle_queue *own = queue_of(log, &o);
    u8 tag = __real_inflight_add(log, id, now);
    struct oracle_request *request = &own->request[tag];

    if (request->in_flight || !request->granted || id <= last || request->sum != sum_of(&log->slot[tag].chain))
        oracle_differ(o, "logged, tag", tag, last + 1, id);
    request->in_flight = true;
    request->id = last = id;
    own->in_flight++;
    return tag;
}

SEAM(void, inflight_remove, struct inflight *log, u8 tag)
{
    struct oracle *o;
    struct oracle_queue *own = queue_of(log, &o);
    struct oracle_request *request = &own->request[tag];

    if (!request->in_flight || request->granted || request->sum != sum_of(&log->slot[tag].chain))
        oracle_differ(o, "cleared, request", request->id, request->sum, sum_of(&log->slot[tag].chain));
    request->in_flight = false;
    own->in_flight--;
    __real_inflight_remove(log, tag);
}

/*
 * An answer: to what is in flight, to what was cleared right before, or to the draft, which is refused. The last two
 * lie behind those in flight. A guest may make one head available twice; oracle_check() sees an answer too many.
 */
SEAM(void, virtqueue_fill, struct virtqueue *vq, u16 head, u32 length)
{
    struct oracle *o;
    if ((u64)vq - (u64)relays[main_guest->id] < sizeof(struct relay)) {
        __real_virtqueue_fill(vq, head, length); /* of the guest's console: there is no log, nothing is granted */
        return;
    }
    struct oracle_queue *own = queue_of(vq, &o);
    const struct inflight *log = &o->driver->relay->queue[own - o->queue].log;
    u32 i = 0;

    while (i <= log->count && i < RING_TAGS && log->slot[log->order[i]].chain.head != head)
        i++;
    if (i > log->count || i == RING_TAGS)
        oracle_differ(o, "answer to nothing, head", head, 0, length);
    __real_virtqueue_fill(vq, head, length);
}

/* ---- who may master the bus ---- */

SEAM(status_t, driver_enable_dma, struct driver *driver)
{
    status_t status = __real_driver_enable_dma(driver);

    oracles[driver->vm->id].live |= status == OK;
    return status;
}

/* ---- which RAM it has ---- */

/* With a spare it has two, in turn. What CPU and device have cached of the one must be gone before the other is used.
 */
SEAM(void, driver_start, struct driver *driver)
{
    struct oracle *o = &oracles[driver->vm->id];
    u64 next = driver->config->spare ? driver->next_ram.v : driver->vm->ram.v;
    u64 flushes = driver->domain ? driver->domain->flushes : 0;

    __real_driver_start(driver);
    o->mapping[0].hpa = next;
    if (driver->config->spare &&
        (!driver->vm->vcpu.flush_tlb || (driver->domain && driver->domain->flushes == flushes)))
        oracle_differ(o, "RAM exchanged, not flushed", next, flushes + 1, flushes);
}

/* ---- when to look ---- */

SEAM(void, recovery_quiesce, struct driver *driver)
{
    __real_recovery_quiesce(driver);
    oracles[driver->vm->id].live = false;
    oracle_check_all();
}

SEAM(void, recovery_reset_device, struct driver *driver)
{
    __real_recovery_reset_device(driver);
    oracle_check_all();
}

SEAM(void, recovery_restart_vm, struct driver *driver)
{
    __real_recovery_restart_vm(driver);
    oracle_check_all();
}

SEAM(status_t, recovery_offer, struct driver *driver, const struct driver_offer *offer)
{
    status_t status = __real_recovery_offer(driver, offer);

    if (status == OK)
        oracle_check_all();
    return status;
}

SEAM(void, exit_dispatch, struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    static u32 exits;

    __real_exit_dispatch(vcpu, exit);
    for (u32 i = 0; i < driver_count; i++)
        if (vcpu->vm == main_guest || vcpu->vm == drivers[i]->vm)
            oracle_check(&oracles[drivers[i]->vm->id]);
    if (++exits % ALL_EXITS == 0)
        oracle_check_all();
}

SEAM(void, start_vms, const struct boot_info *boot, const struct manifest *manifest)
{
    __real_start_vms(boot, manifest);
    oracle_start();
    hv_log("oracle: looks after each exit and each stage of a recovery");
}
