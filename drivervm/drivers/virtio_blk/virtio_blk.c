/*
 * A disk behind VirtIO's own block device (VirtIO 1.2 5.2), as a hypervisor below us shows it. Reads top to bottom as
 * 3.1.1 does: find the device, reset it, agree on features, make the one queue, read its configuration, let it work;
 * then ask for its name, submit and poll. Whatever ran before us ends with the reset.
 */
#include "drivervm/drivers/virtio/virtio.h"
#include "drivervm/runtime/blk.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define NAME "virtio_blk"
#define WANTED                                                                                                         \
    (VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_RO | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH |     \
     VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES)

#define DEPTH BLK_MAX_DEPTH
#define FRAME 2u         /* descriptors around the data: header and status */
#define CHAIN 128u       /* descriptors of a request */
#define SHARED_CHAIN 16u /* and where all share the queue's own */
/*
 * Bytes of one I/O. A device that maps memory piece by piece through an IOMMU counts pages, not descriptors: QEMU
 * breaks down at 1024 of them.
 */
#define MAX_BYTES (1u << 20)
#define MAX_RANGE ((u64)BLK_MAX_RANGE * VIRTIO_BLK_SECTOR)
#define BLOCK_MIN 512u
#define BLOCK_MAX 4096u
#define PHYSICAL_EXP_MAX 8u      /* 1 MiB in blocks of 4 KiB; more is nonsense */
#define SECTORS_END (1ull << 54) /* so that neither sectors nor bytes overflow anywhere */
#define ID_US 1000000u
#define NOT_ANSWERED 0xffu

/* What a successor must know: which disk the guest has been using. */
struct stash {
    u64 capacity;
    u32 block_bytes;
    char id[VIRTIO_BLK_ID_BYTES];
};

/* What the device reads and writes beside the guest's data. */
struct memory {
    struct virtio_blk_req header[DEPTH];
    struct virtio_blk_range range[DEPTH];
    u8 status[DEPTH];
    char id[VIRTIO_BLK_ID_BYTES];
};

/* 5.2.4: the width of each field of struct virtio_blk_config, up to write_zeroes_may_unmap. */
static const u8 config_fields[] = {8, 4, 4, 2, 1, 1, 4, 1, 1, 2, 4, 1, 1, 2, 4, 4, 4, 4, 4, 1};

static struct {
    struct virtq queue;
    struct memory *memory;
    struct virtio_blk_config config; /* of what was not negotiated: 0 */
    struct blk_io *io[DEPTH];        /* out, by slot */
} blk;

/* The guest's word counts for nothing here, and the device's neither: each field has its bounds. */
static status_t check_config(void)
{
    struct virtio_blk_config *config = &blk.config;

    if (!virtio_has(VIRTIO_BLK_F_BLK_SIZE))
        config->blk_size = BLOCK_MIN;
    if (!virtio_has(VIRTIO_BLK_F_SEG_MAX) || config->seg_max == 0)
        config->seg_max = 1;
    if (!virtio_has(VIRTIO_BLK_F_SIZE_MAX))
        config->size_max = MAX_BYTES;
    if (!virtio_has(VIRTIO_BLK_F_TOPOLOGY) || config->physical_block_exp > PHYSICAL_EXP_MAX)
        config->physical_block_exp = config->alignment_offset = 0;
    if (!virtio_has(VIRTIO_BLK_F_DISCARD) || config->max_discard_seg == 0)
        config->max_discard_sectors = 0;
    if (!virtio_has(VIRTIO_BLK_F_WRITE_ZEROES) || config->max_write_zeroes_seg == 0)
        config->max_write_zeroes_sectors = config->write_zeroes_may_unmap = 0;
    if (config->blk_size < BLOCK_MIN || config->blk_size > BLOCK_MAX || (config->blk_size & (config->blk_size - 1)))
        return ERR_UNSUPPORTED;
    if (config->capacity < config->blk_size / VIRTIO_BLK_SECTOR || config->capacity > SECTORS_END)
        return ERR_FORMAT;
    return config->size_max >= PAGE_SIZE ? OK : ERR_UNSUPPORTED;
}

static u32 smaller(u64 a, u64 b)
{
    return (u32)(a < b ? a : b);
}

