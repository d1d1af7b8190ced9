/* SOURCES: drivervm/runtime/blk.c drivervm/runtime/blk_layout.c drivervm/runtime/ring.c */
/*
 * The block class between a guest made up here and a controller made up here. Every segment is a heap block of its own,
 * so that the sanitizer sees the first byte beyond it.
 */
#include "drivervm/runtime/blk.h"
#include "tests/unit/random.h"

#define DISK_SECTORS 4096u
#define DISK_BYTES (DISK_SECTORS * VIRTIO_BLK_SECTOR)

/* ---- the runtime, as far as the class needs it ---- */

static struct driver_info info;
static struct driver_events events;
const struct driver_info *driver_info = &info;
const struct driver_events *driver_events = &events;
struct ring driver_rings[RING_MAX_QUEUES];

static u8 bounce_memory[BLK_BOUNCE_BUFFERS * (BLK_BOUNCE_BYTES + PAGE_SIZE)] __attribute__((aligned(4096)));
static u64 bounce_used;

void *dma_alloc(u64 size, u64 alignment)
{
    u64 at = (bounce_used + alignment - 1) & ~(alignment - 1);
    if (at + size > sizeof(bounce_memory))
        return NULL;
    bounce_used = at + size;
    return bounce_memory + at;
}

u64 dma_available(void)
{
    return sizeof(bounce_memory) - bounce_used;
}

void log_line(const char *format, ...)
{
    (void)format; /* only a start that fails logs */
}

void driver_fault(enum driver_fault_code code, u64 detail)
{
    fail_msg("driver_fault(%d, %llu)", code, (unsigned long long)detail);
    abort();
}

/* ---- the controller: does what it is told when polled, in random order, and checks that the limits hold ---- */

static u8 disk_data[DISK_BYTES];
static u8 scratch[DISK_BYTES];
static struct blk_limits limits;
static struct blk_io *accepted[BLK_MAX_DEPTH];
static u32 accepted_count, flush_count, io_count, most_at_once;
static u64 bad_sector = ~0ull;
static struct random controller_random;

static status_t controller_start(struct blk_disk *disk)
{
    *disk = (struct blk_disk){
        .sectors = DISK_SECTORS, .physical_block_exp = 3, .id = "SERIAL-OF-20-BYTES..", .limits = limits};
    return OK;
}

static void controller_submit(struct blk_io *io)
{
    assert_true(accepted_count < limits.depth);
    for (u32 i = 0; i < accepted_count; i++) {
        assert_int_not_equal(accepted[i]->index, io->index);
        assert_int_not_equal(accepted[i]->op, BLK_FLUSH);
        assert_int_not_equal(io->op, BLK_FLUSH);
    }
    assert_true(io->index < limits.depth);
    accepted[accepted_count++] = io;
    if (accepted_count > most_at_once)
        most_at_once = accepted_count;
}

static bool controller_move(struct blk_io *io)
{
    struct blk_piece piece;
    u64 at = io->lba * VIRTIO_BLK_SECTOR, pieces = 0, end = at + io->bytes;

    assert_true(io->bytes > 0 && io->bytes % VIRTIO_BLK_SECTOR == 0 && io->bytes <= limits.max_bytes);
    assert_true(end <= DISK_BYTES);
    bool ok = bad_sector < io->lba || bad_sector >= io->lba + io->bytes / VIRTIO_BLK_SECTOR;
    while (blk_next_piece(io, &piece)) {
        assert_true(++pieces <= limits.max_pieces);
        assert_true(piece.length > 0 && piece.length <= limits.max_piece);
        assert_int_equal((piece.address | piece.length) & (limits.alignment - 1), 0);
        if (limits.address_end != 0)
            assert_true(piece.address + piece.length <= limits.address_end);
        if (ok && io->op == BLK_READ)
            memcpy((void *)piece.address, disk_data + at, piece.length);
        else if (ok)
            memcpy(disk_data + at, (const void *)piece.address, piece.length);
        at += piece.length;
    }
    assert_int_equal(at, end);
    return ok;
}

