/*
 * A model of a modern virtio-pci device (VirtIO 1.2 2.7, 4.1): configuration space, registers, split virtqueues. It
 * behaves as the specification says, switches let it misbehave, and a rule that the driver breaks fails the test. What
 * the device is for is the including test's: device_kick() and the contents of virtio.config.
 */
#pragma once

#include "drivervm/drivers/virtio/virtio.h"
#include "tests/unit/drivervm_services.h"

#define MODEL_BAR 0xfe000000ull
#define MODEL_PORTS 0xc000ull
#define MODEL_QUEUES 3u
#define AT_COMMON 0x0000u
#define AT_ISR 0x1000u
#define AT_CONFIG 0x2000u
#define AT_NOTIFY 0x3000u
#define NOTIFY_MULTIPLIER 4u
#define CAP_FIRST 0x40u
#define CAP_BYTES 20u
#define CHAIN_MOST 512u

struct model_chain {
    u16 head;
    u32 count, readable;
    struct virtq_desc part[CHAIN_MOST];
};

static struct {
    u8 space[256]; /* configuration space */
    u64 offered, accepted;
    u32 status, device_select, driver_select, queue_select;
    u16 config_vector;
    u8 generation;
    u8 config[64] __attribute__((aligned(8)));
    u32 config_length;
    u32 queues;
    struct model_queue {
        u16 size, most, vector, enabled;
        u64 desc, driver, device;
        u16 taken, given; /* free-running, of available and used */
        bool awake;       /* kicked, and not yet out of work */
    } queue[MODEL_QUEUES];
    bool news; /* an interrupt that the driver has not looked at */
    /* switches */
    bool line; /* no MSI-X */
    bool never_reset, refuses, restless, no_vectors;
    u32 reset_lag; /* looks at the status until a reset is done */
    /* what happened */
    u32 resets, kicks, interrupts, isr_reads, lag;
} virtio;

/* The driver has rung for queue `index`. */
static void device_kick(u32 index);

/* ---- configuration space ---- */

static void space_put(u32 at, u32 width, u32 value)
{
    memcpy(virtio.space + at, &value, width);
}

/* A capability behind the ones before; returns its offset. */
static u32 put_capability(u32 type, u32 bar, u32 offset, u32 length)
{
    static u32 last;
    u32 at = virtio.space[PCI_CAPABILITIES] ? last + 24 : CAP_FIRST;
    struct virtio_pci_cap cap = {.cap_vndr = PCI_CAP_VENDOR,
                                 .cap_len = CAP_BYTES,
                                 .cfg_type = (u8)type,
                                 .bar = (u8)bar,
                                 .offset = offset,
                                 .length = length};

    memcpy(virtio.space + at, &cap, sizeof(cap));
    space_put(at + sizeof(cap), 4, NOTIFY_MULTIPLIER);
    if (virtio.space[PCI_CAPABILITIES])
        virtio.space[last + 1] = (u8)at;
    else
        virtio.space[PCI_CAPABILITIES] = (u8)at;
    last = at;
    return at;
}

/* Behind all others comes MSI-X, as the hypervisor has left it. */
static void put_msix(void)
{
    u32 at = put_capability(0, 0, 0, 0);

    memset(virtio.space + at, 0, CAP_BYTES);
    virtio.space[at] = PCI_CAP_MSIX;
    space_put(at + MSIX_CONTROL, 2, MSIX_ENABLE | 2);
}

/* The interrupt is a line, which the driver has to silence. */
static void use_line(void)
{
    for (u32 at = virtio.space[PCI_CAPABILITIES]; at; at = virtio.space[at + 1])
        if (virtio.space[at] == PCI_CAP_MSIX)
            space_put(at + MSIX_CONTROL, 2, 2);
    virtio.line = true;
}

static i64 model_hypercall(enum hypercall call, u64 a, u64 b, u64 c)
{
    u32 value = 0;

    assert_int_equal(call, HYPERCALL_PCI_READ);
    assert_true(b == 1 || b == 2 || b == 4);
    assert_int_equal(a % b, 0);
    if (a + b > sizeof(virtio.space))
        return -(i64)ERR_DENIED;
    memcpy(&value, virtio.space + a, b);
    return value;
}