/* Sectors of one range as bytes, in whole pages, which are whole blocks, too. */
static u32 range_bytes(u32 sectors)
{
    return (u32)PAGE_DOWN(smaller((u64)sectors * VIRTIO_BLK_SECTOR, MAX_RANGE));
}

static struct blk_limits limits(void)
{
    const struct virtq *q = &blk.queue;
    /* Without indirect descriptors the I/Os share the queue's: fewer of them, and smaller. */
    u32 depth = q->indirect ? q->size : q->size < SHARED_CHAIN ? 1 : q->size / SHARED_CHAIN;
    u32 chain = q->indirect ? q->room : smaller(q->size / depth, q->room);
    u32 piece = (u32)PAGE_DOWN(smaller(blk.config.size_max, MAX_BYTES));

    return (struct blk_limits){.depth = smaller(depth, DEPTH),
                               .max_pieces = smaller(chain - FRAME, blk.config.seg_max),
                               .max_piece = piece,
                               .max_bytes = MAX_BYTES,
                               .max_zero = range_bytes(blk.config.max_write_zeroes_sectors),
                               .max_discard = range_bytes(blk.config.max_discard_sectors),
                               .alignment = 1};
}

static u8 exponent(u32 value)
{
    return (u8)(31 - __builtin_clz(value));
}

static void describe(struct blk_disk *disk)
{
    u32 block = blk.config.blk_size / VIRTIO_BLK_SECTOR;

    *disk = (struct blk_disk){.sectors = blk.config.capacity - blk.config.capacity % block,
                              .logical_block_exp = exponent(block),
                              .physical_block_exp = blk.config.physical_block_exp,
                              .alignment_offset = blk.config.alignment_offset,
                              .limits = limits()};
    memcpy(disk->id, blk.memory->id, sizeof(disk->id));
    log_line(NAME ": %llu blocks of %u bytes, %u requests of %u pieces at a time%s%s%s%s",
             (unsigned long long)disk->sectors / block, blk.config.blk_size, disk->limits.depth,
             disk->limits.max_pieces, blk.queue.indirect ? ", indirect" : "", blk.queue.events ? ", event index" : "",
             virtio_has(VIRTIO_BLK_F_FLUSH) ? ", flush" : "",
             virtio_has(VIRTIO_BLK_F_RO) ? ", read-only: writes will fail" : "");
}

/* The chain for io's header, data and status. */
static void put_request(u32 slot, const struct virtio_blk_req *header, struct blk_io *io)
{
    struct virtq *q = &blk.queue;
    struct blk_piece piece;

    blk.memory->header[slot] = *header;
    blk.memory->status[slot] = NOT_ANSWERED;
    virtq_begin(q, slot);
    virtq_put(q, (u64)&blk.memory->header[slot], sizeof(*header), false);
    if (io->op == BLK_READ || io->op == BLK_WRITE)
        while (blk_next_piece(io, &piece))
            virtq_put(q, piece.address, piece.length, io->op == BLK_READ);
    else if (io->op != BLK_FLUSH)
        virtq_put(q, (u64)&blk.memory->range[slot], sizeof(blk.memory->range[slot]), false);
    virtq_put(q, (u64)&blk.memory->status[slot], 1, true);
    virtq_end(q);
}

/* Read once: the device may still write there. */
static u8 status_of(u32 slot)
{
    return __atomic_load_n(&blk.memory->status[slot], __ATOMIC_RELAXED);
}

/* 5.2.6: GET_ID, the one request that is ours. A device may have none. */
static status_t read_id(void)
{
    struct virtq *q = &blk.queue;
    char *id = blk.memory->id;
    u32 length = 0;

    blk.memory->header[0] = (struct virtio_blk_req){.type = VIRTIO_BLK_T_GET_ID};
    blk.memory->status[0] = NOT_ANSWERED;
    virtq_begin(q, 0);
    virtq_put(q, (u64)&blk.memory->header[0], sizeof(blk.memory->header[0]), false);
    virtq_put(q, (u64)id, VIRTIO_BLK_ID_BYTES, true);
    virtq_put(q, (u64)&blk.memory->status[0], 1, true);
    virtq_end(q);
    status_t status = virtq_run(q, ID_US, &length);
    if (status == OK && status_of(0) != VIRTIO_BLK_S_OK)
        memset(id, 0, VIRTIO_BLK_ID_BYTES);
    return status;
}

