/* Probes that break a rule in the rings (VirtIO 1.2, 2.7). Each changes one thing in a request that would otherwise be
 * served. */
#include "guestos/kernel/shell/probe.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/mm/frames.h"
#include "shared/lib/string.h"

#define OUTSIDE_RAM (1ull << 45)    /* page-aligned, canonical, and no machine of ours has RAM there */
#define HOLE_BELOW_4G 0xfef00000ull /* beside the local APIC: not its page, where a device's write is an interrupt */

/* Start the queue, break it, submit. */
static const char *submit_broken(struct probe *probe, void (*break_rule)(struct probe *probe))
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    break_rule(probe);
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_submit(probe);
    return NULL;
}

/* The rule is one whose breach must stop the device: DEVICE_NEEDS_RESET (2.1.2). */
const char *probe_expect_needs_reset(struct probe *probe, void (*break_rule)(struct probe *probe))
{
    const char *why = submit_broken(probe, break_rule);

    if (why != NULL)
        return why;
    switch (probe_watch(probe, PROBE_ANSWER_US)) {
    case PROBE_NEEDS_RESET:
        return NULL;
    case PROBE_SERVED:
        return "the device served it";
    default:
        return "the device neither served it nor set DEVICE_NEEDS_RESET";
    }
}

/* The ring is in order, the block request is not: an answer of any kind will do, but the status must not be "ok". */
static const char *expect_refused(struct probe *probe, void (*break_rule)(struct probe *probe))
{
    const char *why = submit_broken(probe, break_rule);

    if (why != NULL)
        return why;
    switch (probe_watch(probe, PROBE_ANSWER_US)) {
    case PROBE_NEEDS_RESET:
        return NULL;
    case PROBE_SERVED:
        return *probe->status == VIRTIO_BLK_S_OK ? "the device said ok" : NULL;
    default:
        return "the device did not answer";
    }
}

static void break_desc_loop(struct probe *p)
{
    p->table[1].flags = VIRTQ_DESC_F_NEXT; /* header, data, header, data ... */
    p->table[1].next = 0;
}

static void break_desc_self(struct probe *p)
{
    p->table[2].flags |= VIRTQ_DESC_F_NEXT;
    p->table[2].next = 2;
}

static void break_next_range(struct probe *p)
{
    p->table[1].next = (u16)(p->size + 5);
}

static void break_avail_jump(struct probe *p)
{
    p->avail_idx = (u16)(p->size + 1);
}

static void break_avail_back(struct probe *p)
{
    p->avail_idx = 0xfff0;
}

static void break_head_range(struct probe *p)
{
    p->avail->ring[0] = (u16)(p->size + 7);
}

/* Put the good chain into the indirect table and point descriptor 0 at it. */
static void use_indirect(struct probe *p, u64 address, u32 length)
{
    memcpy(p->indirect, p->table, 3 * sizeof(struct virtq_desc));
    p->table[0] = (struct virtq_desc){address, length, VIRTQ_DESC_F_INDIRECT, 0};
}

static void break_indirect_nested(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 4 * 16);
    p->indirect[3] = p->indirect[2];
    p->indirect[2] = (struct virtq_desc){(u64)&p->indirect[3], 16, VIRTQ_DESC_F_INDIRECT, 0};
}

static void break_indirect_odd(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 3 * 16 + 8);
}

static void break_indirect_zero(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 0);
}

static void break_indirect_huge(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 0xfffffff0u);
}

static void break_indirect_outside(struct probe *p)
{
    use_indirect(p, OUTSIDE_RAM, 3 * 16);
}

static void break_indirect_range(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 3 * 16);
    p->indirect[1].next = 3;
}

static void break_indirect_next(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 3 * 16);
    p->table[0].flags |= VIRTQ_DESC_F_NEXT;
    p->table[0].next = 1;
}

