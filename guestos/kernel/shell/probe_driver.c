/*
 * Probes that break what VirtIO 1.2 says a driver does, and when: steps left out or repeated, registers that are not a
 * driver's to write, memory that changes under the device's hands.
 */
#include "guestos/kernel/shell/probe.h"

#include "guestos/kernel/dev/console.h"
#include "shared/lib/string.h"
#include "shared/pci/ports.h"
#include "shared/x86/io.h"

#define OUTSIDE_RAM (1ull << 45)
#define STARTED (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER)
#define LONG_CHAIN 200u         /* more than any queue of ours has entries, less than a page holds */
#define MANY_BYTES MIB(200)     /* inside the smallest guest's memory: 30 of them are more than 4 GiB */
#define CONFIG_SPACE_PORTS 0xcu /* the ports 0xcXX, in the upper byte of a BAR: 0xcf8 is among them */
#define STORM 2000u

/* The request must be served, or the device say that it is broken; silence would be a device that hangs. */
static const char *expect_alive(struct probe *probe)
{
    probe_submit(probe);
    return probe_watch(probe, PROBE_ANSWER_US) == PROBE_SILENT ? "the device has gone silent" : NULL;
}

static const char *expect_served(struct probe *probe)
{
    probe_submit(probe);
    if (probe_watch(probe, PROBE_ANSWER_US) != PROBE_SERVED)
        return "a correct request was not served";
    return *probe->status == VIRTIO_BLK_S_OK ? NULL : "a correct request failed";
}

/* Up to DRIVER_OK, with a correct request ready in the queue. */
static const char *run_queue(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why == NULL) {
        probe_enable_queue(probe);
        probe_driver_ok(probe);
    }
    return why;
}

/* ---- chains ---- */

static const char *indirect_unoffered(struct probe *probe)
{
    const char *why = probe_start_with(probe, VIRTIO_F_VERSION_1);

    if (why != NULL)
        return why;
    memcpy(probe->indirect, probe->table, 3 * sizeof(struct virtq_desc));
    probe->table[0] = (struct virtq_desc){(u64)probe->indirect, 3 * 16, VIRTQ_DESC_F_INDIRECT, 0};
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_submit(probe);
    return probe_watch(probe, PROBE_ANSWER_US) == PROBE_NEEDS_RESET ? NULL
                                                                    : "the device does not say that it is broken";
}

/* `count` readable segments of so many bytes behind the header. */
static void long_indirect(struct probe *p, u16 count, u64 bytes)
{
    p->indirect[0] = p->table[0];
    for (u16 i = 1; i < count; i++)
        p->indirect[i] = (struct virtq_desc){MIB(1), (u32)bytes, VIRTQ_DESC_F_NEXT, (u16)(i + 1)};
    p->indirect[count] = (struct virtq_desc){(u64)p->status, 1, VIRTQ_DESC_F_WRITE, 0};
    p->table[0] = (struct virtq_desc){(u64)p->indirect, (count + 1u) * 16, VIRTQ_DESC_F_INDIRECT, 0};
}

static void break_chain_long(struct probe *p)
{
    long_indirect(p, LONG_CHAIN, 512);
}

static void break_chain_bytes(struct probe *p)
{
    long_indirect(p, 30, MANY_BYTES);
}

static const char *head_twice(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    probe->avail->ring[1] = 0;
    probe->avail_idx = 2;
    return expect_alive(probe);
}

/* The device has copied the chain, or it has not looked yet; it must not look twice. */
static const char *chain_changes(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    probe_submit(probe);
    for (u32 i = 0; i < 3; i++)
        probe->table[i] = (struct virtq_desc){OUTSIDE_RAM, 0xfffffff0u, VIRTQ_DESC_F_NEXT, 0xffff};
    return probe_watch(probe, PROBE_ANSWER_US) == PROBE_SILENT ? "the device has gone silent" : NULL;
}

/* The disk's data go over the descriptors and over the available ring. */
static const char *buffer_is_ring(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    probe->table[1].addr = (u64)probe->table;
    probe_submit(probe);
    probe_watch(probe, PROBE_SILENCE_US);
    why = run_queue(probe);
    if (why != NULL)
        return why;
    probe->table[1].addr = (u64)probe->avail;
    probe_submit(probe);
    probe_watch(probe, PROBE_SILENCE_US);
    return NULL;
}

static const char *rings_overlap(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    virtio_enable_queue(probe->device, (u64)probe->table, (u64)probe->table, (u64)probe->table);
    probe_driver_ok(probe);
    virtio_notify(probe->device, probe->notify_off, 0);
    console_sleep(PROBE_SILENCE_US);
    return NULL;
}

static const char *flags_reserved(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    for (u32 i = 0; i < 3; i++)
        probe->table[i].flags |= 0xfff8;
    probe->avail->flags = 0xfffe;
    return expect_alive(probe);
}

static const char *event_index(struct probe *probe)
{
    const char *why = probe_start_with(probe, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);

    if (why != NULL)
        return why;
    probe->avail->ring[probe->size] = 0x8000; /* used_event (2.7.7): half the index space away */
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    return expect_served(probe);
}

