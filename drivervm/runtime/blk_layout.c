/*
 * A block request's bytes. VirtIO 1.2 2.6.4 and 5.2.6 make no promise about how they are framed: the header is the
 * first 16 device-readable bytes, the status the last device-writable byte, and data is what remains, wherever the
 * guest cut it into segments.
 */
#include "drivervm/runtime/blk.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

bool blk_measure(struct blk_request *request)
{
    request->readable_bytes = 0;
    request->writable_bytes = 0;
    for (u32 i = 0; i < request->segments; i++) {
        const struct ring_segment_cell *segment = &request->segment[i];
        bool writable = segment->flags & RING_SEGMENT_WRITABLE;
        if (segment->length == 0 || writable != (i >= request->readable))
            return false;
        u64 *sum = writable ? &request->writable_bytes : &request->readable_bytes;
        *sum += segment->length; /* 130 times 32 bits: no overflow in 64 */
    }
    return true;
}

void blk_advance(const struct blk_request *request, struct blk_cursor *cursor, u64 bytes)
{
    while (bytes > 0) {
        u64 rest = request->segment[cursor->segment].length - cursor->offset;
        if (bytes < rest) {
            cursor->offset += (u32)bytes;
            return;
        }
        bytes -= rest;
        cursor->segment++;
        cursor->offset = 0;
    }
}

void blk_copy(const struct blk_request *request, struct blk_cursor *cursor, void *buffer, u64 bytes,
              enum blk_direction direction)
{
    u8 *at = buffer;

    while (bytes > 0) {
        const struct ring_segment_cell *segment = &request->segment[cursor->segment];
        u8 *place = (u8 *)segment->address + cursor->offset;
        u64 step = segment->length - cursor->offset;
        if (step > bytes)
            step = bytes;
        if (direction == BLK_TO_SEGMENTS)
            memcpy(place, at, step);
        else
            memcpy(at, place, step);
        blk_advance(request, cursor, step);
        at += step;
        bytes -= step;
    }
    /* The guest may write there at any moment: what was copied is what counts, the compiler must not read it again. */
    asm volatile("" : : : "memory");
}

/* Lay `bytes` of data, `skip` bytes into the segments that start at `first`, under the disk's sectors. */
static enum blk_verdict parse_data(struct blk_request *request, enum blk_op op, u64 sector, u64 disk_sectors)
{
    bool write = op == BLK_WRITE;

    request->op = op;
    request->lba = sector;
    request->bytes = write ? request->readable_bytes - sizeof(struct virtio_blk_req) : request->writable_bytes - 1;
    request->cursor = (struct blk_cursor){.segment = write ? 0 : request->readable};
    if (write)
        blk_advance(request, &request->cursor, sizeof(struct virtio_blk_req));
    if (request->bytes % VIRTIO_BLK_SECTOR != 0 ||
        !range_inside(sector, request->bytes / VIRTIO_BLK_SECTOR, 0, disk_sectors))
        return BLK_VERDICT_ERROR;
    return request->bytes == 0 ? BLK_VERDICT_OK : BLK_VERDICT_IO;
}

enum blk_verdict blk_parse(struct blk_request *request, u64 disk_sectors)
{
    struct virtio_blk_req header;
    struct blk_cursor start = {0, 0};

    request->done = 0;
    if (request->readable_bytes < sizeof(header) || request->writable_bytes == 0)
        return BLK_VERDICT_ERROR;
    blk_copy(request, &start, &header, sizeof(header), BLK_FROM_SEGMENTS);
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        return parse_data(request, BLK_READ, header.sector, disk_sectors);
    case VIRTIO_BLK_T_OUT:
        return parse_data(request, BLK_WRITE, header.sector, disk_sectors);
    case VIRTIO_BLK_T_FLUSH:
        request->op = BLK_FLUSH;
        request->bytes = 0;
        return BLK_VERDICT_IO;
    case VIRTIO_BLK_T_GET_ID:
        return BLK_VERDICT_ID;
    default:
        return BLK_VERDICT_UNSUPPORTED;
    }
}

void blk_piece_at(const struct blk_request *request, const struct blk_limits *limits, struct blk_cursor *cursor,
                  u64 left, struct blk_piece *piece)
{
    const struct ring_segment_cell *segment = &request->segment[cursor->segment];
    u64 length = segment->length - cursor->offset;

    if (length > left)
        length = left;
    if (length > limits->max_piece)
        length = limits->max_piece;
    *piece = (struct blk_piece){.address = segment->address + cursor->offset, .length = (u32)length};
    blk_advance(request, cursor, length);
}

u32 blk_plan_direct(const struct blk_request *request, const struct blk_limits *limits)
{
    struct blk_cursor cursor = request->cursor;
    u64 left = request->bytes - request->done;
    struct blk_piece piece;
    u32 bytes = 0;

    if (left > limits->max_bytes)
        left = limits->max_bytes;
    for (u32 n = 0; n < limits->max_pieces && bytes < left; n++) {
        blk_piece_at(request, limits, &cursor, left - bytes, &piece);
        if (((piece.address | piece.length) & (limits->alignment - 1)) != 0)
            break;
        if (limits->address_end != 0 && !range_inside(piece.address, piece.length, 0, limits->address_end))
            break;
        bytes += piece.length;
    }
    return bytes - bytes % VIRTIO_BLK_SECTOR; /* whole sectors; the last piece is then cut, and stays aligned */
}

u32 blk_finish(const struct blk_request *request, u8 status, u64 data)
{
    if (request->writable_bytes == 0)
        return 0; /* nowhere to put a status */
    const struct ring_segment_cell *last = &request->segment[request->segments - 1];
    *(volatile u8 *)(last->address + last->length - 1) = status;
    /* Only bytes without a gap from the start count as written, so the status counts when the data reaches up to it. */
    u64 length = data == request->writable_bytes - 1 ? request->writable_bytes : data;
    return length > UINT32_MAX ? UINT32_MAX : (u32)length;
}