static bool controller_poll(void)
{
    if (accepted_count == 0)
        return false;
    u64 n = random_below(&controller_random, accepted_count);
    struct blk_io *io = accepted[n];
    accepted[n] = accepted[--accepted_count];
    bool ok = true;
    if (io->op == BLK_FLUSH)
        flush_count++;
    else
        ok = controller_move(io);
    io_count++;
    blk_io_done(io, ok);
    return true;
}

const struct blk_driver blk_driver = {
    .name = "test", .start = controller_start, .submit = controller_submit, .poll = controller_poll};

/* ---- the guest ---- */

static struct {
    struct ring_request_page page;
    union ring_cell cells[RING_CELLS];
} * request_ring;
static struct ring_completion_page *completions;
static struct driver_offer offer;
static u32 seen;

struct guest_request {
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
    void *block[RING_MAX_SEGMENTS];
    u32 segments, readable;
};

/* Any alignment, in a heap block that ends where the segment does. */
static void add_segment(struct guest_request *request, u32 length, u32 shift, bool writable)
{
    u8 *block = malloc(shift + length);

    assert_non_null(block);
    assert_true(request->segments < RING_MAX_SEGMENTS);
    memset(block, 0xcc, shift + length);
    request->block[request->segments] = block;
    request->segment[request->segments++] = (struct ring_segment_cell){
        .address = (u64)(block + shift), .length = length, .flags = writable ? RING_SEGMENT_WRITABLE : 0};
    if (!writable)
        request->readable++;
}

static void free_request(struct guest_request *request)
{
    for (u32 i = 0; i < request->segments; i++)
        free(request->block[i]);
    *request = (struct guest_request){0};
}

/* Copy into (or out of) the stream of bytes that segments [first, last) make up. */
static void stream_copy(const struct guest_request *request, bool writable, u64 skip, void *buffer, u64 bytes, bool out)
{
    u8 *at = buffer;

    for (u32 i = writable ? request->readable : 0; i < request->segments && bytes > 0; i++) {
        const struct ring_segment_cell *segment = &request->segment[i];
        u64 from = skip < segment->length ? skip : segment->length;
        u64 n = segment->length - from < bytes ? segment->length - from : bytes;
        skip -= from;
        if (out)
            memcpy(at, (u8 *)segment->address + from, n);
        else
            memcpy((u8 *)segment->address + from, at, n);
        at += n;
        bytes -= n;
    }
    assert_int_equal(bytes, 0);
}

static void set_header(const struct guest_request *request, u32 type, u64 sector)
{
    struct virtio_blk_req header = {.type = type, .sector = sector};

    stream_copy(request, false, 0, &header, sizeof(header), false);
}

static u8 status_of(const struct guest_request *request)
{
    const struct ring_segment_cell *last = &request->segment[request->segments - 1];

    return *(u8 *)(last->address + last->length - 1);
}

static void give(const struct guest_request *request, u16 tag)
{
    u32 at = request_ring->page.produced;

    request_ring->cells[at % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = (u16)request->segments, .readable = request->readable};
    for (u32 i = 0; i < request->segments; i++)
        request_ring->cells[(at + 1 + i) % RING_CELLS].segment = request->segment[i];
    request_ring->page.produced = at + 1 + request->segments;
}

static void take_all(void)
{
    struct ring_header_cell header;

    while (ring_peek(&driver_rings[0], &header) == OK)
        driver.request(&driver_rings[0], &header);
    ring_release(&driver_rings[0]);
}

/* What the loop does, until the next completion; its length, and the tag it was for. */
static u32 next_completion(u16 *tag)
{
    take_all();
    for (u32 n = 0; completions->produced == seen; n++) {
        assert_true(n < 100000);
        driver.pump();
        driver.poll();
    }
    *tag = completions->entry[seen % RING_COMPLETIONS].tag;
    return completions->entry[seen++ % RING_COMPLETIONS].length;
}

static u32 run(const struct guest_request *request)
{
    u16 tag;

    give(request, 9);
    u32 length = next_completion(&tag);
    assert_int_equal(tag, 9);
    return length;
}

static void boot(struct blk_limits wanted)
{
    limits = wanted;
    bad_sector = ~0ull;
    io_count = flush_count = most_at_once = 0;
    events.features = VIRTIO_BLK_F_FLUSH;
    assert_int_equal(driver.start(&offer), OK);
}

