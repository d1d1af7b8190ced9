/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c */
/* INCLUDE_FAKES */
/*
 * Property test of the whole relay: a guest with random requests, a driver that answers in any order and crashes at any
 * moment. Each request must be published exactly once with its own length and data, wake-ups may not get lost on either
 * side, and the relay's invariants hold after every step.
 */
#include "tests/unit/random.h"

#include "tests/unit/relay_world.h"

#define MAX_SERIAL 4096u
#define TABLES_AT (WORLD_RAM - RING_TAGS * 0x400ull) /* an indirect table of 64 entries for each head */
#define QUEUES 2u

struct sent {
    bool done;
    u64 result_at; /* where the device writes the serial back: first writable segment */
    u32 writable;
    u32 length;       /* what the driver said last */
    u16 first, count; /* descriptors, to be freed */
};

struct party { /* one queue, both sides */
    u16 last_used, seen_avail;
    bool free[RING_TAGS];
    u32 serial_of[RING_TAGS];
    u32 pending_count;
    struct driver_request pending[RING_TAGS];
    u32 interrupts;
};

struct run {
    struct random random;
    u16 size;
    u64 features;
    bool small; /* segments of two pages at most: every request fits a small grant cache */
    u32 next_serial, finished, crashes;
    struct sent sent[MAX_SERIAL];
    struct party party[QUEUES];
    bool asleep;
};

static struct run run;

/* ---- guest ---- */

static bool take_descriptors(struct party *party, u16 count, u16 *first)
{
    u16 found = 0;
    for (u16 i = 0; i < run.size; i++) {
        found = party->free[i] ? found + 1 : 0;
        if (found == count) {
            *first = (u16)(i + 1 - count);
            memset(&party->free[*first], false, count);
            return true;
        }
    }
    return false;
}

/* A segment of random size and alignment; the buffers may overlap between requests, except for the serials' places. */
static struct virtq_desc random_segment(void)
{
    u64 room = TABLES_AT - BUFFERS_AT - MAX_SERIAL * 16;
    u32 length =
        (u32)(1 + random_below(&run.random, !run.small && random_one_in(&run.random, 4) ? 5 * PAGE_SIZE : 600));
    u64 at = BUFFERS_AT + MAX_SERIAL * 16 + random_below(&run.random, room - length);
    return (struct virtq_desc){.addr = at, .len = length};
}

static void guest_send(u16 queue)
{
    struct party *party = &run.party[queue];
    bool indirect = (run.features & VIRTIO_F_INDIRECT_DESC) != 0 && random_one_in(&run.random, 2);
    u16 count = (u16)random_between(&run.random, 2, indirect ? 40 : run.size < 6 ? run.size : 6), first;
    u16 readable = (u16)random_between(&run.random, 1, count - 1);
    if (run.next_serial == MAX_SERIAL || !take_descriptors(party, indirect ? 1 : count, &first))
        return;
    u32 serial = run.next_serial++;
    struct sent *sent = &run.sent[serial];
    struct virtq_desc *desc = guest_desc(queue) + first;
    u64 table = TABLES_AT + first * 0x400ull - queue * 0x200;
    *sent = (struct sent){.first = first, .count = indirect ? 1 : count, .result_at = BUFFERS_AT + serial * 16 + 8};
    if (indirect) {
        if (queue == 1)
            count = count > 30 ? 30 : count, readable = readable >= count ? 1 : readable;
        else if (count > 31)
            count = 31, readable = readable >= count ? 1 : readable;
        *desc = (struct virtq_desc){.addr = table, .len = count * 16u, .flags = VIRTQ_DESC_F_INDIRECT};
        desc = (struct virtq_desc *)(world.ram + table);
    }
    for (u16 i = 0; i < count; i++) {
        desc[i] = random_segment();
        if (i == 0)
            desc[i] = (struct virtq_desc){.addr = BUFFERS_AT + serial * 16, .len = 4};
        if (i == readable)
            desc[i] = (struct virtq_desc){.addr = sent->result_at, .len = 4};
        desc[i].flags = (i >= readable ? VIRTQ_DESC_F_WRITE : 0) | (i + 1 < count ? VIRTQ_DESC_F_NEXT : 0);
        desc[i].next = (u16)((indirect ? 0 : first) + i + 1);
        sent->writable += i >= readable ? desc[i].len : 0;
    }
    memcpy(world.ram + BUFFERS_AT + serial * 16, &serial, 4);
    party->serial_of[first] = serial;
    guest_make_available(queue, run.size, first);
}

