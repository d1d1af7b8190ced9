#include "guestos/kernel/dev/virtio_blk.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "shared/lib/string.h"

#define WANTED_FEATURES                                                                                                \
    (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_ACCESS_PLATFORM |                     \
     VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |     \
     VIRTIO_BLK_F_TOPOLOGY)
#define STATUS_PRESET 0xffu /* no status that a device may write */
#define QUEUE 0u
#define MSIX_CONFIG_ENTRY 0u
#define MSIX_QUEUE_ENTRY 1u
#define INTERRUPT_LATENCY_US 20000u
#define CHECK_US 100000u /* how long to trust the device to interrupt */

static struct virtio_device device;
static struct virtqueue queue;
static struct blk_info info;
static struct blk_counters counters;
static u16 notify_off;
static bool running; /* the device has our queue; false while a probe owns it */
static volatile u64 interrupts;
static volatile bool config_changed;

static void on_queue_interrupt(void)
{
    interrupts++;
}

static void on_config_interrupt(void)
{
    config_changed = true;
}

/* The configuration may change while it is read: the generation tells (2.5.1). */
static void read_config(void)
{
    u8 *bytes = (u8 *)&info.config;
    u32 size = sizeof(info.config) < device.config.length ? sizeof(info.config) : device.config.length;

    for (u32 attempt = 0; attempt < 4; attempt++) {
        u32 generation = VIRTIO_COMMON_READ(&device, config_generation);
        for (u32 i = 0; i < size; i++)
            bytes[i] = (u8)virtio_read(&device.config, i, 1);
        if (generation == VIRTIO_COMMON_READ(&device, config_generation))
            break;
    }
    info.sectors = info.config.capacity;
    info.max_segments = (info.features & VIRTIO_BLK_F_SEG_MAX) != 0 ? info.config.seg_max : 1;
    if (info.max_segments == 0)
        info.max_segments = 1;
    if (info.max_segments > BLK_MAX_SEGMENTS)
        info.max_segments = BLK_MAX_SEGMENTS;
    if (info.queue_size > 2 && info.max_segments > info.queue_size - 2)
        info.max_segments = info.queue_size - 2; /* no chain longer than the queue (2.7.5.3.1) */
    bool limited = (info.features & VIRTIO_BLK_F_SIZE_MAX) != 0 && info.config.size_max != 0;
    info.max_segment_bytes = limited ? info.config.size_max : ~0u;
}

/* 3.1.1: the whole way from reset to DRIVER_OK. Also the way back after a probe or an error. */
static status_t start(void)
{
    status_t status = virtio_reset(&device);
    if (status == OK)
        status = virtio_negotiate(&device, WANTED_FEATURES, &info.features);
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&device, config_msix_vector,
                        device.msix_vectors > 1 ? MSIX_CONFIG_ENTRY : VIRTIO_MSI_NO_VECTOR);
    VIRTIO_COMMON_WRITE(&device, queue_select, QUEUE);
    u16 entry = device.msix_vectors > 1 ? MSIX_QUEUE_ENTRY : 0;
    VIRTIO_COMMON_WRITE(&device, queue_msix_vector, entry);
    if (VIRTIO_COMMON_READ(&device, queue_msix_vector) != entry)
        return ERR_NO_SPACE; /* the device has no room for the mapping (4.1.5.1.2.1) */
    u32 offered = VIRTIO_COMMON_READ(&device, queue_size);
    if (queue.table == NULL) {
        if (offered < 4 || (offered & (offered - 1)) != 0)
            return ERR_FORMAT;
        status = virtqueue_alloc(&queue, (u16)(offered < VIRTQUEUE_MAX_SIZE ? offered : VIRTQUEUE_MAX_SIZE));
        if (status != OK)
            return status;
    } else if (offered < queue.size) {
        return ERR_STATE; /* a device that shrinks in a reset is not the one we knew */
    }
    info.queue_size = queue.size;
    VIRTIO_COMMON_WRITE(&device, queue_size, queue.size);
    virtqueue_start(&queue, info.features);
    notify_off = (u16)VIRTIO_COMMON_READ(&device, queue_notify_off);
    virtio_enable_queue(&device, (u64)queue.table, (u64)queue.avail, (u64)queue.used);
    VIRTIO_COMMON_WRITE(&device, device_status,
                        VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                            VIRTIO_STATUS_DRIVER_OK);
    read_config();
    running = true;
    return OK;
}

void blk_init(void)
{
    info.error = virtio_find(VIRTIO_ID_BLOCK, &device);
    if (info.error != OK)
        return;
    info.bdf = device.bdf;
    interrupt_set_handler(VECTOR_BLK_CONFIG, on_config_interrupt);
    interrupt_set_handler(VECTOR_BLK_QUEUE, on_queue_interrupt);
    if (device.msix_vectors > 1)
        virtio_set_msix(&device, MSIX_CONFIG_ENTRY, VECTOR_BLK_CONFIG);
    virtio_set_msix(&device, device.msix_vectors > 1 ? MSIX_QUEUE_ENTRY : 0, VECTOR_BLK_QUEUE);
    info.error = start();
    info.present = info.error == OK;
}

const struct blk_info *blk_get_info(void)
{
    return &info;
}

const struct blk_counters *blk_get_counters(void)
{
    counters.interrupts = interrupts;
    return &counters;
}

u32 blk_in_flight(void)
{
    return queue.busy;
}

