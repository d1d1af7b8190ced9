/*
 * The block class: VirtIO block semantics (VirtIO 1.2 5.2) on one side, typed I/Os that suit the controller on the
 * other. A driver for a disk fills one const struct blk_driver and never sees a ring, a VirtIO header or a status byte.
 *
 * A request's life:
 *
 *   ring --> QUEUED --pump--> one I/O in the driver --done--> finished: status byte, completion
 *              ^                                      |
 *              +--------- bytes left to do -----------+
 *
 * A request larger or more scattered than the controller's limits becomes several I/Os, one after another. Data that
 * the controller cannot address (odd, or too high) passes through a bounce buffer in our own RAM.
 *
 * The guest pages behind a request are hostile: the header is copied once, data is never interpreted.
 * Context: the VM's one thread. `blk_io_done` may be called from `poll` or `submit`; it never calls back into the
 * driver.
 */
#pragma once

#include "drivervm/runtime/runtime.h"
#include "shared/virtio/blk.h"

#define BLK_MAX_DEPTH RING_TAGS
#define BLK_BOUNCE_BYTES 32768u
#define BLK_BOUNCE_BUFFERS 8u

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_ZERO, BLK_DISCARD };

struct blk_piece {
    u64 address; /* for the device's DMA */
    u32 length;  /* bytes */
};

/* What the controller can do in one I/O. "Multiple" is of 512 and of the disk's logical block. */
struct blk_limits {
    u32 depth;       /* I/Os at a time, 1 .. BLK_MAX_DEPTH */
    u32 max_pieces;  /* pieces of one I/O */
    u32 max_piece;   /* bytes of one piece, multiple */
    u32 max_bytes;   /* of one I/O, multiple */
    u32 max_zero;    /* bytes of one BLK_ZERO, multiple; 0: the guest is not offered it */
    u32 max_discard; /* and of one BLK_DISCARD */
    u32 alignment;   /* of a piece's address and length, power of two up to 512 */
    u32 joint; /* a piece starts where the one before ended, or that end and this start are multiples of this power
                  of two; 0: anywhere */
    u64 address_end; /* pieces lie below; 0: anywhere */
};

/* The disk, as `start` found it. */
struct blk_disk {
    u64 sectors;                  /* of 512 bytes */
    u8 logical_block_exp;         /* 512-byte sectors in a logical block, as a power of two, up to 4 KiB */
    u8 physical_block_exp;        /* logical blocks in a physical one, as a power of two */
    u8 alignment_offset;          /* logical blocks from the first physical boundary */
    char id[VIRTIO_BLK_ID_BYTES]; /* zero padded, not terminated */
    struct blk_limits limits;
};

/* A place in a request's segments. */
struct blk_cursor {
    u32 segment;
    u32 offset;
};

struct blk_request {
    struct ring *ring;
    struct blk_request *next; /* in the queue */
    u16 tag;
    u16 segments;
    u16 readable;
    bool busy; /* taken from the ring and not answered */
    bool unmap;
    enum blk_op op;
    u64 lba;
    u64 bytes; /* to read, write, zero or discard */
    u64 done;  /* of these, done */
    u64 readable_bytes;
    u64 writable_bytes;
    struct blk_cursor cursor; /* where byte `done` is */
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
};

/* One command's worth of work for a driver. It is the driver's from `submit` until it calls blk_io_done. */
struct blk_io {
    enum blk_op op;
    u32 index;  /* 0 .. depth - 1, unique among the I/Os in flight: a natural slot number */
    u64 lba;    /* in sectors of 512 bytes */
    u32 bytes;  /* at least one logical block and a multiple of it; 0 for a flush */
    bool unmap; /* BLK_ZERO: may give the space back */
    /* the class's own */
    bool busy;
    struct blk_request *request;
    u8 *bounce;
    u32 walked; /* bytes that blk_next_piece has given out */
    struct blk_cursor cursor;
};

struct blk_driver {
    const char *name;
    /* Reset and bring up the device; fill *disk. Errors: the device is absent, broken or of a kind we do not drive. */
    status_t (*start)(struct blk_disk *disk);
    /* Start *io. At most limits.depth are out; a flush comes only when no other I/O is, and none comes until it is
     * done. */
    void (*submit)(struct blk_io *io);
    /* Look at the device, blk_io_done() what it finished. True when there was something. */
    bool (*poll)(void);
    /*
     * Microseconds after which to poll at the latest while I/Os are out. NULL: only the interrupt matters, or, in a
     * machine without, what suits a device that takes its time by itself.
     */
    u64 (*timeout)(void);
};
extern const struct blk_driver blk_driver;

/* The next piece of the data of a read or write, in order, within the limits; false at the end. */
bool blk_next_piece(struct blk_io *io, struct blk_piece *piece);

/* The driver is done with io; ok: all its bytes were moved. */
void blk_io_done(struct blk_io *io, bool ok);

/* ---- blk_layout.c: pure functions on a request's segments ---- */

/* What to do with a request whose header was read. */
enum blk_verdict { BLK_VERDICT_IO, BLK_VERDICT_OK, BLK_VERDICT_ID, BLK_VERDICT_ERROR, BLK_VERDICT_UNSUPPORTED };

/* Sum up the segments. False: an empty one, or readable and writable do not stand as `readable` says. */
NODISCARD bool blk_measure(struct blk_request *request);

/* Read the header (once), check all of it against the segments and the disk, fill op, lba, bytes and the cursor. */
enum blk_verdict blk_parse(struct blk_request *request, const struct blk_disk *disk);

/* One logical block in bytes. */
static inline u32 blk_block_bytes(const struct blk_disk *disk)
{
    return VIRTIO_BLK_SECTOR << disk->logical_block_exp;
}

/* Largest range of one discard or write zeroes request, in sectors: no guest keeps a disk busy for long with one. */
#define BLK_MAX_RANGE 65536u

/* Copy between a buffer and the request's segments, from *cursor on, which moves along. */
enum blk_direction { BLK_FROM_SEGMENTS, BLK_TO_SEGMENTS };
void blk_copy(const struct blk_request *request, struct blk_cursor *cursor, void *buffer, u64 bytes,
              enum blk_direction direction);

/* Move *cursor on by `bytes`. */
void blk_advance(const struct blk_request *request, struct blk_cursor *cursor, u64 bytes);

/* The largest I/O at the cursor that needs no bounce buffer: bytes, whole logical blocks, 0 when there is none. */
u32 blk_plan_direct(const struct blk_request *request, const struct blk_disk *disk);

/* The piece at *cursor of at most `left` bytes and within the limits; *cursor moves past it. */
void blk_piece_at(const struct blk_request *request, const struct blk_limits *limits, struct blk_cursor *cursor,
                  u64 left, struct blk_piece *piece);

/* Write the status byte and return the used length (VirtIO 1.2 2.7.8); data: bytes written at the writable part's
 * start. */
u32 blk_finish(const struct blk_request *request, u8 status, u64 data);
