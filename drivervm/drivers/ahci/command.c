#include "drivervm/drivers/ahci/command.h"
#include "shared/lib/string.h"

static void fis_set_lba(struct fis_h2d *fis, u64 lba)
{
    for (u32 i = 0; i < 3; i++) {
        fis->lba_low[i] = (u8)(lba >> 8 * i);
        fis->lba_high[i] = (u8)(lba >> (24 + 8 * i));
    }
}

static struct fis_h2d fis_new(u8 command)
{
    return (struct fis_h2d){.type = FIS_TYPE_H2D, .flags = FIS_COMMAND, .command = command, .device = FIS_DEVICE_LBA};
}

void fis_build_io(struct fis_h2d *fis, const struct blk_io *io, bool queued, u32 slot)
{
    u32 sectors = io->bytes / VIRTIO_BLK_SECTOR; /* 65536 is written as 0, which cutting to 16 bits does */
    bool write = io->op == BLK_WRITE;

    if (io->op == BLK_FLUSH) {
        *fis = fis_new(ATA_FLUSH_CACHE_EXT);
        return;
    }
    if (queued) { /* ACS-3 7.27: the count stands in FEATURE, the tag in COUNT 7:3 */
        *fis = fis_new(write ? ATA_WRITE_FPDMA_QUEUED : ATA_READ_FPDMA_QUEUED);
        fis->feature_low = (u8)sectors;
        fis->feature_high = (u8)(sectors >> 8);
        fis->count_low = (u8)(slot << 3);
    } else {
        *fis = fis_new(write ? ATA_WRITE_DMA_EXT : ATA_READ_DMA_EXT);
        fis->count_low = (u8)sectors;
        fis->count_high = (u8)(sectors >> 8);
    }
    fis_set_lba(fis, io->lba);
}

void fis_build_fetch(struct fis_h2d *fis, u8 command, u8 log)
{
    *fis = fis_new(command);
    if (command == ATA_READ_LOG_EXT) {
        fis->count_low = 1;
        fis->lba_low[0] = log;
    }
}

u32 prdt_build(struct prd *prd, struct blk_io *io)
{
    struct blk_piece piece;
    u32 count = 0;

    while (blk_next_piece(io, &piece)) {
        bool even = ((piece.address | piece.length) & 1) == 0;
        if (count == AHCI_PRDS || !even || piece.length == 0 || piece.length > PRD_MAX_BYTES)
            return 0;
        prd[count++] = (struct prd){.address = dma_address(piece.address), .count = piece.length - 1};
    }
    return count;
}

status_t ncq_log_tag(const u8 log[512], u32 *tag)
{
    u8 sum = 0;

    for (u32 i = 0; i < 512; i++)
        sum += log[i];
    if (sum != 0 || (log[0] & 0x80)) /* bit 7, NQ: the command that failed was not a queued one */
        return ERR_FORMAT;
    *tag = log[0] & 0x1f;
    return OK;
}