status_t blk_submit(struct blk_request *request)
{
    struct virtqueue_part part[BLK_MAX_SEGMENTS + 2];
    u32 count = request->segments + 2;
    u64 bytes = 0;

    if (!running)
        return ERR_NOT_FOUND;
    if (request->segments > info.max_segments)
        return ERR_RANGE;
    for (u32 i = 0; i < request->segments; i++) {
        if (request->segment[i].length == 0 || request->segment[i].length > info.max_segment_bytes)
            return ERR_RANGE;
        part[i + 1] =
            (struct virtqueue_part){request->segment[i].address, request->segment[i].length, request->device_writes};
        bytes += request->segment[i].length;
    }
    u16 head = virtqueue_peek_head(&queue, count);
    if (head == VIRTQUEUE_NONE)
        return ERR_NO_SPACE;
    queue.headers[head] = (struct virtio_blk_req){request->type, 0, request->sector};
    queue.statuses[head] = STATUS_PRESET;
    part[0] = (struct virtqueue_part){(u64)&queue.headers[head], sizeof(struct virtio_blk_req), false};
    part[count - 1] = (struct virtqueue_part){(u64)&queue.statuses[head], 1, true};
    request->data_bytes = (u32)bytes;
    request->submitted_tsc = rdtsc();
    counters.requests++;
    virtqueue_add(&queue, head, part, count, request);
    return OK;
}

void blk_kick(void)
{
    u16 before = queue.kicked_idx;

    if (!running)
        return;
    if (virtqueue_must_notify(&queue)) {
        counters.notified++;
        virtio_notify(&device, notify_off, QUEUE);
    } else if (before != queue.kicked_idx) {
        counters.notify_suppressed++;
    }
}

/* Status and length say the same story, or neither is believed. 5.2.6.4, 2.7.8.2: length counts what the device wrote.
 */
static enum blk_result judge(const struct blk_request *request, u8 status, u32 length)
{
    u64 writable = (request->device_writes ? (u64)request->data_bytes : 0) + 1;

    if (length > writable)
        return BLK_PROTOCOL;
    if (status == VIRTIO_BLK_S_IOERR)
        return BLK_IO_ERROR;
    if (status == VIRTIO_BLK_S_UNSUPP)
        return BLK_UNSUPPORTED;
    return status == VIRTIO_BLK_S_OK && length == writable ? BLK_OK : BLK_PROTOCOL;
}

static void finish(struct blk_request *request, enum blk_result result)
{
    request->result = result;
    request->completed_tsc = rdtsc();
    counters.completions++;
    counters.io_errors += result == BLK_IO_ERROR;
    counters.unsupported += result == BLK_UNSUPPORTED;
    counters.protocol += result == BLK_PROTOCOL;
    request->done(request);
}

static void take_completion(struct virtq_used_elem entry)
{
    if (entry.id >= queue.size || queue.slot[entry.id] == SLOT_FRESH) {
        counters.unknown++;
        return;
    }
    if (queue.slot[entry.id] == SLOT_DONE) {
        counters.doubled++;
        return;
    }
    u16 head = (u16)entry.id;
    u8 status = queue.statuses[head];
    struct blk_request *request = virtqueue_complete(&queue, head);
    finish(request, judge(request, status, entry.len));
}

u32 blk_reap(void)
{
    u32 taken = 0;

    while (running) {
        u16 pending = virtqueue_pending(&queue);
        if (pending == 0)
            break;
        if (pending > queue.size) {
            /* No device may use more than the ring holds. Its index is worthless: take it as it is, believe no entry.
             */
            counters.protocol++;
            queue.used_idx = (u16)(queue.used_idx + pending);
            break;
        }
        take_completion(virtqueue_next_used(&queue));
        taken++;
    }
    return taken;
}

static void abort_all(void)
{
    running = false;
    for (u16 head = 0; head < queue.size; head++)
        if (queue.slot[head] == SLOT_BUSY)
            finish(virtqueue_complete(&queue, head), BLK_ABORTED);
}

static bool needs_reset(void)
{
    return (VIRTIO_COMMON_READ(&device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0;
}

/*
 * Something else woke us, and a completion is there although no interrupt has come since `seen`: it may be on its way,
 * so give it time. A device or hypervisor that loses interrupts would otherwise hide behind the timer tick.
 */
static void count_missed_interrupt(u64 seen)
{
    u64 patience = clock_us() + INTERRUPT_LATENCY_US;

    while (interrupts == seen && virtqueue_pending(&queue) != 0) {
        if (clock_us() >= patience) {
            counters.missed_interrupts++;
            return;
        }
        clock_wait_until(interrupt_serial(), patience);
    }
}

bool blk_wait(u64 deadline_us)
{
    while (running) {
        u64 serial = interrupt_serial(), seen = interrupts;
        background_run();
        if (blk_reap() != 0)
            return true;
        if (clock_us() >= deadline_us || uart_interrupted())
            return false;
        if (virtqueue_enable_interrupt(&queue))
            continue;
        u64 check = clock_us() + CHECK_US;
        clock_wait_until(serial, deadline_us < check ? deadline_us : check);
        count_missed_interrupt(seen);
        if (config_changed) {
            config_changed = false;
            if (needs_reset())
                return blk_restart() == OK;
            read_config();
        }
    }
    /* A device that could not be started again completes nothing: let the caller's time pass, not the CPU's. */
    clock_wait_until(interrupt_serial(), deadline_us);
    return false;
}

status_t blk_restart(void)
{
    if (!info.present)
        return ERR_NOT_FOUND;
    counters.resets++;
    /* First the device, so that nobody writes to a buffer that done() gives back. */
    running = false;
    status_t status = virtio_reset(&device);
    if (status != OK)
        return status;
    abort_all();
    return start();
}

const struct virtio_device *blk_release_device(void)
{
    if (!info.present)
        return NULL;
    running = false;
    if (virtio_reset(&device) != OK)
        return NULL;
    abort_all();
    return &device;
}