static const struct blk_limits roomy = {
    .depth = 32, .max_pieces = 168, .max_piece = 4u << 20, .max_bytes = 32u << 20, .alignment = 2};

static int setup(void **state)
{
    controller_random = random_start("controller");
    request_ring = calloc(1, sizeof(*request_ring));
    completions = calloc(1, sizeof(*completions));
    assert_non_null(request_ring);
    assert_non_null(completions);
    seen = 0;
    ring_init(&driver_rings[0], request_ring, completions);
    random_fill(&controller_random, disk_data, sizeof(disk_data));
    return 0;
}

static int teardown(void **state)
{
    free(request_ring);
    free(completions);
    return 0;
}

static void the_offer_describes_the_disk(void **state)
{
    struct virtio_blk_config config;

    boot(roomy);
    memcpy(&config, offer.config, sizeof(config));
    assert_int_equal(offer.virtio_type, VIRTIO_ID_BLOCK);
    assert_int_equal(offer.queues, 1);
    assert_int_equal(offer.queue_size, 128);
    assert_int_equal(offer.error_length, 1);
    assert_int_equal(offer.error[0], VIRTIO_BLK_S_IOERR);
    assert_int_equal(config.capacity, DISK_SECTORS);
    assert_int_equal(config.blk_size, 512);
    assert_int_equal(config.seg_max, 126);
    assert_int_equal(config.size_max, 4 << 20);
    assert_int_equal(config.physical_block_exp, 3);
    assert_int_equal(config.min_io_size, 8);
    assert_int_equal(offer.features & VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_FLUSH);
}

static void read_and_write_in_the_usual_layout(void **state)
{
    struct guest_request request = {0};
    u8 data[1024];

    boot(roomy);
    random_fill(&controller_random, data, sizeof(data));
    add_segment(&request, 16, 0, false);
    add_segment(&request, 1024, 0, false);
    add_segment(&request, 1, 0, true);
    set_header(&request, VIRTIO_BLK_T_OUT, 7);
    stream_copy(&request, false, 16, data, sizeof(data), false);
    assert_int_equal(run(&request), 1);
    assert_int_equal(status_of(&request), VIRTIO_BLK_S_OK);
    assert_memory_equal(disk_data + 7 * 512, data, sizeof(data));
    free_request(&request);

    add_segment(&request, 16, 0, false);
    add_segment(&request, 1024, 0, true);
    add_segment(&request, 1, 0, true);
    set_header(&request, VIRTIO_BLK_T_IN, 7);
    assert_int_equal(run(&request), 1025);
    assert_int_equal(status_of(&request), VIRTIO_BLK_S_OK);
    assert_memory_equal((void *)request.segment[1].address, data, sizeof(data));
    assert_int_equal(io_count, 2); /* one command each: no copy, no split */
    free_request(&request);
}