static status_t check_identity(void)
{
    struct stash now = {.capacity = blk.config.capacity, .block_bytes = blk.config.blk_size}, before;

    memcpy(now.id, blk.memory->id, sizeof(now.id));
    if (stash_load(&before, sizeof(before)) && memcmp(&now, &before, sizeof(now)) != 0)
        return ERR_STATE; /* somebody swapped the disk */
    return stash_save(&now, sizeof(now));
}

static status_t device_start(void)
{
    status_t status = virtio_open(NAME, VIRTIO_ID_BLOCK);

    if (status == OK)
        status = virtio_negotiate(WANTED);
    if (status == OK)
        status = virtq_start(&blk.queue, 0, DEPTH, CHAIN, false);
    if (status == OK && blk.queue.size < FRAME + 1)
        status = ERR_UNSUPPORTED;
    if (status == OK)
        status = virtio_config(&blk.config, config_fields, ARRAY_SIZE(config_fields));
    if (status == OK)
        status = check_config();
    if (status != OK)
        return status;
    virtio_go();
    status = read_id();
    return status == OK ? check_identity() : status;
}

static status_t start(struct blk_disk *disk)
{
    u64 began = tsc_read();

    blk.memory = dma_alloc(sizeof(*blk.memory), PAGE_SIZE);
    if (!blk.memory)
        return ERR_NO_MEMORY;
    status_t status = device_start();
    if (status != OK)
        return status;
    describe(disk);
    log_line(NAME ": ready after %llu us", (unsigned long long)microseconds_since(began));
    return OK;
}

static void submit(struct blk_io *io)
{
    static const u8 types[] = {[BLK_READ] = VIRTIO_BLK_T_IN,
                               [BLK_WRITE] = VIRTIO_BLK_T_OUT,
                               [BLK_FLUSH] = VIRTIO_BLK_T_FLUSH,
                               [BLK_ZERO] = VIRTIO_BLK_T_WRITE_ZEROES,
                               [BLK_DISCARD] = VIRTIO_BLK_T_DISCARD};
    struct virtio_blk_req header = {.type = types[io->op]};
    bool unmap = io->op == BLK_ZERO && io->unmap && blk.config.write_zeroes_may_unmap;

    DRIVER_CHECK(io->index < DEPTH && !blk.io[io->index]);
    if (io->op == BLK_FLUSH && !virtio_has(VIRTIO_BLK_F_FLUSH)) { /* 5.2.6.2: what it has answered is on the medium */
        blk_io_done(io, true);
        return;
    }
    if (io->op == BLK_READ || io->op == BLK_WRITE)
        header.sector = io->lba;
    blk.memory->range[io->index] = (struct virtio_blk_range){
        .sector = io->lba, .sectors = io->bytes / VIRTIO_BLK_SECTOR, .flags = unmap ? VIRTIO_BLK_RANGE_UNMAP : 0};
    blk.io[io->index] = io;
    put_request(io->index, &header, io);
    virtq_flush(&blk.queue);
}

/* 2.7.8.2: only as much as the device says was written is there, and the status is the last byte. */
static void finish(u32 slot, u32 length)
{
    struct blk_io *io = blk.io[slot];
    u32 writable = (io->op == BLK_READ ? io->bytes : 0) + 1;
    u8 code = length >= writable ? status_of(slot) : NOT_ANSWERED;

    blk.io[slot] = NULL;
    if (code != VIRTIO_BLK_S_OK)
        log_line(NAME ": I/O error %02x at sector %llu, %u bytes", code, (unsigned long long)io->lba, io->bytes);
    blk_io_done(io, code == VIRTIO_BLK_S_OK);
}

static bool poll(void)
{
    u32 slot, length;
    bool any = false;

    virtio_acknowledge();
    do {
        while (virtq_next(&blk.queue, &slot, &length)) { /* each I/O once: so this has an end */
            finish(slot, length);
            any = true;
        }
    } while (!virtq_listen(&blk.queue));
    if (!any)
        virtio_check();
    return any;
}

const struct blk_driver blk_driver = {.name = NAME, .start = start, .submit = submit, .poll = poll};
