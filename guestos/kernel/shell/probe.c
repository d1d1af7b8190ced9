#include "guestos/kernel/shell/probe.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "shared/lib/string.h"

#define STATUS_STARTED (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK)
#define MAX_SIZE 1024u

bool probe_open(struct probe *probe, struct blk *disk)
{
    *probe = (struct probe){0};
    probe->table = arena_alloc(MAX_SIZE * sizeof(struct virtq_desc), PAGE_SIZE);
    probe->avail = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    probe->used = arena_alloc(3 * PAGE_SIZE, PAGE_SIZE);
    probe->indirect = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    probe->header = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    probe->status = arena_alloc(PAGE_SIZE, PAGE_SIZE);
    probe->data = arena_alloc(PROBE_DATA_SIZE, PAGE_SIZE);
    if (probe->data == NULL)
        return false;
    probe->sectors = blk_get_info(disk)->sectors;
    probe->device = blk_release_device(disk);
    return probe->device != NULL;
}

const char *probe_start(struct probe *probe)
{
    return probe_start_with(probe, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC);
}

const char *probe_start_with(struct probe *probe, u64 features)
{
    u64 accepted;

    if (virtio_reset(probe->device) != OK)
        return "the device does not reset";
    if (virtio_negotiate(probe->device, features, &accepted) != OK)
        return "the device refuses its own features";
    VIRTIO_COMMON_WRITE(probe->device, config_msix_vector, VIRTIO_MSI_NO_VECTOR);
    VIRTIO_COMMON_WRITE(probe->device, queue_select, 0);
    VIRTIO_COMMON_WRITE(probe->device, queue_msix_vector, VIRTIO_MSI_NO_VECTOR);
    probe->size = (u16)VIRTIO_COMMON_READ(probe->device, queue_size);
    probe->notify_off = (u16)VIRTIO_COMMON_READ(probe->device, queue_notify_off);
    if (probe->size < 8 || probe->size > MAX_SIZE)
        return "the device offers a queue of less than 8 or more than 1024";
    probe_prepare_read(probe);
    return NULL;
}

void probe_prepare_read(struct probe *probe)
{
    memset(probe->table, 0, MAX_SIZE * sizeof(struct virtq_desc));
    memset(probe->avail, 0, PAGE_SIZE);
    memset(probe->used, 0, 3 * PAGE_SIZE);
    memset(probe->indirect, 0, PAGE_SIZE);
    *probe->header = (struct virtio_blk_req){VIRTIO_BLK_T_IN, 0, 0};
    *probe->status = 0xff;
    probe->table[0] = (struct virtq_desc){(u64)probe->header, sizeof(*probe->header), VIRTQ_DESC_F_NEXT, 1};
    probe->table[1] =
        (struct virtq_desc){(u64)probe->data, VIRTIO_BLK_SECTOR, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, 2};
    probe->table[2] = (struct virtq_desc){(u64)probe->status, 1, VIRTQ_DESC_F_WRITE, 0};
    probe->avail_idx = 1;
}

void probe_enable_queue(struct probe *probe)
{
    virtio_enable_queue(probe->device, (u64)probe->table, (u64)probe->avail, (u64)probe->used);
}

void probe_set_status(struct probe *probe, u32 status)
{
    VIRTIO_COMMON_WRITE(probe->device, device_status, status);
}

void probe_driver_ok(struct probe *probe)
{
    probe_set_status(probe, STATUS_STARTED | VIRTIO_STATUS_DRIVER_OK);
}

void probe_submit(struct probe *probe)
{
    __atomic_store_n(&probe->avail->idx, probe->avail_idx, __ATOMIC_SEQ_CST);
    virtio_notify(probe->device, probe->notify_off, 0);
}

enum probe_answer probe_watch(struct probe *probe, u64 us)
{
    u64 deadline = clock_us() + us;

    for (;;) {
        if ((VIRTIO_COMMON_READ(probe->device, device_status) & VIRTIO_STATUS_NEEDS_RESET) != 0)
            return PROBE_NEEDS_RESET;
        if (__atomic_load_n(&probe->used->idx, __ATOMIC_ACQUIRE) != 0)
            return PROBE_SERVED;
        if (clock_us() >= deadline || !console_sleep(1000))
            return PROBE_SILENT;
    }
}
