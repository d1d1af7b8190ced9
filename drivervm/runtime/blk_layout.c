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

/* Does the request lie on the disk, in whole logical blocks? */
static enum blk_verdict check_place(const struct blk_request *request, const struct blk_disk *disk)
{
    u32 block = blk_block_bytes(disk);

    if (request->bytes % block != 0 || request->lba % (block / VIRTIO_BLK_SECTOR) != 0 ||
        !range_inside(request->lba, request->bytes / VIRTIO_BLK_SECTOR, 0, disk->sectors))
        return BLK_VERDICT_ERROR;
    return request->bytes == 0 ? BLK_VERDICT_OK : BLK_VERDICT_IO;
}

/* All bytes between the header and the status are data. */
static enum blk_verdict parse_data(struct blk_request *request, enum blk_op op, u64 sector, const struct blk_disk *disk)
{
    bool write = op == BLK_WRITE;

    request->op = op;
    request->lba = sector;
    request->bytes = write ? request->readable_bytes - sizeof(struct virtio_blk_req) : request->writable_bytes - 1;
    request->cursor = (struct blk_cursor){.segment = write ? 0 : request->readable};
    if (write)
        blk_advance(request, &request->cursor, sizeof(struct virtio_blk_req));
    return check_place(request, disk);
}

/* One range follows the header: the offer allows one (max_discard_seg, max_write_zeroes_seg). */
static enum blk_verdict parse_range(struct blk_request *request, enum blk_op op, struct blk_cursor at, u32 limit,
                                    const struct blk_disk *disk)
{
    struct virtio_blk_range range;
    u32 flags = op == BLK_ZERO ? VIRTIO_BLK_RANGE_UNMAP : 0;

    if (limit == 0)
        return BLK_VERDICT_UNSUPPORTED;
    if (request->readable_bytes != sizeof(struct virtio_blk_req) + sizeof(range))
        return BLK_VERDICT_ERROR;
    blk_copy(request, &at, &range, sizeof(range), BLK_FROM_SEGMENTS);
    if (range.flags & ~flags) /* 5.2.6.2 */
        return BLK_VERDICT_UNSUPPORTED;
    request->op = op;
    request->lba = range.sector;
    request->bytes = (u64)range.sectors * VIRTIO_BLK_SECTOR;
    request->unmap = range.flags & VIRTIO_BLK_RANGE_UNMAP;
    return range.sectors <= BLK_MAX_RANGE ? check_place(request, disk) : BLK_VERDICT_ERROR;
}

enum blk_verdict blk_parse(struct blk_request *request, const struct blk_disk *disk)
{
    struct virtio_blk_req header;
    struct blk_cursor start = {0, 0};

    request->done = 0;
    request->unmap = false;
    if (request->readable_bytes < sizeof(header) || request->writable_bytes == 0)
        return BLK_VERDICT_ERROR;
    blk_copy(request, &start, &header, sizeof(header), BLK_FROM_SEGMENTS);
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        return parse_data(request, BLK_READ, header.sector, disk);
    case VIRTIO_BLK_T_OUT:
        return parse_data(request, BLK_WRITE, header.sector, disk);
    case VIRTIO_BLK_T_FLUSH:
        request->op = BLK_FLUSH;
        request->bytes = 0;
        return BLK_VERDICT_IO;
    case VIRTIO_BLK_T_GET_ID:
        return BLK_VERDICT_ID;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return parse_range(request, BLK_ZERO, start, disk->limits.max_zero, disk);
    case VIRTIO_BLK_T_DISCARD:
        return parse_range(request, BLK_DISCARD, start, disk->limits.max_discard, disk);
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

/* Can the controller take these bytes as they lie, behind a piece that ended at `end`? */
static bool piece_fits(const struct blk_piece *piece, u64 end, const struct blk_limits *limits)
{
    bool joined = limits->joint == 0 || piece->address == end || ((piece->address | end) & (limits->joint - 1)) == 0;

    return joined && ((piece->address | piece->length) & (limits->alignment - 1)) == 0 &&
           (limits->address_end == 0 || range_inside(piece->address, piece->length, 0, limits->address_end));
}

u32 blk_plan_direct(const struct blk_request *request, const struct blk_disk *disk)
{
    const struct blk_limits *limits = &disk->limits;
    struct blk_cursor cursor = request->cursor;
    u64 left = request->bytes - request->done;
    struct blk_piece piece;
    u32 bytes = 0;
    u64 end = 0;

    if (left > limits->max_bytes)
        left = limits->max_bytes;
    for (u32 n = 0; n < limits->max_pieces && bytes < left; n++) {
        blk_piece_at(request, limits, &cursor, left - bytes, &piece);
        if (!piece_fits(&piece, n == 0 ? piece.address : end, limits))
            break;
        bytes += piece.length;
        end = piece.address + piece.length;
    }
    return bytes - bytes % blk_block_bytes(disk); /* whole blocks; the last piece is then cut, and stays aligned */
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
