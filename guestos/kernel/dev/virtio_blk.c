#include "guestos/kernel/dev/virtio_blk.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"
#include "shared/lib/string.h"

#define WANTED_FEATURES                                                                                                \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_ACCESS_PLATFORM |                     \
     VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |     \
     VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES)
#define STATUS_PRESET 0xffu /* no status that a device may write */
#define QUEUE 0u
#define FOLDER "/dev/"
#define MSIX_CONFIG_ENTRY 0u
#define MSIX_QUEUE_ENTRY 1u
#define INTERRUPT_LATENCY_US 20000u
#define CHECK_US 100000u /* how long to trust the device to interrupt */

struct blk {
    struct virtio_device device;
    struct virtqueue queue;
    struct blk_info info;
    struct blk_counters counters;
    u16 notify_off;
    bool running; /* the device has our queue; false while a probe owns it */
    u64 seen;     /* interrupts when the thread last looked for work */
    volatile u64 interrupts, config_interrupts;
    volatile bool config_changed;
};

static struct blk disks[BLK_MAX_DISKS];
static u32 disk_count;

static void on_queue_interrupt(void *context)
{
    struct blk *disk = context;

    disk->interrupts++;
}

static void on_config_interrupt(void *context)
{
    struct blk *disk = context;

    disk->config_interrupts++;
    disk->config_changed = true;
}

/* The configuration may change while it is read: the generation tells (2.5.1). */
static void read_config(struct blk *disk)
{
    const struct virtio_device *device = &disk->device;
    struct blk_info *info = &disk->info;
    u8 *bytes = (u8 *)&info->config;
    u32 size = sizeof(info->config) < device->config.length ? sizeof(info->config) : device->config.length;

    for (u32 attempt = 0; attempt < 4; attempt++) {
        u32 generation = VIRTIO_COMMON_READ(device, config_generation);
        for (u32 i = 0; i < size; i++)
            bytes[i] = (u8)virtio_read(&device->config, i, 1);
        if (generation == VIRTIO_COMMON_READ(device, config_generation))
            break;
    }
    info->sectors = info->config.capacity;
    info->max_segments = (info->features & VIRTIO_BLK_F_SEG_MAX) != 0 ? info->config.seg_max : 1;
    if (info->max_segments == 0)
        info->max_segments = 1;
    if (info->max_segments > BLK_MAX_SEGMENTS)
        info->max_segments = BLK_MAX_SEGMENTS;
    if (info->queue_size > 2 && info->max_segments > info->queue_size - 2)
        info->max_segments = info->queue_size - 2; /* no chain longer than the queue (2.7.5.3.1) */
    bool limited = (info->features & VIRTIO_BLK_F_SIZE_MAX) != 0 && info->config.size_max != 0;
    info->max_segment_bytes = limited ? info->config.size_max : ~0u;
}

/* 3.1.1: the whole way from reset to DRIVER_OK. Also the way back after a probe or an error. */
static status_t start(struct blk *disk)
{
    const struct virtio_device *device = &disk->device;
    struct virtqueue *queue = &disk->queue;
    status_t status = virtio_reset(device);
    if (status == OK)
        status = virtio_negotiate(device, WANTED_FEATURES, &disk->info.features);
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(device, config_msix_vector,
                        device->msix_vectors > 1 ? MSIX_CONFIG_ENTRY : VIRTIO_MSI_NO_VECTOR);
    VIRTIO_COMMON_WRITE(device, queue_select, QUEUE);
    u16 entry = device->msix_vectors > 1 ? MSIX_QUEUE_ENTRY : 0;
    VIRTIO_COMMON_WRITE(device, queue_msix_vector, entry);
    if (VIRTIO_COMMON_READ(device, queue_msix_vector) != entry)
        return ERR_NO_SPACE; /* the device has no room for the mapping (4.1.5.1.2.1) */
    u32 offered = VIRTIO_COMMON_READ(device, queue_size);
    if (queue->table == NULL) {
        if (offered < 4 || (offered & (offered - 1)) != 0)
            return ERR_FORMAT;
        status = virtqueue_alloc(queue, (u16)(offered < VIRTQUEUE_MAX_SIZE ? offered : VIRTQUEUE_MAX_SIZE));
        if (status != OK)
            return status;
    } else if (offered < queue->size) {
        return ERR_STATE; /* a device that shrinks in a reset is not the one we knew */
    }
    disk->info.queue_size = queue->size;
    VIRTIO_COMMON_WRITE(device, queue_size, queue->size);
    virtqueue_start(queue, disk->info.features);
    disk->notify_off = (u16)VIRTIO_COMMON_READ(device, queue_notify_off);
    virtio_enable_queue(device, (u64)queue->table, (u64)queue->avail, (u64)queue->used);
    VIRTIO_COMMON_WRITE(device, device_status,
                        VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                            VIRTIO_STATUS_DRIVER_OK);
    read_config(disk);
    disk->running = true;
    return OK;
}