/* Kick exactly when VirtIO says that one must: a relay that forgets to ask for it stalls this test. */
static void guest_maybe_kick(u16 queue)
{
    struct party *party = &run.party[queue];
    u16 now = guest_avail(queue)->idx, before = party->seen_avail;
    const struct virtq_used *used = guest_used(queue);
    u16 event;
    memcpy(&event, &used->ring[run.size], 2);
    bool kick = (run.features & VIRTIO_F_EVENT_IDX) != 0 ? virtq_need_event(event, now, before)
                                                         : (used->flags & VIRTQ_USED_F_NO_NOTIFY) == 0;
    party->seen_avail = now;
    if (now != before && kick)
        guest_kick(queue);
}

static void guest_reap(u16 queue)
{
    struct party *party = &run.party[queue];
    const struct virtq_used *used = guest_used(queue);
    for (; party->last_used != used->idx; party->last_used++) {
        struct virtq_used_elem element = used->ring[party->last_used % run.size];
        assert_true(element.id < run.size && !party->free[element.id]);
        u32 serial = party->serial_of[element.id], written;
        struct sent *sent = &run.sent[serial];
        assert_false(sent->done);
        sent->done = true;
        run.finished++;
        assert_int_equal(element.len, sent->length);
        memcpy(&written, world.ram + sent->result_at, 4);
        assert_int_equal(written, serial);
        memset(&party->free[sent->first], true, sent->count);
    }
    if ((run.features & VIRTIO_F_EVENT_IDX) != 0)
        guest_avail(queue)->ring[run.size] = party->last_used;
}

/* The guest looks at a used ring only when it was interrupted for it. */
static void guest_take_interrupts(void)
{
    for (u16 queue = 0; queue < QUEUES; queue++) {
        if (world.messages[queue] != run.party[queue].interrupts) {
            run.party[queue].interrupts = world.messages[queue];
            guest_reap(queue);
        }
    }
}

/* ---- driver ---- */

static void driver_read_ring(u16 queue)
{
    struct party *party = &run.party[queue];
    while (party->pending_count < RING_TAGS && driver_take(queue, &party->pending[party->pending_count])) {
        for (u32 i = 0; i < party->pending_count; i++)
            assert_int_not_equal(party->pending[i].tag, party->pending[party->pending_count].tag);
        party->pending_count++;
    }
}

static void driver_finish(u16 queue, u32 which)
{
    struct party *party = &run.party[queue];
    struct driver_request *request = &party->pending[which];
    u32 serial, writable = 0;
    for (u32 i = 0; i < request->count; i++) {
        bool write = (request->segment[i].flags & RING_SEGMENT_WRITABLE) != 0;
        assert_int_equal(write, i >= request->readable);
        assert_non_null(device_reach(request->segment[i].address, request->segment[i].length, write));
        writable += write ? request->segment[i].length : 0;
    }
    memcpy(&serial, device_reach(request->segment[0].address, 4, false), 4);
    assert_true(serial < run.next_serial);
    struct sent *sent = &run.sent[serial];
    assert_false(sent->done);
    assert_int_equal(writable, sent->writable);
    memcpy(device_reach(request->segment[request->readable].address, 4, true), &serial, 4);
    sent->length = (u32)random_between(&run.random, 4, writable);
    driver_complete(queue, request->tag, sent->length);
    *request = party->pending[--party->pending_count];
}

static void driver_wait(void)
{
    relay_complete(world.relay);
    relay_forward(world.relay);
    if (run.party[0].pending_count + run.party[1].pending_count != 0 && !random_one_in(&run.random, 3))
        return; /* it polls: still busy */
    if (relay_driver_has_work(world.relay) || relay_arm_kicks(world.relay))
        relay_want_kicks(world.relay, false);
    else
        run.asleep = true;
}

static void driver_run(void)
{
    if (run.asleep && !world.signalled) {
        /* Only the device's interrupt wakes it: it has requests to finish. */
        if (run.party[0].pending_count + run.party[1].pending_count == 0)
            return;
    }
    run.asleep = world.signalled = false;
    relay_want_kicks(world.relay, false);
    for (u16 queue = 0; queue < QUEUES; queue++) {
        driver_read_ring(queue);
        for (u64 n = random_below(&run.random, run.party[queue].pending_count + 1); n > 0; n--)
            driver_finish(queue, (u32)random_below(&run.random, run.party[queue].pending_count));
    }
    if (!random_one_in(&run.random, 8))
        driver_wait();
}

/* It dies with completions that it wrote but never handed over: these requests are replayed as well. */
static void driver_crash(void)
{
    struct relay_stats before, after;
    before = relay_stats(world.relay);
    world_crash();
    world_check();
    if (random_one_in(&run.random, 2))
        guest_send(0), guest_maybe_kick(0); /* the guest goes on while nobody is there */
    assert_int_equal(relay_complete(world.relay), 0);
    assert_false(relay_forward(world.relay));
    run.party[0].pending_count = run.party[1].pending_count = 0;
    world.offer.config[0] ^= (u8)random_below(&run.random, 2);
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    after = relay_stats(world.relay);
    assert_int_equal(after.replayed - before.replayed, before.in_flight);
    run.asleep = false;
    run.crashes++;
}