/* Requests that get their answer without the controller: header, sectors, and what the answer is. */
static void requests_that_fail_their_checks(void **state)
{
    static const struct {
        u32 type;
        u64 sector;
        u32 readable, writable;
        u8 status;
        u32 used;
    } cases[] = {
        {VIRTIO_BLK_T_IN, DISK_SECTORS, 16, 513, VIRTIO_BLK_S_IOERR, 0},
        {VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 16, 1025, VIRTIO_BLK_S_IOERR, 0},
        {VIRTIO_BLK_T_IN, ~0ull, 16, 513, VIRTIO_BLK_S_IOERR, 0},
        {VIRTIO_BLK_T_IN, 1ull << 55, 16, 513, VIRTIO_BLK_S_IOERR, 0},
        {VIRTIO_BLK_T_OUT, DISK_SECTORS, 528, 1, VIRTIO_BLK_S_IOERR, 1},
        {VIRTIO_BLK_T_OUT, ~0ull - 1, 16 + 1024, 1, VIRTIO_BLK_S_IOERR, 1},
        {VIRTIO_BLK_T_IN, 0, 16, 512, VIRTIO_BLK_S_IOERR, 0}, /* 511 bytes of data */
        {VIRTIO_BLK_T_IN, 0, 16, 514, VIRTIO_BLK_S_IOERR, 0},
        {VIRTIO_BLK_T_OUT, 0, 529, 1, VIRTIO_BLK_S_IOERR, 1},
        {VIRTIO_BLK_T_IN, 0, 15, 513, VIRTIO_BLK_S_IOERR, 0}, /* no room for a header */
        {VIRTIO_BLK_T_OUT, 0, 1, 1, VIRTIO_BLK_S_IOERR, 1},
        {VIRTIO_BLK_T_IN, 0, 16, 1, VIRTIO_BLK_S_OK, 1}, /* nothing to read is no error */
        {VIRTIO_BLK_T_OUT, 5, 16, 1, VIRTIO_BLK_S_OK, 1},
        {2, 0, 16, 513, VIRTIO_BLK_S_UNSUPP, 0},
        {11, 0, 16 + 16, 1, VIRTIO_BLK_S_UNSUPP, 1}, /* discard: not offered */
        {~0u, 0, 16, 1, VIRTIO_BLK_S_UNSUPP, 1},
    };

    boot(roomy);
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        struct guest_request request = {0};
        struct virtio_blk_req header = {.type = cases[i].type, .sector = cases[i].sector};
        add_segment(&request, cases[i].readable, 0, false);
        add_segment(&request, cases[i].writable, 0, true);
        stream_copy(&request, false, 0, &header, cases[i].readable < 16 ? cases[i].readable : 16, false);
        assert_int_equal(run(&request), cases[i].used);
        assert_int_equal(status_of(&request), cases[i].status);
        free_request(&request);
    }
    assert_int_equal(io_count, 0);
}

static void without_a_writable_byte_there_is_no_status(void **state)
{
    struct guest_request request = {0};

    boot(roomy);
    add_segment(&request, 16 + 512, 0, false);
    set_header(&request, VIRTIO_BLK_T_OUT, 0);
    assert_int_equal(run(&request), 0);
    free_request(&request);
    add_segment(&request, 513, 0, true); /* and without a readable one no header */
    assert_int_equal(run(&request), 0);
    assert_int_equal(status_of(&request), VIRTIO_BLK_S_IOERR);
    assert_int_equal(io_count, 0);
    free_request(&request);
}

static void get_id_fits_the_room_there_is(void **state)
{
    static const struct {
        u32 room, used;
    } cases[] = {{20, 21}, {7, 8}, {64, 20}, {0, 1}};

    boot(roomy);
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        struct guest_request request = {0};
        u32 bytes = cases[i].room < 20 ? cases[i].room : 20;
        add_segment(&request, 16, 0, false);
        add_segment(&request, cases[i].room + 1, 1, true);
        set_header(&request, VIRTIO_BLK_T_GET_ID, 0);
        assert_int_equal(run(&request), cases[i].used);
        assert_int_equal(status_of(&request), VIRTIO_BLK_S_OK);
        assert_memory_equal((void *)request.segment[1].address, "SERIAL-OF-20-BYTES..", bytes);
        free_request(&request);
    }
}

/* Cut a stream of `bytes` into random segments, with a bias for one kind of awkwardness. */
static void add_stream(struct random *random, struct guest_request *request, u64 bytes, bool writable, u32 most)
{
    u32 kind = (u32)random_below(random, 4);

    while (bytes > 0) {
        u64 step = bytes;
        if (most > 1 && kind == 0)
            step = random_between(random, 1, bytes);
        else if (most > 1 && kind == 1)
            step = 2 * random_between(random, 1, 400);
        else if (most > 1 && kind == 2)
            step = random_between(random, 1, 40);
        if (step > bytes)
            step = bytes;
        add_segment(request, (u32)step, kind == 3 ? 0 : (u32)random_below(random, 4), writable);
        bytes -= step;
        most--;
    }
}

static const struct blk_limits kinds_of_limits[] = {
    {.depth = 32, .max_pieces = 168, .max_piece = 4u << 20, .max_bytes = 32u << 20, .alignment = 2},
    {.depth = 1, .max_pieces = 17, .max_piece = 32768, .max_bytes = 65536, .alignment = 4},
    {.depth = 3, .max_pieces = 1, .max_piece = 32768, .max_bytes = 32768, .alignment = 1},
    {.depth = 8, .max_pieces = 168, .max_piece = 65536, .max_bytes = 131072, .alignment = 512},
};