/* Where the device has one vector only, it is the queue's. */
static status_t set_vectors(struct blk *disk)
{
    const struct virtio_device *device = &disk->device;
    u8 vector = interrupt_add_handler(on_queue_interrupt, disk);

    if (vector == 0)
        return ERR_NO_SPACE;
    virtio_set_msix(device, device->msix_vectors > 1 ? MSIX_QUEUE_ENTRY : 0, vector);
    if (device->msix_vectors == 1)
        return OK;
    vector = interrupt_add_handler(on_config_interrupt, disk);
    if (vector != 0)
        virtio_set_msix(device, MSIX_CONFIG_ENTRY, vector);
    return vector != 0 ? OK : ERR_NO_SPACE;
}

static void open_disk(u32 index)
{
    struct blk *disk = &disks[index];
    u64 mark = arena_mark();

    disk->info = (struct blk_info){.name = {'v', 'd', (char)('a' + index)}, .index = index};
    disk->info.error = virtio_find(VIRTIO_ID_BLOCK, index, &disk->device);
    disk->info.bdf = disk->device.bdf;
    if (disk->info.error == OK)
        disk->info.error = set_vectors(disk);
    if (disk->info.error == OK)
        disk->info.error = start(disk);
    disk->info.present = disk->info.error == OK;
    if (!disk->info.present)
        arena_release(mark); /* a start that fails has not enabled the queue */
}

void blk_init(void)
{
    u32 found = virtio_count(VIRTIO_ID_BLOCK);

    disk_count = found < BLK_MAX_DISKS ? found : BLK_MAX_DISKS;
    for (u32 i = 0; i < disk_count; i++)
        open_disk(i);
}

u32 blk_count(void)
{
    return disk_count;
}

struct blk *blk_get(u32 index)
{
    return index < disk_count ? &disks[index] : NULL;
}

const struct blk_info *blk_get_info(const struct blk *disk)
{
    return &disk->info;
}

struct blk_counters blk_get_counters(const struct blk *disk)
{
    struct blk_counters counters = disk->counters;

    counters.interrupts = disk->interrupts;
    counters.config_interrupts = disk->config_interrupts;
    return counters;
}

struct blk_counters blk_sum_counters(void)
{
    struct blk_counters sum = {0};

    for (u32 i = 0; i < disk_count; i++) {
        struct blk_counters counters = blk_get_counters(&disks[i]);
        for (u32 at = 0; at < sizeof(sum) / sizeof(u64); at++)
            ((u64 *)&sum)[at] += ((const u64 *)&counters)[at]; /* all members are u64 */
    }
    return sum;
}

u32 blk_in_flight(const struct blk *disk)
{
    return disk->queue.busy;
}

u32 blk_sum_in_flight(void)
{
    u32 sum = 0;

    for (u32 i = 0; i < disk_count; i++)
        sum += disks[i].queue.busy;
    return sum;
}

u32 blk_cut_segments(const struct blk *disk, const void *data, u32 bytes, struct blk_segment *segment)
{
    u32 limit = disk->info.max_segment_bytes & ~(VIRTIO_BLK_SECTOR - 1), count = 0;

    for (u32 at = 0; at < bytes && count < BLK_MAX_SEGMENTS; count++) {
        u32 length = bytes - at < limit ? bytes - at : limit;
        segment[count] = (struct blk_segment){(u64)data + at, length};
        at += length;
    }
    return count;
}

