/* The block class as the runtime's `struct driver`: requests in, I/Os out, answers back (see blk.h for the picture). */
#include "drivervm/runtime/blk.h"
#include "shared/lib/string.h"

#define QUEUE_SIZE 128u
#define SIZE_MAX_BYTES (4u << 20)
#define SEG_MAX 126u /* descriptors of a full queue without header and status */
/* With interrupts off the device is asked again after so many microseconds; about one exit's worth of sleep. */
#define POLL_INTERVAL_US 50u

_Static_assert(QUEUE_SIZE <= RING_TAGS, "a tag for each request");

static struct blk_disk disk;
static struct blk_request requests[RING_TAGS]; /* by tag; one queue only, so a tag is a name */
static struct blk_io ios[BLK_MAX_DEPTH];
static u32 io_free[BLK_MAX_DEPTH]; /* indices of the others: the first depth - in_flight entries */
static u8 *bounce_free[BLK_BOUNCE_BUFFERS];
static u32 bounce_count;
static u32 bounce_bytes; /* of them, for one I/O */
static u32 in_flight;
static bool flushing;

/* Requests that wait for room in the driver, first come first served. */
static struct blk_request *queue_head;
static struct blk_request **queue_tail = &queue_head;

static void queue_append(struct blk_request *request)
{
    request->next = NULL;
    *queue_tail = request;
    queue_tail = &request->next;
}

static void queue_prepend(struct blk_request *request)
{
    request->next = queue_head;
    queue_head = request;
    if (!request->next)
        queue_tail = &request->next;
}

static void queue_drop_head(void)
{
    queue_head = queue_head->next;
    if (!queue_head)
        queue_tail = &queue_head;
}

static void answer(struct blk_request *request, u8 status, u64 data)
{
    request->busy = false;
    ring_complete(request->ring, request->tag, blk_finish(request, status, data));
}

static void answer_id(struct blk_request *request)
{
    struct blk_cursor cursor = {.segment = request->readable};
    u64 room = request->writable_bytes - 1;
    u64 bytes = room < sizeof(disk.id) ? room : sizeof(disk.id);

    blk_copy(request, &cursor, disk.id, bytes, BLK_TO_SEGMENTS);
    answer(request, VIRTIO_BLK_S_OK, bytes);
}

static void take_request(struct ring *ring, const struct ring_header_cell *header)
{
    struct blk_request *request = &requests[header->tag];

    DRIVER_CHECK(!request->busy);
    request->ring = ring;
    request->tag = header->tag;
    request->segments = header->segments;
    request->readable = (u16)header->readable;
    request->busy = true;
    ring_take(ring, header, request->segment);
    DRIVER_CHECK(blk_measure(request));
    switch (blk_parse(request, &disk)) {
    case BLK_VERDICT_IO:
        queue_append(request);
        break;
    case BLK_VERDICT_ID:
        answer_id(request);
        break;
    case BLK_VERDICT_OK:
        answer(request, VIRTIO_BLK_S_OK, 0);
        break;
    case BLK_VERDICT_ERROR:
        answer(request, VIRTIO_BLK_S_IOERR, 0);
        break;
    case BLK_VERDICT_UNSUPPORTED:
        answer(request, VIRTIO_BLK_S_UNSUPP, 0);
        break;
    }
}

bool blk_next_piece(struct blk_io *io, struct blk_piece *piece)
{
    if (io->walked == io->bytes)
        return false;
    if (io->bounce)
        *piece = (struct blk_piece){.address = (u64)io->bounce, .length = io->bytes};
    else
        blk_piece_at(io->request, &disk.limits, &io->cursor, io->bytes - io->walked, piece);
    io->walked += piece->length;
    return true;
}

static bool moves_data(enum blk_op op)
{
    return op == BLK_READ || op == BLK_WRITE;
}

static u32 at_most(u64 bytes, u32 limit)
{
    return bytes < limit ? (u32)bytes : limit;
}

/* Choose bytes and, where the data does not suit the controller, a bounce buffer. False: none is free just now. */
static bool plan_data(struct blk_io *io, struct blk_request *request)
{
    io->bytes = blk_plan_direct(request, &disk);
    if (io->bytes != 0)
        return true;
    if (bounce_count == 0)
        return false;
    io->bounce = bounce_free[--bounce_count];
    io->bytes = at_most(request->bytes - request->done, bounce_bytes);
    if (io->op == BLK_WRITE) {
        struct blk_cursor from = request->cursor;
        blk_copy(request, &from, io->bounce, io->bytes, BLK_FROM_SEGMENTS);
    }
    return true;
}

/* Fill a free I/O from the request. NULL: it has to wait. */
static struct blk_io *prepare_io(struct blk_request *request)
{
    if (in_flight == disk.limits.depth || flushing || (request->op == BLK_FLUSH && in_flight > 0))
        return NULL;
    u32 index = io_free[disk.limits.depth - in_flight - 1];
    struct blk_io *io = &ios[index];
    *io = (struct blk_io){.op = request->op,
                          .index = index,
                          .lba = request->lba + request->done / VIRTIO_BLK_SECTOR,
                          .unmap = request->unmap,
                          .request = request,
                          .cursor = request->cursor};
    if (moves_data(io->op) && !plan_data(io, request))
        return NULL;
    if (io->op == BLK_ZERO || io->op == BLK_DISCARD)
        io->bytes = at_most(request->bytes - request->done,
                            io->op == BLK_ZERO ? disk.limits.max_zero : disk.limits.max_discard);
    io->busy = true;
    return io;
}

