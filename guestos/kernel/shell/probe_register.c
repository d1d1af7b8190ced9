/* Probes that misuse the registers of the transport (VirtIO 1.2, 4.1.4). */
#include "guestos/kernel/shell/probe.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/mm/mix.h"

#define OUTSIDE_RAM (1ull << 45)
#define STORM_ACCESSES 4000u

static u16 read_queue_size(const struct probe *probe, u16 queue)
{
    VIRTIO_COMMON_WRITE(probe->device, queue_select, queue);
    return (u16)VIRTIO_COMMON_READ(probe->device, queue_size);
}

/* Whatever was done to it, an enabled queue must not have been served as if it were in order. */
static const char *expect_not_served(struct probe *probe)
{
    probe_driver_ok(probe);
    probe_submit(probe);
    return probe_watch(probe, PROBE_SILENCE_US) == PROBE_SERVED ? "the device served a request all the same" : NULL;
}

/* The queue must still be in order, or the device must say that it is not. */
static const char *expect_alive(struct probe *probe)
{
    probe_submit(probe);
    return probe_watch(probe, PROBE_ANSWER_US) == PROBE_SILENT ? "the device has gone silent" : NULL;
}

static const char *notify_disabled(struct probe *probe)
{
    const char *why = probe_start(probe);

    return why != NULL ? why : expect_not_served(probe);
}

static const char *common_width(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    for (u32 width = 1; width <= 4; width *= 2)
        for (u32 at = 0; at + width <= probe->device->common.length && at + width <= 64; at++) {
            u32 value = virtio_read(&probe->device->common, at, width);
            virtio_write(&probe->device->common, at, width, ~value);
        }
    return NULL; /* that it resets and works again is the rest of the answer */
}

static const char *driver_ok_early(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    probe_set_status(probe, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    VIRTIO_COMMON_WRITE(probe->device, queue_select, 0);
    probe_enable_queue(probe);
    probe_set_status(probe, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK);
    probe_submit(probe);
    return probe_watch(probe, PROBE_SILENCE_US) == PROBE_SERVED ? "a request was served without FEATURES_OK" : NULL;
}

/* Enable the queue with one of its three addresses replaced. */
static const char *with_addresses(struct probe *probe, u64 table, u64 avail, u64 used)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    virtio_enable_queue(probe->device, table != 0 ? table : (u64)probe->table, avail != 0 ? avail : (u64)probe->avail,
                        used != 0 ? used : (u64)probe->used);
    return expect_not_served(probe);
}

static const char *queue_table_outside(struct probe *probe)
{
    return with_addresses(probe, OUTSIDE_RAM, 0, 0);
}

static const char *queue_avail_outside(struct probe *probe)
{
    return with_addresses(probe, 0, OUTSIDE_RAM, 0);
}

static const char *queue_used_outside(struct probe *probe)
{
    return with_addresses(probe, 0, 0, OUTSIDE_RAM);
}

static const char *queue_overflow(struct probe *probe)
{
    return with_addresses(probe, 0, 0, ~0ull - 15);
}

static const char *queue_unaligned(struct probe *probe)
{
    return with_addresses(probe, 0, (u64)probe->avail + 1, (u64)probe->used + 2);
}

static const char *with_size(struct probe *probe, u16 size)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    VIRTIO_COMMON_WRITE(probe->device, queue_size, size);
    if (VIRTIO_COMMON_READ(probe->device, queue_size) != size)
        return NULL; /* not taken over: refused */
    probe_enable_queue(probe);
    return expect_not_served(probe);
}

static const char *queue_size_odd(struct probe *probe)
{
    return with_size(probe, 24);
}

static const char *queue_size_zero(struct probe *probe)
{
    return with_size(probe, 0);
}

static const char *queue_size_large(struct probe *probe)
{
    return with_size(probe, 32768);
}

static const char *queue_move(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    virtio_enable_queue(probe->device, OUTSIDE_RAM, OUTSIDE_RAM, OUTSIDE_RAM);
    VIRTIO_COMMON_WRITE(probe->device, queue_size, 8);
    return expect_alive(probe);
}

static const char *queue_select_range(struct probe *probe)
{
    static const u16 beyond[] = {0xffff, 0x8000, 512};
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    for (u32 i = 0; i < ARRAY_SIZE(beyond); i++) {
        if (read_queue_size(probe, beyond[i]) != 0) /* 4.1.4.3.1 */
            return "a queue that does not exist has a size";
        VIRTIO_COMMON_WRITE(probe->device, queue_size, 64);
        probe_enable_queue(probe);
    }
    VIRTIO_COMMON_WRITE(probe->device, queue_select, 0);
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    return expect_alive(probe);
}

static const char *features_unoffered(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    u64 offered = virtio_offered_features(probe->device);
    u64 invented = ~offered & (offered + 1); /* the lowest bit that was not offered */
    u64 chosen = VIRTIO_F_VERSION_1 | invented;
    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    probe_set_status(probe, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, 0);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature, (u32)chosen);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature_select, 1);
    VIRTIO_COMMON_WRITE(probe->device, driver_feature, (u32)(chosen >> 32));
    probe_set_status(probe, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
    u32 status = VIRTIO_COMMON_READ(probe->device, device_status);
    bool accepted = (status & VIRTIO_STATUS_FEATURES_OK) != 0 && (status & VIRTIO_STATUS_NEEDS_RESET) == 0;
    return accepted ? "FEATURES_OK with a feature that was never offered" : NULL;
}