/* Any framing, any limits: what arrives on the disk and at the guest is right, to the byte. */
static void any_layout_works(void **state)
{
    struct random random = random_start("layouts");

    for (u32 round = 0; round < 2000; round++) {
        struct guest_request request = {0};
        bool write = random_one_in(&random, 2);
        u64 sectors = random_between(&random, 1, random_one_in(&random, 8) ? 700 : 24);
        u64 sector = random_below(&random, DISK_SECTORS - sectors + 1);
        u64 bytes = sectors * VIRTIO_BLK_SECTOR;

        boot(kinds_of_limits[random_below(&random, ARRAY_SIZE(kinds_of_limits))]);
        add_stream(&random, &request, 16 + (write ? bytes : 0), false, 100);
        add_stream(&random, &request, 1 + (write ? 0 : bytes), true, 130 - request.segments);
        set_header(&request, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector);
        if (write) {
            random_fill(&random, scratch, bytes);
            stream_copy(&request, false, 16, scratch, bytes, false);
        }
        assert_int_equal(run(&request), write ? 1 : bytes + 1);
        assert_int_equal(status_of(&request), VIRTIO_BLK_S_OK);
        if (!write)
            stream_copy(&request, true, 0, scratch, bytes, true);
        assert_memory_equal(disk_data + sector * VIRTIO_BLK_SECTOR, scratch, bytes);
        free_request(&request);
    }
}

static void data_out_of_reach_is_bounced(void **state)
{
    struct guest_request request = {0};
    struct blk_limits low = roomy;

    low.address_end = (u64)bounce_memory + sizeof(bounce_memory);
    boot(low);
    add_segment(&request, 16, 0, false);
    add_segment(&request, 3 * BLK_BOUNCE_BYTES, 0, true); /* the heap lies above our image, thus beyond the limit */
    add_segment(&request, 1, 0, true);
    assert_true(request.segment[1].address > low.address_end);
    set_header(&request, VIRTIO_BLK_T_IN, 64);
    assert_int_equal(run(&request), 3 * BLK_BOUNCE_BYTES + 1);
    assert_memory_equal((void *)request.segment[1].address, disk_data + 64 * 512, 3 * BLK_BOUNCE_BYTES);
    assert_int_equal(io_count, 3);
    free_request(&request);
}

/* More odd requests than bounce buffers and slots: they wait, and all come through; nothing is answered twice. */
static void a_full_queue_of_odd_requests(void **state)
{
    static struct guest_request requests[RING_TAGS];
    bool answered[RING_TAGS] = {false};
    u16 tag;

    boot(roomy);
    for (u16 t = 0; t < RING_TAGS; t++) {
        add_segment(&requests[t], 16, 0, false);
        add_segment(&requests[t], 4096, 1, true);
        add_segment(&requests[t], 1, 0, true);
        set_header(&requests[t], VIRTIO_BLK_T_IN, t * 8u);
        give(&requests[t], t);
    }
    for (u32 n = 0; n < RING_TAGS; n++) {
        assert_int_equal(next_completion(&tag), 4097);
        assert_false(answered[tag]);
        answered[tag] = true;
        assert_memory_equal((void *)requests[tag].segment[1].address, disk_data + tag * 4096u, 4096);
    }
    assert_true(most_at_once >= 8);
    for (u16 t = 0; t < RING_TAGS; t++)
        free_request(&requests[t]);
}

/* controller_submit checks that a flush runs alone; here: that it waits for what came before, and that all end. */
/* First come, first served, also when a request takes many I/Os: else none of several large ones would ever end. */
static void large_requests_end_in_their_order(void **state)
{
    struct guest_request request[8] = {0};
    struct blk_limits limits_of_one = roomy;
    u16 tag;

    limits_of_one.depth = 1;
    limits_of_one.max_bytes = limits_of_one.max_piece = 16384;
    boot(limits_of_one);
    for (u16 i = 0; i < ARRAY_SIZE(request); i++) {
        add_segment(&request[i], 16, 0, false);
        add_segment(&request[i], i % 2 ? 512 : 20 * 16384, 0, true);
        add_segment(&request[i], 1, 0, true);
        set_header(&request[i], VIRTIO_BLK_T_IN, i);
        give(&request[i], i);
    }
    for (u16 i = 0; i < ARRAY_SIZE(request); i++) {
        next_completion(&tag);
        assert_int_equal(tag, i);
        assert_int_equal(status_of(&request[i]), VIRTIO_BLK_S_OK);
        free_request(&request[i]);
    }
}