static void pump(void)
{
    while (queue_head) {
        struct blk_io *io = prepare_io(queue_head);
        if (!io)
            return;
        queue_drop_head();
        in_flight++;
        flushing = io->op == BLK_FLUSH;
        blk_driver.submit(io);
    }
}

static void give_back(struct blk_io *io)
{
    if (io->bounce)
        bounce_free[bounce_count++] = io->bounce;
    if (io->op == BLK_FLUSH)
        flushing = false;
    io->busy = false;
    in_flight--;
    io_free[disk.limits.depth - in_flight - 1] = io->index;
}

static bool guest_can_flush(void)
{
    return __atomic_load_n(&driver_events->features, __ATOMIC_RELAXED) & VIRTIO_BLK_F_FLUSH;
}

void blk_io_done(struct blk_io *io, bool ok)
{
    struct blk_request *request = io->request;

    DRIVER_CHECK(io->busy);
    if (ok && io->bounce && io->op == BLK_READ) {
        struct blk_cursor to = request->cursor;
        blk_copy(request, &to, io->bounce, io->bytes, BLK_TO_SEGMENTS);
    }
    give_back(io);
    if (!ok) {
        answer(request, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    request->done += io->bytes;
    if (moves_data(io->op))
        blk_advance(request, &request->cursor, io->bytes);
    if (request->done < request->bytes) {
        queue_prepend(request); /* one that takes many I/Os is not overtaken each time: its end has a bound */
    } else if ((io->op == BLK_WRITE || io->op == BLK_ZERO) && !guest_can_flush()) {
        /* A guest that cannot flush relies on answered writes being on the medium (VirtIO 1.2 5.2.6.2). */
        request->op = BLK_FLUSH;
        queue_append(request);
    } else {
        answer(request, VIRTIO_BLK_S_OK, io->op == BLK_READ ? request->bytes : 0);
    }
}

static status_t make_bounce_buffers(void)
{
    while (bounce_count < BLK_BOUNCE_BUFFERS && dma_available() >= BLK_BOUNCE_BYTES + PAGE_SIZE) {
        u8 *buffer = dma_alloc(BLK_BOUNCE_BYTES, PAGE_SIZE);
        if (!buffer)
            break;
        bounce_free[bounce_count++] = buffer;
    }
    bounce_bytes = at_most(BLK_BOUNCE_BYTES, disk.limits.max_piece);
    bounce_bytes = at_most(bounce_bytes, disk.limits.max_bytes);
    return bounce_count > 0 ? OK : ERR_NO_MEMORY;
}

/* Only what the controller can do is offered: its limits say so. */
static u64 fill_ranges(struct virtio_blk_config *config)
{
    u64 features = 0;

    if (disk.limits.max_discard) {
        config->max_discard_sectors = BLK_MAX_RANGE;
        config->max_discard_seg = 1;
        config->discard_sector_alignment = 1u << disk.logical_block_exp;
        features |= VIRTIO_BLK_F_DISCARD;
    }
    if (disk.limits.max_zero) {
        config->max_write_zeroes_sectors = BLK_MAX_RANGE;
        config->max_write_zeroes_seg = 1;
        config->write_zeroes_may_unmap = 1;
        features |= VIRTIO_BLK_F_WRITE_ZEROES;
    }
    return features;
}

static void fill_offer(struct driver_offer *offer)
{
    struct virtio_blk_config config = {.capacity = disk.sectors,
                                       .size_max = SIZE_MAX_BYTES,
                                       .seg_max = SEG_MAX,
                                       .blk_size = blk_block_bytes(&disk),
                                       .physical_block_exp = disk.physical_block_exp,
                                       .alignment_offset = disk.alignment_offset,
                                       .min_io_size = (u16)(1u << disk.physical_block_exp),
                                       .writeback = 1,
                                       .num_queues = 1};

    *offer = (struct driver_offer){.virtio_type = VIRTIO_ID_BLOCK,
                                   .queues = 1,
                                   .features = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE |
                                               VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY | fill_ranges(&config),
                                   .queue_size = QUEUE_SIZE,
                                   .config_length = sizeof(config),
                                   .error_length = 1,
                                   .error = {VIRTIO_BLK_S_IOERR}};
    memcpy(offer->config, &config, sizeof(config));
}

static status_t start(struct driver_offer *offer)
{
    status_t status = blk_driver.start(&disk);

    if (status != OK) {
        log_line("%s: does not start: %s", blk_driver.name, status_text(status));
        return status;
    }
    DRIVER_CHECK(disk.limits.depth >= 1 && disk.limits.depth <= BLK_MAX_DEPTH);
    DRIVER_CHECK(disk.limits.max_piece >= PAGE_SIZE && disk.limits.max_bytes >= PAGE_SIZE);
    for (u32 i = 0; i < disk.limits.depth; i++)
        io_free[i] = disk.limits.depth - 1 - i;
    status = make_bounce_buffers();
    if (status != OK)
        log_line("%s: no RAM left for bounce buffers", blk_driver.name);
    fill_offer(offer);
    return status;
}

static bool poll(void)
{
    return blk_driver.poll(); /* with nothing in flight too: a disk may be unplugged */
}

static u64 timeout(void)
{
    if (in_flight == 0)
        return WAIT_FOREVER;
    if (blk_driver.timeout)
        return blk_driver.timeout();
    return driver_info->interrupts ? WAIT_FOREVER : POLL_INTERVAL_US;
}

const struct driver driver = {
    .start = start,
    .request = take_request,
    .poll = poll,
    .pump = pump,
    .timeout = timeout,
};