/* ---- steps ---- */

static u32 read_status(const struct probe *probe)
{
    return VIRTIO_COMMON_READ(probe->device, device_status);
}

static const char *features_late(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    for (u32 half = 0; half < 2; half++) {
        VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, half);
        u32 before = VIRTIO_COMMON_READ(probe->device, driver_feature);
        VIRTIO_COMMON_WRITE(probe->device, driver_feature, ~before);
        if (VIRTIO_COMMON_READ(probe->device, driver_feature) != before)
            return "features changed after FEATURES_OK";
    }
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    return expect_served(probe);
}

/* What FEATURES_OK says after these features and this status. */
static const char *expect_features_refused(struct probe *probe, u32 status, u32 low, u32 high)
{
    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    probe_set_status(probe, status);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, 0);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature, low);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, 1);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature, high);
    probe_set_status(probe, status | VIRTIO_STATUS_FEATURES_OK);
    return (read_status(probe) & VIRTIO_STATUS_FEATURES_OK) != 0 ? "FEATURES_OK was taken" : NULL;
}

static const char *version_missing(struct probe *probe)
{
    return expect_features_refused(probe, STARTED, 0, 0);
}

static const char *features_without_driver(struct probe *probe)
{
    return expect_features_refused(probe, VIRTIO_STATUS_ACKNOWLEDGE, 0, (u32)(VIRTIO_F_VERSION_1 >> 32));
}

static const char *queue_disable(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    VIRTIO_COMMON_WRITE(probe->device, queue_enable, 0);
    if (VIRTIO_COMMON_READ(probe->device, queue_enable) != 1)
        return "a running queue was disabled";
    return expect_served(probe);
}

static const char *queue_enable_odd(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    VIRTIO_COMMON_WRITE(probe->device, queue_enable, 2);
    probe_driver_ok(probe);
    probe_submit(probe);
    return probe_watch(probe, PROBE_SILENCE_US) == PROBE_SERVED ? "a queue was enabled by a 2" : NULL;
}

static const char *reset_hasty(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    probe_submit(probe);
    for (u32 i = 0; i < 5; i++)
        probe_set_status(probe, 0);
    /* Without a look at the status, which may not be 0 yet: what is written now may be taken or not. */
    probe_set_status(probe, STARTED);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, 1);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature, (u32)(VIRTIO_F_VERSION_1 >> 32));
    probe_set_status(probe, STARTED | VIRTIO_STATUS_FEATURES_OK);
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_submit(probe);
    probe_watch(probe, PROBE_SILENCE_US);
    return NULL;
}

static void break_head(struct probe *p)
{
    p->avail->ring[0] = (u16)(p->size + 1);
}

static const char *broken_goes_on(struct probe *probe)
{
    const char *why = probe_expect_needs_reset(probe, break_head);

    if (why != NULL)
        return why;
    probe_prepare_read(probe);
    probe_driver_ok(probe);
    probe_enable_queue(probe);
    probe_submit(probe);
    console_sleep(PROBE_SILENCE_US);
    if (((volatile struct virtq_used *)probe->used)->idx != 0)
        return "a broken device served a request";
    return (read_status(probe) & VIRTIO_STATUS_NEEDS_RESET) != 0 ? NULL
                                                                 : "DEVICE_NEEDS_RESET went away without a reset";
}

static const char *notify_storm(struct probe *probe)
{
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    for (u32 i = 0; i < STORM; i++)
        virtio_notify(probe->device, probe->notify_off, 0);
    return expect_served(probe);
}

/* ---- registers that are not the driver's ---- */

static const char *read_only(struct probe *probe)
{
    static const struct {
        u8 offset, width;
    } fields[] = {{offsetof(struct virtio_pci_common_cfg, device_feature), 4},
                  {offsetof(struct virtio_pci_common_cfg, num_queues), 2},
                  {offsetof(struct virtio_pci_common_cfg, config_generation), 1},
                  {offsetof(struct virtio_pci_common_cfg, queue_notify_off), 2}};
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    for (u32 i = 0; i < ARRAY_SIZE(fields); i++) {
        u32 before = virtio_read(&probe->device->common, fields[i].offset, fields[i].width);
        virtio_write(&probe->device->common, fields[i].offset, fields[i].width, ~before);
        if (virtio_read(&probe->device->common, fields[i].offset, fields[i].width) != before)
            return "a read-only register was written";
    }
    virtio_write(&probe->device->isr, 0, 1, 0xff);
    return (virtio_read(&probe->device->isr, 0, 1) & ~1u) != 0 ? "the ISR status was written" : expect_served(probe);
}

static const char *config_width(struct probe *probe)
{
    const struct virtio_region *config = &probe->device->config;
    static u8 before[256];
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    u32 length = config->length < sizeof(before) ? config->length : (u32)sizeof(before);
    for (u32 at = 0; at < length; at++)
        before[at] = (u8)virtio_read(config, at, 1);
    for (u32 width = 1; width <= 4; width *= 2)
        for (u32 at = 0; at + width <= length; at++)
            virtio_write(config, at, width, 0x5a5a5a5a);
    for (u32 at = 0; at < length; at++)
        if ((u8)virtio_read(config, at, 1) != before[at])
            return "the device's configuration was written";
    return expect_served(probe);
}

