/* VirtIO 1.2 section 5.2: the block device. */
#pragma once

#include "shared/lib/types.h"

#define VIRTIO_ID_BLOCK 2u

#define VIRTIO_BLK_F_SIZE_MAX (1ull << 1)
#define VIRTIO_BLK_F_SEG_MAX (1ull << 2)
#define VIRTIO_BLK_F_RO (1ull << 5)
#define VIRTIO_BLK_F_BLK_SIZE (1ull << 6)
#define VIRTIO_BLK_F_FLUSH (1ull << 9)
#define VIRTIO_BLK_F_TOPOLOGY (1ull << 10)
#define VIRTIO_BLK_F_DISCARD (1ull << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)

#define VIRTIO_BLK_T_IN 0u
#define VIRTIO_BLK_T_OUT 1u
#define VIRTIO_BLK_T_FLUSH 4u
#define VIRTIO_BLK_T_GET_ID 8u
#define VIRTIO_BLK_T_DISCARD 11u
#define VIRTIO_BLK_T_WRITE_ZEROES 13u
#define VIRTIO_BLK_ID_BYTES 20u

#define VIRTIO_BLK_S_OK 0u
#define VIRTIO_BLK_S_IOERR 1u
#define VIRTIO_BLK_S_UNSUPP 2u

#define VIRTIO_BLK_SECTOR 512u

struct virtio_blk_config { /* 5.2.4 */
    u64 capacity;          /* in 512-byte sectors */
    u32 size_max;
    u32 seg_max;
    u16 cylinders;
    u8 heads;
    u8 sectors;
    u32 blk_size;
    u8 physical_block_exp;
    u8 alignment_offset;
    u16 min_io_size;
    u32 opt_io_size;
    u8 writeback;
    u8 unused0;
    u16 num_queues;
    u32 max_discard_sectors;
    u32 max_discard_seg;
    u32 discard_sector_alignment;
    u32 max_write_zeroes_sectors;
    u32 max_write_zeroes_seg;
    u8 write_zeroes_may_unmap;
    u8 unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct virtio_blk_config) == 60, "5.2.4 up to unused1");

struct virtio_blk_req { /* 5.2.6: first, device-readable; the data and one status byte follow */
    u32 type;
    u32 reserved;
    u64 sector;
};
_Static_assert(sizeof(struct virtio_blk_req) == 16, "5.2.6");

struct virtio_blk_range { /* 5.2.6: the data of a discard or write zeroes request, device-readable */
    u64 sector;
    u32 sectors;
    u32 flags;
};
_Static_assert(sizeof(struct virtio_blk_range) == 16, "5.2.6");
#define VIRTIO_BLK_RANGE_UNMAP 1u /* zeroes may be made by giving the space back; of a discard it must be 0 */