static void break_indirect_loop(struct probe *p)
{
    use_indirect(p, (u64)p->indirect, 3 * 16);
    p->indirect[1].flags = VIRTQ_DESC_F_NEXT;
    p->indirect[1].next = 0;
}

static void break_length_zero(struct probe *p)
{
    p->table[1].len = 0;
}

static void break_address_outside(struct probe *p)
{
    p->table[1].addr = OUTSIDE_RAM;
}

static void break_address_hole(struct probe *p)
{
    p->table[1].addr = HOLE_BELOW_4G;
}

/* Only read by the device, so that nothing beyond is damaged where the device does not look. */
static void break_address_edge(struct probe *p)
{
    p->table[0].addr = frames_get_info().end - 8;
}

static void break_address_overflow(struct probe *p)
{
    p->table[1].addr = ~0ull - 255;
    p->table[1].len = 4096;
}

static void break_length_huge(struct probe *p)
{
    p->table[1].len = 0xfffffe00u;
}

static void break_write_first(struct probe *p)
{
    p->table[0] = (struct virtq_desc){(u64)p->status, 1, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, 1};
    p->table[1] = (struct virtq_desc){(u64)p->header, 16, VIRTQ_DESC_F_NEXT, 2};
    p->table[2] = (struct virtq_desc){(u64)p->data, 512, 0, 0};
}

static void break_no_status(struct probe *p)
{
    p->table[0].flags = 0;
}

static void break_no_header(struct probe *p)
{
    p->avail->ring[0] = 1; /* the chain begins with the data */
}

static void break_short_header(struct probe *p)
{
    p->table[0].len = 8;
}

static void break_sector_range(struct probe *p)
{
    p->header->sector = ~0ull >> 9;
}

/* Half of it lies on the disk. */
static void break_sector_end(struct probe *p)
{
    p->header->sector = p->sectors - PROBE_DATA_SIZE / VIRTIO_BLK_SECTOR / 2;
    p->table[1].len = PROBE_DATA_SIZE;
}

static void break_sector_overflow(struct probe *p)
{
    p->header->sector = ~0ull;
}

static void break_odd_size(struct probe *p)
{
    p->table[1].len = 100;
}

/* Nothing broken: what the other probes change works when it is left alone. */
static const char *probe_control(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_submit(probe);
    if (probe_watch(probe, PROBE_ANSWER_US) != PROBE_SERVED)
        return "a correct request was not served";
    return *probe->status == VIRTIO_BLK_S_OK ? NULL : "a correct request failed";
}

/* Reset with reads in flight: once the status reads 0, the device must not write to the buffers any more (2.4.1). */
static const char *probe_reset_busy(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    for (u16 i = 0; i + 3 <= probe->size; i += 3) {
        u32 length = PROBE_DATA_SIZE;
        probe->table[i] = (struct virtq_desc){(u64)probe->header, 16, VIRTQ_DESC_F_NEXT, (u16)(i + 1)};
        probe->table[i + 1] =
            (struct virtq_desc){(u64)probe->data, length, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, (u16)(i + 2)};
        probe->table[i + 2] = (struct virtq_desc){(u64)probe->status, 1, VIRTQ_DESC_F_WRITE, 0};
        probe->avail->ring[i / 3] = i;
        probe->avail_idx = (u16)(i / 3 + 1);
    }
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_submit(probe);
    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    memset(probe->data, 0x5a, PROBE_DATA_SIZE);
    *probe->status = 0x5a;
    u16 used = probe->used->idx;
    console_sleep(PROBE_SILENCE_US);
    for (u64 i = 0; i < PROBE_DATA_SIZE; i++)
        if (((volatile u8 *)probe->data)[i] != 0x5a)
            return "a buffer was written to after the reset";
    return *probe->status == 0x5a && ((volatile struct virtq_used *)probe->used)->idx == used
               ? NULL
               : "a status or the used ring was written to after the reset";
}