static const char *notify_range(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    for (u32 at = 0; at + 4 <= probe->device->notify.length && at < 256; at++) {
        virtio_write(&probe->device->notify, at, 2, 0xffff);
        virtio_write(&probe->device->notify, at, 4, 0xffffffff);
        virtio_write(&probe->device->notify, at, 1, 0xff);
    }
    return expect_alive(probe);
}

static const char *msix_range(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    /* 4.1.5.1.2.1: a vector that cannot be mapped reads back as NO_VECTOR. */
    VIRTIO_COMMON_WRITE(probe->device, config_msix_vector, 0x7ff);
    VIRTIO_COMMON_WRITE(probe->device, queue_msix_vector, 0x7ff);
    if (VIRTIO_COMMON_READ(probe->device, config_msix_vector) != VIRTIO_MSI_NO_VECTOR ||
        VIRTIO_COMMON_READ(probe->device, queue_msix_vector) != VIRTIO_MSI_NO_VECTOR)
        return "a vector beyond the table was accepted";
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    return expect_alive(probe);
}

static const char *status_clear(struct probe *probe)
{
    const char *why = probe_start(probe);

    if (why != NULL)
        return why;
    probe_enable_queue(probe);
    probe_driver_ok(probe);
    probe_set_status(probe, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    probe_submit(probe); /* whether this is served is the device's choice */
    probe_watch(probe, PROBE_SILENCE_US);
    return NULL;
}

static const char *status_all(struct probe *probe)
{
    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    probe_set_status(probe, 0xff);
    virtio_notify(probe->device, 0, 0);
    return NULL;
}

/* Any access that the CPU can make to the four windows, at random but always the same. */
static const char *register_storm(struct probe *probe)
{
    const struct virtio_device *device = probe->device;
    const struct virtio_region *regions[] = {&device->common, &device->notify, &device->isr, &device->config};
    const char *why = probe_start(probe);
    u64 random = 1;

    if (why != NULL)
        return why;
    for (u32 i = 0; i < STORM_ACCESSES; i++) {
        u64 dice = mix_next(&random);
        const struct virtio_region *region = regions[dice % ARRAY_SIZE(regions)];
        u32 width = 1u << (dice >> 8) % 3;
        if (region->length < width)
            continue;
        u32 length = region->length < 256 ? region->length : 256;
        u32 at = (u32)((dice >> 16) % (length - width + 1));
        if ((dice >> 15 & 1) != 0)
            virtio_write(region, at, width, (u32)(dice >> 32));
        else
            virtio_read(region, at, width);
    }
    return NULL;
}

const struct probe_entry probe_register_entries[] = {
    {"notify-disabled", "a notification while no queue is enabled", "3.1.1", "the queue is not served",
     .run = notify_disabled},
    {"notify-range", "notifications of queues that do not exist, of all widths", "4.1.5.2", "the write is not taken",
     .run = notify_range},
    {"common-width", "all widths at all offsets of the common configuration", "4.1.3.1", "the write is not taken",
     .run = common_width},
    {"driver-ok-early", "DRIVER_OK without FEATURES_OK", "3.1.1", "the queue is not served", .run = driver_ok_early},
    {"status-clear", "status bits taken back", "2.1.1", "the write is not taken", .run = status_clear},
    {"status-all", "all status bits at once", "2.1.1", "harms the guest alone", .run = status_all},
    {"features-unoffered", "a feature that was not offered", "2.2.1", "FEATURES_OK reads 0", .run = features_unoffered},
    {"queue-table-outside", "a descriptor table outside RAM", "2.7", "the queue is not served",
     .run = queue_table_outside},
    {"queue-avail-outside", "an available ring outside RAM", "2.7", "the queue is not served",
     .run = queue_avail_outside},
    {"queue-used-outside", "a used ring outside RAM", "2.7", "the queue is not served", .run = queue_used_outside},
    {"queue-overflow", "a used ring across 2^64", "2.7", "the queue is not served", .run = queue_overflow},
    {"queue-unaligned", "rings at odd addresses", "2.7", "the queue is not served", .run = queue_unaligned},
    {"queue-size-odd", "a queue size that is no power of two", "4.1.4.3.2", "the queue is not served",
     .run = queue_size_odd},
    {"queue-size-zero", "a queue of size 0", "4.1.4.3.2", "the queue is not served", .run = queue_size_zero},
    {"queue-size-large", "a queue larger than offered", "4.1.4.3.2", "the queue is not served",
     .run = queue_size_large},
    {"queue-move", "addresses and size changed while the queue runs", "4.1.4.3.2", "the write is not taken",
     .run = queue_move},
    {"queue-select-range", "a queue that does not exist", "4.1.4.3.1", "the write is not taken",
     .run = queue_select_range},
    {"msix-range", "MSI-X vectors beyond the table", "4.1.5.1.2.1", "reads back as NO_VECTOR", .run = msix_range},
    {"register-storm", "4000 random accesses to all registers", "4.1.3.1", "harms the guest alone",
     .run = register_storm},
    {.name = NULL},
};