/* ---- PCI ---- */

static const char *msix_garbage(struct probe *probe)
{
    volatile u32 *entry = (volatile u32 *)probe->device->msix_table;
    const u32 kept[4] = {entry[0], entry[1], entry[2], entry[3]};
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    VIRTIO_COMMON_WRITE(probe->device, queue_msix_vector, 0);
    entry[0] = 0xdead0000u; /* no local APIC */
    entry[1] = 0xffffffffu;
    entry[2] = 0xffffffffu;
    entry[3] = 0;
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    why = expect_served(probe);
    for (u32 i = 0; i < 4; i++)
        entry[i] = kept[i];
    return why;
}

static const char *decoding_off(struct probe *probe)
{
    u16 command = pci_read16(probe->device->bdf, PCI_COMMAND);
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    pci_write16(probe->device->bdf, PCI_COMMAND, (u16)(command & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY)));
    probe_set_status(probe, 0);
    bool gone = read_status(probe) == 0xff;
    pci_write16(probe->device->bdf, PCI_COMMAND, command);
    if (!gone)
        return "registers answered with decoding off";
    return read_status(probe) == 0 ? "registers were written with decoding off" : expect_served(probe);
}

/* Over the ports by which the BAR was moved: it must be possible to move it back. */
static const char *bar_over_config(struct probe *probe)
{
    u16 bdf = probe->device->bdf;
    u32 kept = pci_read32(bdf, PCI_BAR0);
    const char *why = run_queue(probe);

    if (why != NULL)
        return why;
    io_out32(pci_port_select(bdf, PCI_BAR0), CONFIG_SPACE_PORTS << 8);
    bool gone = read_status(probe) == 0xff;
    io_out32(pci_port_select(bdf, PCI_BAR0), kept);
    if (pci_read32(bdf, PCI_BAR0) != kept)
        return "the BAR cannot be moved back";
    return gone ? expect_served(probe) : "registers answered where the BAR was";
}

const struct probe_entry probe_driver_entries[] = {
    {"indirect-unoffered", "an indirect descriptor without the feature", "2.7.5.3.1",
     "the device stops and says DEVICE_NEEDS_RESET", .run = indirect_unoffered},
    {"chain-long", "a chain longer than the queue", "2.7.5.3.1", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_chain_long},
    {"chain-bytes", "a chain of more than 4 GiB", "2.7.5.2", "the device stops and says DEVICE_NEEDS_RESET",
     .expect = probe_expect_needs_reset, .break_rule = break_chain_bytes},
    {"head-twice", "a chain made available twice", "2.7.13", "harms the guest alone", .run = head_twice},
    {"chain-changes", "descriptors changed after they were made available", "2.7.13", "the chain is read once",
     .run = chain_changes},
    {"buffer-is-ring", "a buffer in the descriptor table and in the available ring", "2.7.13", "harms the guest alone",
     .run = buffer_is_ring},
    {"rings-overlap", "the three parts of a queue in one place", "2.7", "harms the guest alone", .run = rings_overlap},
    {"flags-reserved", "flags that do not exist", "2.7.5", "they are ignored", .run = flags_reserved},
    {"event-index", "a used_event half the index space away", "2.7.7", "the request is served", .run = event_index},
    {"features-late", "features after FEATURES_OK", "3.1.1", "the write is not taken", .run = features_late},
    {"version-missing", "FEATURES_OK without VERSION_1", "6.1", "FEATURES_OK reads 0", .run = version_missing},
    {"features-early", "FEATURES_OK without DRIVER", "3.1.1", "FEATURES_OK reads 0", .run = features_without_driver},
    {"queue-disable", "0 written to queue_enable", "4.1.4.3.2", "the write is not taken", .run = queue_disable},
    {"queue-enable-odd", "2 written to queue_enable", "4.1.4.3", "the write is not taken", .run = queue_enable_odd},
    {"reset-hasty", "resets one after the other with a request in flight, and no look at the status", "4.1.4.3.2",
     "harms the guest alone", .run = reset_hasty},
    {"broken-goes-on", "requests after DEVICE_NEEDS_RESET", "2.1.2", "nothing is served before a reset",
     .run = broken_goes_on},
    {"notify-storm", "2000 notifications of nothing", "4.1.5.2", "the next request is served", .run = notify_storm},
    {"read-only", "writes to registers that a driver reads", "4.1.4.3.2", "the write is not taken", .run = read_only},
    {"config-width", "writes of all widths to all of the device's configuration", "5.2.4", "the write is not taken",
     .run = config_width},
    {"msix-garbage", "an interrupt message to nowhere", "4.1.5.1.2", "harms the guest alone", .run = msix_garbage},
    {"decoding-off", "registers with I/O decoding off", "4.1.1", "they read all ones", .run = decoding_off},
    {"bar-over-config", "a BAR over the ports of configuration space", "4.1.1", "configuration space stays in reach",
     .run = bar_over_config},
    {.name = NULL},
};