const struct probe_entry probe_ring_entries[] = {
    {"control", "nothing: a correct request", "2.7.13", "it is served", .run = probe_control},
    {"desc-loop", "descriptors that lead back to the first", "2.7.5.2", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_desc_loop},
    {"desc-self", "a descriptor that leads to itself", "2.7.5.2", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_desc_self},
    {"next-range", "a next beyond the table", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_next_range},
    {"avail-jump", "an available index ahead by more than the queue", "2.7.6",
     "the device stops and says DEVICE_NEEDS_RESET", .expect = probe_expect_needs_reset,
     .break_rule = break_avail_jump},
    {"avail-back", "an available index that goes back", "2.7.6.1", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_avail_back},
    {"head-range", "a head beyond the table", "2.7.6", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_head_range},
    {"indirect-nested", "an indirect table inside an indirect table", "2.7.5.3.1",
     "the device stops and says DEVICE_NEEDS_RESET", .expect = probe_expect_needs_reset,
     .break_rule = break_indirect_nested},
    {"indirect-odd", "an indirect table whose length is no multiple of 16", "2.7.5.3",
     "the device stops and says DEVICE_NEEDS_RESET", .expect = probe_expect_needs_reset,
     .break_rule = break_indirect_odd},
    {"indirect-zero", "an indirect table of length 0", "2.7.5.3", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_indirect_zero},
    {"indirect-huge", "an indirect table of nearly 4 GiB", "2.7.5.3.1", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_indirect_huge},
    {"indirect-outside", "an indirect table outside RAM", "2.7.5.3", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_indirect_outside},
    {"indirect-range", "a next beyond the indirect table", "2.7.5.3", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_indirect_range},
    {"indirect-next", "an indirect descriptor with a successor", "2.7.5.3.1",
     "the device stops and says DEVICE_NEEDS_RESET", .expect = probe_expect_needs_reset,
     .break_rule = break_indirect_next},
    {"indirect-loop", "a loop in an indirect table", "2.7.5.3", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_indirect_loop},
    {"length-zero", "a descriptor of length 0", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_length_zero},
    {"length-huge", "a descriptor of nearly 4 GiB", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_length_huge},
    {"address-outside", "a buffer outside RAM", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_address_outside},
    {"address-hole", "a buffer in a hole below 4 GiB", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_address_hole},
    {"address-edge", "a buffer that crosses the end of RAM", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_address_edge},
    {"address-overflow", "address + length beyond 2^64", "2.7.5", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_address_overflow},
    {"write-first", "a device-writable descriptor before a readable one", "2.7.4.2",
     "the device stops and says DEVICE_NEEDS_RESET", .expect = probe_expect_needs_reset,
     .break_rule = break_write_first},
    {"no-status", "a block request without a status byte", "5.2.6", "the request is refused", .expect = expect_refused,
     .break_rule = break_no_status},
    {"no-header", "a block request without a header", "5.2.6", "the request is refused", .expect = expect_refused,
     .break_rule = break_no_header},
    {"short-header", "a header of 8 bytes", "5.2.6", "the request is refused", .expect = expect_refused,
     .break_rule = break_short_header},
    {"sector-range", "a sector beyond the disk", "5.2.6.1", "the request is refused", .expect = expect_refused,
     .break_rule = break_sector_range},
    {"sector-end", "a read across the end of the disk", "5.2.6.1", "the request is refused", .expect = expect_refused,
     .break_rule = break_sector_end},
    {"sector-overflow", "a sector of 2^64 - 1", "5.2.6.1", "the request is refused", .expect = expect_refused,
     .break_rule = break_sector_overflow},
    {"odd-size", "a read of 100 bytes", "5.2.6.1", "the request is refused", .expect = expect_refused,
     .break_rule = break_odd_size},
    {"reset-busy", "a reset with a full queue", "2.4.1", "nothing is written once the status reads 0",
     .run = probe_reset_busy},
    {.name = NULL},
};