status_t blk_submit(struct blk *disk, struct blk_request *request)
{
    struct virtqueue *queue = &disk->queue;
    struct virtqueue_part part[BLK_MAX_SEGMENTS + 2];
    u32 count = request->segments + 2;
    u64 bytes = 0;

    if (!disk->running)
        return ERR_NOT_FOUND;
    if (request->segments > disk->info.max_segments)
        return ERR_RANGE;
    for (u32 i = 0; i < request->segments; i++) {
        if (request->segment[i].length == 0 || request->segment[i].length > disk->info.max_segment_bytes)
            return ERR_RANGE;
        part[i + 1] =
            (struct virtqueue_part){request->segment[i].address, request->segment[i].length, request->device_writes};
        bytes += request->segment[i].length;
    }
    u16 head = virtqueue_peek_head(queue, count);
    if (head == VIRTQUEUE_NONE)
        return ERR_NO_SPACE;
    queue->headers[head] = (struct virtio_blk_req){request->type, 0, request->sector};
    queue->statuses[head] = STATUS_PRESET;
    part[0] = (struct virtqueue_part){(u64)&queue->headers[head], sizeof(struct virtio_blk_req), false};
    part[count - 1] = (struct virtqueue_part){(u64)&queue->statuses[head], 1, true};
    request->data_bytes = (u32)bytes;
    request->submitted_tsc = rdtsc();
    disk->counters.requests++;
    virtqueue_add(queue, head, part, count, request);
    return OK;
}

void blk_kick(struct blk *disk)
{
    struct virtqueue *queue = &disk->queue;
    u16 before = queue->kicked_idx;

    if (!disk->running)
        return;
    if (virtqueue_must_notify(queue)) {
        disk->counters.notified++;
        virtio_notify(&disk->device, disk->notify_off, QUEUE);
    } else if (before != queue->kicked_idx) {
        disk->counters.notify_suppressed++;
    }
}

/* What the device may write: data, if it is asked for, and the status. */
static u64 room(const struct blk_request *request)
{
    return (request->device_writes ? (u64)request->data_bytes : 0) + 1;
}

/* Status and length say the same story, or neither is believed. 5.2.6.4, 2.7.8.2: length counts what the device wrote.
 */
static enum blk_result judge(const struct blk_request *request, u8 status, u32 length)
{
    u64 writable = room(request);

    if (length > writable)
        return BLK_PROTOCOL;
    if (status == VIRTIO_BLK_S_IOERR)
        return BLK_IO_ERROR;
    if (status == VIRTIO_BLK_S_UNSUPP)
        return BLK_UNSUPPORTED;
    return status == VIRTIO_BLK_S_OK && length == writable ? BLK_OK : BLK_PROTOCOL;
}

static void finish(struct blk *disk, struct blk_request *request, enum blk_result result)
{
    request->result = result;
    request->completed_tsc = rdtsc();
    disk->counters.completions++;
    disk->counters.io_errors += result == BLK_IO_ERROR;
    disk->counters.unsupported += result == BLK_UNSUPPORTED;
    disk->counters.protocol += result == BLK_PROTOCOL;
    request->done(request);
}

static void take_completion(struct blk *disk, struct virtq_used_elem entry)
{
    struct virtqueue *queue = &disk->queue;

    if (entry.id >= queue->size || queue->slot[entry.id] == SLOT_FRESH) {
        disk->counters.unknown++;
        return;
    }
    if (queue->slot[entry.id] == SLOT_DONE) {
        disk->counters.doubled++;
        return;
    }
    u16 head = (u16)entry.id;
    u8 status = queue->statuses[head];
    struct blk_request *request = virtqueue_complete(queue, head);
    enum blk_result result = judge(request, status, entry.len);
    disk->counters.implausible += result == BLK_PROTOCOL && entry.len <= room(request);
    finish(disk, request, result);
}

static u32 reap(struct blk *disk)
{
    struct virtqueue *queue = &disk->queue;
    u32 taken = 0;

    while (disk->running) {
        u16 pending = virtqueue_pending(queue);
        if (pending == 0)
            break;
        if (pending > queue->size) {
            /* No device may use more than the ring holds. Its index is worthless: take it as it is, believe no entry.
             */
            disk->counters.protocol++;
            queue->used_idx = (u16)(queue->used_idx + pending);
            break;
        }
        take_completion(disk, virtqueue_next_used(queue));
        taken++;
    }
    return taken;
}