static void check_replay_order(void)
{
    /* Right after an offer: cells appear in the order of their ids, as they were submitted. */
    for (u16 queue = 0; queue < QUEUES; queue++) {
        u32 first = run.party[queue].pending_count;
        driver_read_ring(queue);
        for (u32 i = first + 1; i < run.party[queue].pending_count; i++)
            assert_true(run.party[queue].pending[i].id > run.party[queue].pending[i - 1].id);
    }
}

static void traffic(const char *name, enum manifest_grants grants, u32 pages, u64 features, u16 size, u32 crash_one_in)
{
    memset(&run, 0, sizeof(run));
    run.random = random_start(name);
    run.size = size;
    run.features = features;
    run.small = pages < WORLD_PAGES;
    world_create(grants, pages, true);
    world.offer.queues = QUEUES;
    assert_int_equal(relay_offer(world.relay, &world.offer), OK);
    guest_start(features, size);
    for (u32 q = 0; q < QUEUES; q++)
        memset(run.party[q].free, true, size);
    run.asleep = !relay_arm_kicks(world.relay);

    for (u32 idle = 0; run.finished < MAX_SERIAL && idle < 200; idle++) {
        u32 before = run.finished;
        for (u16 queue = 0; queue < QUEUES; queue++) {
            for (u64 n = random_below(&run.random, 5); n > 0; n--)
                guest_send(queue);
            guest_maybe_kick(queue);
        }
        driver_run();
        world_check();
        if (crash_one_in != 0 && random_one_in(&run.random, crash_one_in)) {
            driver_crash();
            check_replay_order();
        }
        guest_take_interrupts();
        if (run.finished != before)
            idle = 0;
    }
    assert_int_equal(run.finished, MAX_SERIAL); /* none lost, nobody asleep for ever */
    assert_int_equal(world.reports, 0);
    assert_int_equal(relay_in_flight(world.relay), 0);
    assert_true(relay_oldest(world.relay) == ~0ull);
    struct relay_stats stats = relay_stats(world.relay);
    assert_int_equal(stats.requests, MAX_SERIAL);
    assert_int_equal(stats.completions, MAX_SERIAL);
    assert_int_equal(stats.broken, 0);
    assert_int_equal(stats.errors_answered, 0);
    if (crash_one_in != 0)
        assert_true(run.crashes > 10 && world.first_completions > 5 && stats.replayed > 100);
    if (run.small)
        assert_true(stats.grants_evicted > 100);
    if (grants == MANIFEST_GRANTS_STRICT)
        assert_int_equal(reachable_pages(), 0);
    print_message("%u crashes, %llu replayed, %llu evicted, %llu kicks, %llu interrupts for %u requests\n", run.crashes,
                  (unsigned long long)stats.replayed, (unsigned long long)stats.grants_evicted,
                  (unsigned long long)stats.kicks, (unsigned long long)stats.interrupts, MAX_SERIAL);
    world_destroy();
}

static void sticky_with_event_idx(void **state)
{
    traffic("sticky", MANIFEST_GRANTS_STICKY, 1024, GUEST_FEATURES, 64, 0);
}

static void strict_with_event_idx(void **state)
{
    traffic("strict", MANIFEST_GRANTS_STRICT, 1024, GUEST_FEATURES, 64, 0);
}

static void small_cache_evicts(void **state)
{
    traffic("evict", MANIFEST_GRANTS_STICKY, 64, GUEST_FEATURES, 32, 0);
}

static void flags_instead_of_event_idx(void **state)
{
    traffic("flags", MANIFEST_GRANTS_STICKY, 1024, VIRTIO_F_VERSION_1, 8, 0);
}

static void crashes_sticky(void **state)
{
    traffic("crash-sticky", MANIFEST_GRANTS_STICKY, 1024, GUEST_FEATURES, 128, 12);
}

static void crashes_strict(void **state)
{
    traffic("crash-strict", MANIFEST_GRANTS_STRICT, 1024, GUEST_FEATURES, 128, 12);
}

static void crashes_with_flags(void **state)
{
    traffic("crash-flags", MANIFEST_GRANTS_STICKY, 64, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC, 128, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sticky_with_event_idx), cmocka_unit_test(strict_with_event_idx),
        cmocka_unit_test(small_cache_evicts),    cmocka_unit_test(flags_instead_of_event_idx),
        cmocka_unit_test(crashes_sticky),        cmocka_unit_test(crashes_strict),
        cmocka_unit_test(crashes_with_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
