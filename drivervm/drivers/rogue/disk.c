/* A disk in this VM's RAM, done right: what the attempts then spoil. It forgets everything when the VM restarts. */
#include "drivervm/drivers/rogue/rogue.h"
#include "shared/lib/string.h"
#include "shared/virtio/blk.h"

#define QUEUE_SIZE 64u

struct disk_request disk_held[DISK_HELD];
u32 disk_held_count;
static u8 store[DISK_SECTORS * VIRTIO_BLK_SECTOR];

const struct driver_offer disk_offer = {.virtio_type = VIRTIO_ID_BLOCK,
                                        .queues = 1,
                                        .features = VIRTIO_BLK_F_FLUSH,
                                        .queue_size = QUEUE_SIZE,
                                        .config_length = sizeof(u64),
                                        .config = {[0] = DISK_SECTORS & 0xff, [1] = DISK_SECTORS >> 8},
                                        .error_length = 1,
                                        .error = {VIRTIO_BLK_S_IOERR}};

void disk_take(struct ring *ring, const struct ring_header_cell *header)
{
    DRIVER_CHECK(disk_held_count < DISK_HELD); /* QUEUE_SIZE: there cannot be more */
    struct disk_request *request = &disk_held[disk_held_count++];

    *request = (struct disk_request){
        .ring = ring, .tag = header->tag, .segments = header->segments, .readable = header->readable};
    ring_take(ring, header, request->segment);
    for (u32 i = request->readable; i < request->segments; i++)
        request->written += request->segment[i].length;
}

/* Between the store and the segments [first, end); false: beyond the disk's end. */
static bool move(const struct disk_request *request, u32 first, u32 end, u64 sector, bool to_store)
{
    u64 at = sector * VIRTIO_BLK_SECTOR;

    for (u32 i = first; i < end; i++) {
        const struct ring_segment_cell *segment = &request->segment[i];
        if (sector > DISK_SECTORS || segment->length > sizeof(store) - at)
            return false;
        if (to_store)
            memcpy(store + at, (const void *)segment->address, segment->length);
        else
            memcpy((void *)segment->address, store + at, segment->length);
        at += segment->length;
    }
    return true;
}

/* guestos puts header and status byte into segments of their own (VirtIO 1.2 5.2.6 would allow others). */
static const struct virtio_blk_req *header_of(const struct disk_request *request)
{
    bool usual = request->readable > 0 && request->readable < request->segments &&
                 request->segment[0].length == sizeof(struct virtio_blk_req) &&
                 request->segment[request->segments - 1].length == 1;

    return usual ? (const struct virtio_blk_req *)request->segment[0].address : NULL;
}

void disk_execute(const struct disk_request *request)
{
    const struct virtio_blk_req *header = header_of(request);
    u32 last = request->segments - 1u;
    bool ok = header != NULL;

    if (request->readable == request->segments)
        return; /* there is nowhere to say so */
    if (ok && header->type == VIRTIO_BLK_T_IN)
        ok = move(request, request->readable, last, header->sector, false);
    else if (ok && header->type == VIRTIO_BLK_T_OUT)
        ok = move(request, 1, request->readable, header->sector, true);
    else
        ok = ok && header->type == VIRTIO_BLK_T_FLUSH;
    *(u8 *)(request->segment[last].address + request->segment[last].length - 1) =
        ok ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

void disk_serve(bool reversed)
{
    for (u32 i = 0; i < disk_held_count; i++) {
        const struct disk_request *request = &disk_held[reversed ? disk_held_count - 1 - i : i];
        disk_execute(request);
        ring_complete(request->ring, request->tag, request->written);
    }
    disk_held_count = 0;
}

const struct disk_request *disk_find_write(void)
{
    for (u32 i = 0; i < disk_held_count; i++) {
        const struct virtio_blk_req *header = header_of(&disk_held[i]);
        if (header != NULL && header->type == VIRTIO_BLK_T_OUT && disk_held[i].readable > 1)
            return &disk_held[i];
    }
    return NULL;
}

void disk_deliver(void)
{
    hypercall(HYPERCALL_WAIT, 0, 0, 0);
}