static void abort_all(struct blk *disk)
{
    disk->running = false;
    for (u16 head = 0; head < disk->queue.size; head++)
        if (disk->queue.slot[head] == SLOT_BUSY)
            finish(disk, virtqueue_complete(&disk->queue, head), BLK_ABORTED);
}

/*
 * Something else woke us, and a completion is there although no interrupt has come since the thread looked: it may be
 * on its way, so give it time. A device or hypervisor that loses interrupts would otherwise hide behind the timer tick,
 * or behind another disk's interrupts.
 */
static void count_missed_interrupt(struct blk *disk)
{
    u64 patience = clock_us() + INTERRUPT_LATENCY_US;

    while (disk->interrupts == disk->seen && virtqueue_pending(&disk->queue) != 0) {
        if (clock_us() >= patience) {
            disk->counters.missed_interrupts++;
            return;
        }
        clock_wait_until(interrupt_serial(), patience);
    }
}

/* True when the device wanted to be reset and was: requests are done() then. */
static bool follow_config(struct blk *disk)
{
    disk->config_changed = false;
    if ((VIRTIO_COMMON_READ(&disk->device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0)
        return blk_restart(disk) == OK;
    read_config(disk);
    return false;
}

struct blk *blk_find(const char *name)
{
    if (strncmp(name, FOLDER, sizeof(FOLDER) - 1) == 0)
        name += sizeof(FOLDER) - 1;
    for (u32 i = 0; i < disk_count; i++)
        if (strcmp(disks[i].info.name, name) == 0) {
            /* What it said while nobody waited for it: a caller looks at the capacity before it submits anything. */
            if (disks[i].running && disks[i].config_changed)
                (void)follow_config(&disks[i]);
            return &disks[i];
        }
    return NULL;
}

static u32 reap_all(void)
{
    u32 taken = 0;

    for (u32 i = 0; i < disk_count; i++)
        taken += reap(&disks[i]);
    return taken;
}

/* True when completions are waiting already. */
static bool enable_interrupts(void)
{
    bool waiting = false;

    for (u32 i = 0; i < disk_count; i++)
        waiting |= disks[i].running && virtqueue_enable_interrupt(&disks[i].queue);
    return waiting;
}

bool blk_wait(u64 deadline_us)
{
    for (;;) {
        u64 serial = interrupt_serial();
        for (u32 i = 0; i < disk_count; i++)
            disks[i].seen = disks[i].interrupts;
        background_run();
        if (reap_all() != 0)
            return true;
        if (clock_us() >= deadline_us || uart_interrupted())
            return false;
        if (enable_interrupts())
            continue;
        u64 check = clock_us() + CHECK_US;
        clock_wait_until(serial, deadline_us < check ? deadline_us : check);
        bool reset = false;
        for (u32 i = 0; i < disk_count; i++) {
            if (!disks[i].running)
                continue;
            count_missed_interrupt(&disks[i]);
            reset |= disks[i].config_changed && follow_config(&disks[i]);
        }
        if (reset)
            return true;
    }
}

status_t blk_restart(struct blk *disk)
{
    if (!disk->info.present)
        return ERR_NOT_FOUND;
    disk->counters.resets++;
    /* First the device, so that nobody writes to a buffer that done() gives back. */
    disk->running = false;
    status_t status = virtio_reset(&disk->device);
    if (status != OK)
        return status;
    abort_all(disk);
    return start(disk);
}

status_t blk_restart_all(void)
{
    status_t first = OK;

    for (u32 i = 0; i < disk_count; i++) {
        status_t status = disks[i].info.present ? blk_restart(&disks[i]) : OK;
        if (first == OK)
            first = status;
    }
    return first;
}

const struct virtio_device *blk_release_device(struct blk *disk)
{
    if (!disk->info.present)
        return NULL;
    disk->running = false;
    if (virtio_reset(&disk->device) != OK)
        return NULL;
    abort_all(disk);
    return &disk->device;
}