/* Off, and on again: an ordinary device of this type, all structures in BAR 4. */
static void model_power_on(u32 type, u64 features, u32 queues)
{
    memset(&virtio, 0, sizeof(virtio));
    virtio.offered = features | VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM;
    virtio.queues = queues;
    virtio.config_length = 0x1000;
    virtio.config_vector = VIRTIO_MSI_NO_VECTOR;
    for (u32 i = 0; i < MODEL_QUEUES; i++)
        virtio.queue[i] = (struct model_queue){.size = 256, .most = 256, .vector = VIRTIO_MSI_NO_VECTOR};
    put_capability(VIRTIO_PCI_CAP_COMMON, 4, AT_COMMON, 0x1000);
    put_capability(VIRTIO_PCI_CAP_ISR, 4, AT_ISR, 0x1000);
    put_capability(VIRTIO_PCI_CAP_DEVICE, 4, AT_CONFIG, 0x1000);
    put_capability(VIRTIO_PCI_CAP_NOTIFY, 4, AT_NOTIFY, 0x1000);
    put_capability(VIRTIO_PCI_CAP_PCI, 0, 0, 0);
    put_msix();
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end),
                                .tsc_khz = 1000,
                                .interrupts = 1,
                                .pci_vendor = VIRTIO_PCI_VENDOR,
                                .pci_device = (u16)(VIRTIO_PCI_DEVICE_BASE + type)};
    info.bar[0] = (struct driver_bar){.address = MODEL_PORTS, .size = 32, .kind = DRIVER_BAR_PORTS};
    info.bar[4] = (struct driver_bar){.address = MODEL_BAR, .size = 0x4000, .kind = DRIVER_BAR_MEMORY};
    pci_command_register = 0x0100; /* SERR#: not ours to change */
    more_hypercalls = model_hypercall;
}

/* ---- registers (4.1.4.3) ---- */

#define IS(name)                                                                                                       \
    (offset == offsetof(struct virtio_pci_common_cfg, name) &&                                                         \
     width == sizeof(((struct virtio_pci_common_cfg *)0)->name))
/* 4.1.3.1: a field of 64 bits is two of 32. */
#define IS_HALF(name)                                                                                                  \
    (width == 4 && offset - offsetof(struct virtio_pci_common_cfg, name) < 8 &&                                        \
     offset >= offsetof(struct virtio_pci_common_cfg, name))

static struct model_queue *selected(void)
{
    assert_true(virtio.queue_select < virtio.queues);
    return &virtio.queue[virtio.queue_select];
}

static void model_reset(void)
{
    /* What a predecessor has set up is beyond the device's reach until it has forgotten it. */
    assert_false(pci_command_register & PCI_COMMAND_MASTER);
    virtio.resets++;
    virtio.lag = virtio.reset_lag;
    virtio.accepted = 0;
    virtio.config_vector = VIRTIO_MSI_NO_VECTOR;
    for (u32 i = 0; i < MODEL_QUEUES; i++)
        virtio.queue[i] = (struct model_queue){
            .size = virtio.queue[i].most, .most = virtio.queue[i].most, .vector = VIRTIO_MSI_NO_VECTOR};
    virtio.status = 0;
}

/* 3.1.1: one step after the other, none taken back. */
static void write_status(u32 value)
{
    static const u32 order[] = {0, 1, 3, 11, 15};

    if (value == 0) {
        model_reset();
        return;
    }
    if (value == (virtio.status | VIRTIO_STATUS_FAILED)) {
        virtio.status = value;
        return;
    }
    for (u32 i = 0; i + 1 < ARRAY_SIZE(order); i++)
        if (virtio.status == order[i])
            assert_int_equal(value, order[i + 1]);
    if (value & ~virtio.status & VIRTIO_STATUS_FEATURES_OK) {
        assert_int_equal(virtio.accepted & ~virtio.offered, 0); /* 2.2.1 */
        if (virtio.refuses)
            value &= ~VIRTIO_STATUS_FEATURES_OK;
    }
    if (value & VIRTIO_STATUS_DRIVER_OK)
        assert_true(pci_command_register & PCI_COMMAND_MASTER);
    virtio.status = value;
}