static void flushes_run_alone(void **state)
{
    static struct guest_request requests[60];
    u16 tag;

    boot(roomy);
    for (u16 t = 0; t < ARRAY_SIZE(requests); t++) {
        bool flush = t % 5 == 4;
        add_segment(&requests[t], flush ? 16 : 16 + 512, 0, false);
        add_segment(&requests[t], 1, 0, true);
        set_header(&requests[t], flush ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, t);
        give(&requests[t], t);
    }
    bool written[ARRAY_SIZE(requests)] = {false};
    for (u32 n = 0; n < ARRAY_SIZE(requests); n++) {
        assert_int_equal(next_completion(&tag), 1);
        written[tag] = true;
        for (u16 before = 0; tag % 5 == 4 && before < tag; before++)
            assert_true(written[before]);
    }
    assert_int_equal(flush_count, ARRAY_SIZE(requests) / 5);
    for (u16 t = 0; t < ARRAY_SIZE(requests); t++)
        free_request(&requests[t]);
}

static void writes_of_a_guest_that_cannot_flush_are_flushed(void **state)
{
    struct guest_request request = {0};

    boot(roomy);
    events.features = 0;
    add_segment(&request, 16 + 512, 0, false);
    add_segment(&request, 1, 0, true);
    set_header(&request, VIRTIO_BLK_T_OUT, 3);
    assert_int_equal(run(&request), 1);
    assert_int_equal(flush_count, 1);
    assert_int_equal(io_count, 2);
    free_request(&request);
}

static void an_error_fails_one_request_only(void **state)
{
    static struct guest_request requests[20];
    u16 tag;

    boot(kinds_of_limits[1]);
    bad_sector = 205;
    for (u16 t = 0; t < ARRAY_SIZE(requests); t++) {
        add_segment(&requests[t], 16, 0, false);
        add_segment(&requests[t], 512 * 20 + 1, t % 2, true);
        set_header(&requests[t], VIRTIO_BLK_T_IN, t * 20u);
        give(&requests[t], t);
    }
    for (u32 n = 0; n < ARRAY_SIZE(requests); n++) {
        u32 used = next_completion(&tag);
        bool bad = tag == 10; /* sectors 200 to 219 */
        assert_int_equal(used, bad ? 0 : 512 * 20 + 1);
        assert_int_equal(status_of(&requests[tag]), bad ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
    }
    for (u16 t = 0; t < ARRAY_SIZE(requests); t++)
        free_request(&requests[t]);
}

static void segments_against_the_contract_are_noticed(void **state)
{
    static struct blk_request request;

    request.segments = 2;
    request.readable = 1;
    request.segment[0] = (struct ring_segment_cell){.length = 16};
    request.segment[1] = (struct ring_segment_cell){.length = UINT32_MAX, .flags = RING_SEGMENT_WRITABLE};
    assert_true(blk_measure(&request));
    assert_int_equal(request.writable_bytes, UINT32_MAX);
    request.segment[1].flags = 0;
    assert_false(blk_measure(&request));
    request.segment[1] = (struct ring_segment_cell){.length = 0, .flags = RING_SEGMENT_WRITABLE};
    assert_false(blk_measure(&request));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_offer_describes_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(read_and_write_in_the_usual_layout, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_that_fail_their_checks, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_writable_byte_there_is_no_status, setup, teardown),
        cmocka_unit_test_setup_teardown(get_id_fits_the_room_there_is, setup, teardown),
        cmocka_unit_test_setup_teardown(any_layout_works, setup, teardown),
        cmocka_unit_test_setup_teardown(data_out_of_reach_is_bounced, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_queue_of_odd_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(large_requests_end_in_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(flushes_run_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(writes_of_a_guest_that_cannot_flush_are_flushed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_fails_one_request_only, setup, teardown),
        cmocka_unit_test_setup_teardown(segments_against_the_contract_are_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
