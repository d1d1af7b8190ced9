#include "guestos/kernel/dev/virtio_console.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"
#include "shared/virtio/console.h"

#define WANTED_FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_ACCESS_PLATFORM)
#define QUEUE_SIZE 8u
#define MSIX_ENTRY 0u
#define CHECK_US 100000u /* how long to trust the device to interrupt */

static struct {
    struct virtio_device device;
    status_t error;
    bool running;
    struct virtqueue queue[VIRTIO_CONSOLE_QUEUES];
    u16 notify_off[VIRTIO_CONSOLE_QUEUES];
    u8 *received, *sent; /* QUEUE_SIZE buffers; one */
    u32 buffer, at, end; /* what of the received bytes was not taken yet: [at, end) of that buffer */
    volatile u64 interrupts;
} vcon = {.error = ERR_NOT_FOUND};

static void on_interrupt(void *context)
{
    (void)context;
    vcon.interrupts++;
}

static void kick(u16 index)
{
    if (virtqueue_must_notify(&vcon.queue[index]))
        virtio_notify(&vcon.device, vcon.notify_off[index], index);
}

static void offer_buffer(u32 index)
{
    struct virtqueue *queue = &vcon.queue[VIRTIO_CONSOLE_RECEIVE];
    struct virtqueue_part part = {(u64)(vcon.received + index * VCON_BUFFER_SIZE), VCON_BUFFER_SIZE, true};
    u16 head = virtqueue_peek_head(queue, 1);

    if (head != VIRTQUEUE_NONE) /* there are as many descriptors as buffers */
        virtqueue_add(queue, head, &part, 1, (void *)((u64)index + 1));
}

static status_t start_queue(u16 index, u64 features)
{
    struct virtqueue *queue = &vcon.queue[index];

    VIRTIO_COMMON_WRITE(&vcon.device, queue_select, index);
    VIRTIO_COMMON_WRITE(&vcon.device, queue_msix_vector, MSIX_ENTRY);
    if (VIRTIO_COMMON_READ(&vcon.device, queue_msix_vector) != MSIX_ENTRY)
        return ERR_NO_SPACE; /* 4.1.5.1.2.1 */
    if (VIRTIO_COMMON_READ(&vcon.device, queue_size) < QUEUE_SIZE)
        return ERR_FORMAT;
    if (queue->table == NULL && virtqueue_alloc_rings(queue, QUEUE_SIZE) != OK)
        return ERR_NO_MEMORY;
    VIRTIO_COMMON_WRITE(&vcon.device, queue_size, QUEUE_SIZE);
    virtqueue_start(queue, features);
    vcon.notify_off[index] = (u16)VIRTIO_COMMON_READ(&vcon.device, queue_notify_off);
    virtio_enable_queue(&vcon.device, (u64)queue->table, (u64)queue->avail, (u64)queue->used);
    return OK;
}

/* 3.1.1: the whole way from reset to DRIVER_OK. */
static status_t start(void)
{
    u64 features;
    status_t status = virtio_reset(&vcon.device);

    vcon.at = vcon.end = 0;
    if (status == OK)
        status = virtio_negotiate(&vcon.device, WANTED_FEATURES, &features);
    if (status == OK)
        VIRTIO_COMMON_WRITE(&vcon.device, config_msix_vector, VIRTIO_MSI_NO_VECTOR);
    for (u16 index = 0; index < VIRTIO_CONSOLE_QUEUES && status == OK; index++)
        status = start_queue(index, features);
    if (status != OK)
        return status;
    VIRTIO_COMMON_WRITE(&vcon.device, device_status,
                        VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
                            VIRTIO_STATUS_DRIVER_OK);
    for (u32 i = 0; i < QUEUE_SIZE; i++)
        offer_buffer(i);
    kick(VIRTIO_CONSOLE_RECEIVE);
    vcon.running = true;
    return OK;
}