static void write_feature(u32 value)
{
    u32 shift = 32 * virtio.driver_select;

    assert_true(virtio.driver_select < 2);
    assert_int_equal(virtio.status, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    virtio.accepted = (virtio.accepted & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static void set_half(u64 *field, u32 half, u32 value)
{
    u32 shift = half ? 32 : 0;

    *field = (*field & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static void enable_queue(u32 value)
{
    struct model_queue *q = selected();

    assert_int_equal(value, 1);
    assert_true(virtio.status & VIRTIO_STATUS_FEATURES_OK);
    assert_false(virtio.status & VIRTIO_STATUS_DRIVER_OK);
    assert_true(q->size <= q->most && q->size && !(q->size & (q->size - 1)));
    assert_int_equal(q->desc % 16 + q->driver % 2 + q->device % 4, 0); /* 2.7 */
    q->enabled = 1;
}

static void common_write_model(u32 offset, u32 width, u32 value)
{
    if (IS(device_status))
        write_status(value);
    else if (IS(device_feature_select))
        virtio.device_select = value;
    else if (IS(driver_feature_select))
        virtio.driver_select = value;
    else if (IS(driver_feature))
        write_feature(value);
    else if (IS(config_msix_vector))
        virtio.config_vector = virtio.no_vectors ? VIRTIO_MSI_NO_VECTOR : (u16)value;
    else if (IS(queue_select))
        virtio.queue_select = value;
    else if (IS(queue_size))
        selected()->size = (u16)value;
    else if (IS(queue_msix_vector))
        selected()->vector = virtio.no_vectors ? VIRTIO_MSI_NO_VECTOR : (u16)value;
    else if (IS(queue_enable))
        enable_queue(value);
    else if (IS_HALF(queue_desc))
        set_half(&selected()->desc, offset & 4, value);
    else if (IS_HALF(queue_driver))
        set_half(&selected()->driver, offset & 4, value);
    else if (IS_HALF(queue_device))
        set_half(&selected()->device, offset & 4, value);
    else
        fail_msg("write of %u bytes at %02x of the common structure", width, offset);
}

static u32 common_read_model(u32 offset, u32 width)
{
    if (IS(device_status)) {
        if (virtio.status == 0 && (virtio.lag > 0 || virtio.never_reset)) {
            virtio.lag -= virtio.lag > 0;
            return VIRTIO_STATUS_ACKNOWLEDGE;
        }
        return virtio.status;
    }
    if (IS(device_feature))
        return (u32)(virtio.offered >> 32 * virtio.device_select);
    if (IS(num_queues))
        return virtio.queues;
    if (IS(config_msix_vector))
        return virtio.config_vector;
    if (IS(config_generation))
        return virtio.generation = (u8)(virtio.generation + virtio.restless);
    if (IS(queue_size))
        return selected()->size;
    if (IS(queue_msix_vector))
        return selected()->vector;
    if (IS(queue_notify_off))
        return virtio.queue_select + 1; /* not the queue's number, which it need not be */
    fail_msg("read of %u bytes at %02x of the common structure", width, offset);
    return 0;
}

u32 virtio_read(const struct virtio_area *area, u32 offset, u32 width)
{
    u64 at = area->address + offset - MODEL_BAR;
    u32 value = 0;

    assert_true(pci_command_register & PCI_COMMAND_MEMORY);
    assert_true(!area->ports && offset + width <= area->length);
    if (at < AT_ISR)
        return common_read_model((u32)at, width);
    if (at < AT_CONFIG) {
        assert_int_equal(width, 1);
        virtio.isr_reads++;
        return 0;
    }
    assert_true(at - AT_CONFIG + width <= sizeof(virtio.config) && at % width == 0);
    memcpy(&value, virtio.config + (at - AT_CONFIG), width);
    return value;
}

static struct virtq_avail *avail_of(struct model_queue *q)
{
    return (struct virtq_avail *)q->driver;
}

static struct virtq_used *used_of(struct model_queue *q)
{
    return (struct virtq_used *)q->device;
}

/* The runtime's way to wait for a register of 32 bits: of no use here, where each has its width. */
u32 mmio_read32(u64 address)
{
    fail_msg("32 bits are read at %llx, past virtio_read", (unsigned long long)address);
    return 0;
}

static void notify(u64 at, u32 width, u32 value)
{
    assert_int_equal(width, 2);
    assert_int_equal(at % NOTIFY_MULTIPLIER, 0);
    assert_int_equal(at / NOTIFY_MULTIPLIER, value + 1);
    assert_true(virtio.status & VIRTIO_STATUS_DRIVER_OK);
    assert_true(virtio.queue[value].enabled);
    assert_false(virtio.queue[value].awake); /* 2.7.10: it did not ask for that */
    virtio.kicks++;
    virtio.queue[value].awake = true;
    used_of(&virtio.queue[value])->flags = VIRTQ_USED_F_NO_NOTIFY;
    device_kick(value);
}

void virtio_write(const struct virtio_area *area, u32 offset, u32 width, u32 value)
{
    u64 at = area->address + offset;

    assert_true(offset + width <= area->length);
    assert_true(pci_command_register & (area->ports ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
    if (area->ports)
        notify(at - MODEL_PORTS, width, value);
    else if (at - MODEL_BAR < AT_ISR)
        common_write_model((u32)(at - MODEL_BAR), width, value);
    else
        notify(at - MODEL_BAR - AT_NOTIFY, width, value);
}

/* ---- queues (2.7) ---- */

static void add_part(struct model_chain *chain, const struct virtq_desc *part)
{
    assert_true(chain->count < CHAIN_MOST && part->len > 0);
    if (part->flags & VIRTQ_DESC_F_WRITE)
        memset((void *)part->addr, 0xee, part->len); /* it is ours to write, from the first byte to the last */
    else
        assert_int_equal(chain->readable++, chain->count); /* 2.7.4.2: all of these come first */
    chain->part[chain->count++] = *part;
}

/* 2.7.5: a chain in `table`, of which `entries` exist. */
static void walk(struct model_chain *chain, struct virtq_desc *table, u32 entries, u32 at)
{
    for (;;) {
        assert_true(at < entries);
        struct virtq_desc part = table[at];
        assert_int_equal(part.flags & ~(VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE), 0);
        add_part(chain, &part);
        if (!(part.flags & VIRTQ_DESC_F_NEXT))
            return;
        at = part.next;
    }
}

/* Take the next available chain. False: there is none, and the device sleeps until it is woken. */
static bool model_take(struct model_queue *q, struct model_chain *chain)
{
    struct virtq_avail *avail = avail_of(q);

    if (!q->awake)
        return false;
    assert_true(pci_command_register & PCI_COMMAND_MASTER);
    assert_true((u16)(avail->idx - q->taken) <= q->size);
    if (avail->idx == q->taken) {
        q->awake = false;
        used_of(q)->flags = 0;
        *(u16 *)&used_of(q)->ring[q->size] = q->taken;
        return false;
    }
    used_of(q)->flags = VIRTQ_USED_F_NO_NOTIFY;
    *chain = (struct model_chain){.head = avail->ring[q->taken++ % q->size]};
    assert_true(chain->head < q->size);
    struct virtq_desc *table = (struct virtq_desc *)q->desc, head = table[chain->head];
    if (head.flags & VIRTQ_DESC_F_INDIRECT) {
        assert_true(virtio.accepted & VIRTIO_F_INDIRECT_DESC);
        assert_int_equal(head.flags, VIRTQ_DESC_F_INDIRECT);
        assert_int_equal(head.len % sizeof(head), 0);
        walk(chain, (struct virtq_desc *)head.addr, head.len / sizeof(head), 0);
    } else {
        walk(chain, table, q->size, chain->head);
    }
    assert_true(chain->count <= q->size); /* 2.7.5.3.1 */
    return true;
}

static void raise_interrupt(const struct model_queue *q)
{
    if (info.interrupts && !virtio.line)
        assert_int_equal(q->vector, 0);
    virtio.interrupts++;
    virtio.news = true;
}

/* Say that the chain is used. 2.7.7.1, 2.7.10: and tell the driver, if it wants to hear of it. */
static void model_give(struct model_queue *q, u32 head, u32 length)
{
    struct virtq_used *used = used_of(q);
    u16 old = q->given++;

    used->ring[old % q->size] = (struct virtq_used_elem){.id = head, .len = length};
    used->idx = q->given;
    if (virtio.accepted & VIRTIO_F_EVENT_IDX) {
        assert_int_equal(avail_of(q)->flags, 0);
        if (virtq_need_event(avail_of(q)->ring[q->size], q->given, old))
            raise_interrupt(q);
    } else if (!(avail_of(q)->flags & VIRTQ_AVAIL_F_NO_INTERRUPT)) {
        raise_interrupt(q);
    }
}

/* Bytes of a chain's readable (from the first) or writable parts (from the first of these), from `offset` on. */
static u32 model_copy(const struct model_chain *chain, bool writable, u64 offset, void *buffer, u64 bytes)
{
    u8 *at = buffer;
    u64 left = bytes;

    for (u32 i = writable ? chain->readable : 0; i < (writable ? chain->count : chain->readable) && left > 0; i++) {
        u8 *part = (u8 *)chain->part[i].addr;
        u64 length = chain->part[i].len;
        if (offset >= length) {
            offset -= length;
            continue;
        }
        u64 step = length - offset < left ? length - offset : left;
        memcpy(writable ? part + offset : at, writable ? at : part + offset, step);
        at += step;
        left -= step;
        offset = 0;
    }
    return (u32)(bytes - left);
}

static u64 model_bytes(const struct model_chain *chain, bool writable)
{
    u64 bytes = 0;

    for (u32 i = writable ? chain->readable : 0; i < (writable ? chain->count : chain->readable); i++)
        bytes += chain->part[i].len;
    return bytes;
}