static status_t open_device(void)
{
    status_t status = virtio_find(VIRTIO_ID_CONSOLE, 0, &vcon.device);

    if (status != OK)
        return status;
    u8 vector = interrupt_add_handler(on_interrupt, NULL);
    vcon.received = arena_alloc((u64)QUEUE_SIZE * VCON_BUFFER_SIZE, PAGE_SIZE);
    vcon.sent = arena_alloc(VCON_BUFFER_SIZE, PAGE_SIZE);
    if (vector == 0)
        return ERR_NO_SPACE;
    if (vcon.received == NULL || vcon.sent == NULL)
        return ERR_NO_MEMORY;
    virtio_set_msix(&vcon.device, MSIX_ENTRY, vector);
    return start();
}

void vcon_init(void)
{
    u64 mark = arena_mark();

    vcon.error = open_device();
    if (vcon.error != OK)
        arena_release(mark); /* a start that fails has not set DRIVER_OK */
}

status_t vcon_error(void)
{
    return vcon.error;
}

u64 vcon_interrupts(void)
{
    return vcon.interrupts;
}

status_t vcon_restart(void)
{
    vcon.running = false;
    return vcon.error == OK ? start() : vcon.error;
}

const struct virtio_device *vcon_release_device(void)
{
    vcon.running = false;
    return vcon.error == OK && virtio_reset(&vcon.device) == OK ? &vcon.device : NULL;
}

/* Until a chain of this queue has come back; its owner and length. */
static status_t wait_used(u16 index, u64 deadline_us, void **owner, u32 *length)
{
    struct virtqueue *queue = &vcon.queue[index];

    while (virtqueue_pending(queue) == 0) {
        u64 serial = interrupt_serial(), check = clock_us() + CHECK_US;
        background_run();
        if (uart_interrupted())
            return ERR_STATE;
        if (clock_us() >= deadline_us)
            return ERR_TIMEOUT;
        if ((VIRTIO_COMMON_READ(&vcon.device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0)
            return ERR_IO;
        if (!virtqueue_enable_interrupt(queue))
            clock_wait_until(serial, deadline_us < check ? deadline_us : check);
    }
    if (virtqueue_pending(queue) > queue->busy)
        return ERR_IO;
    struct virtq_used_elem entry = virtqueue_next_used(queue);
    if (entry.id >= queue->size || queue->slot[entry.id] != SLOT_BUSY)
        return ERR_IO;
    *owner = virtqueue_complete(queue, (u16)entry.id);
    *length = entry.len;
    return OK;
}

status_t vcon_send(const char *bytes, u32 size, u64 deadline_us)
{
    struct virtqueue *queue = &vcon.queue[VIRTIO_CONSOLE_TRANSMIT];
    struct virtqueue_part part = {(u64)vcon.sent, size, false};
    u32 length;
    void *owner;

    if (size == 0 || size > VCON_BUFFER_SIZE)
        return ERR_RANGE;
    u16 head = vcon.running ? virtqueue_peek_head(queue, 1) : VIRTQUEUE_NONE;
    if (head == VIRTQUEUE_NONE || queue->busy != 0)
        return ERR_IO; /* the one buffer is still the device's: an earlier call has given up */
    memcpy(vcon.sent, bytes, size);
    virtqueue_add(queue, head, &part, 1, NULL);
    kick(VIRTIO_CONSOLE_TRANSMIT);
    return wait_used(VIRTIO_CONSOLE_TRANSMIT, deadline_us, &owner, &length);
}

status_t vcon_receive(char *bytes, u32 size, u32 *received, u64 deadline_us)
{
    void *owner;

    if (!vcon.running)
        return ERR_IO;
    while (vcon.at == vcon.end) {
        u32 length;
        status_t status = wait_used(VIRTIO_CONSOLE_RECEIVE, deadline_us, &owner, &length);
        if (status != OK)
            return status;
        if (length > VCON_BUFFER_SIZE)
            return ERR_IO;
        vcon.buffer = (u32)((u64)owner - 1);
        vcon.at = 0;
        vcon.end = length;
        if (length == 0)
            offer_buffer(vcon.buffer);
    }
    *received = min_u32(size, vcon.end - vcon.at);
    memcpy(bytes, vcon.received + vcon.buffer * VCON_BUFFER_SIZE + vcon.at, *received);
    vcon.at += *received;
    if (vcon.at == vcon.end) {
        offer_buffer(vcon.buffer);
        kick(VIRTIO_CONSOLE_RECEIVE);
    }
    return OK;
}
