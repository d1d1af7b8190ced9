#include "drivervm/drivers/ahci/command.h"
#include "shared/lib/string.h"

#define LBA48_END (1ull << 48)

/* ATA strings hold the first character of each pair in the high byte (ACS-3 3.3.10). */
static void copy_string(char *out, const u16 *words, size_t count)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        out[2 * i] = (char)(words[i] >> 8);
        out[2 * i + 1] = (char)words[i];
    }
    for (size_t i = 0; i < 2 * count; i++)
        if (out[i] != ' ' && out[i] != 0)
            length = i + 1;
    memset(out + length, 0, 2 * count + 1 - length);
}

static void parse_topology(const u16 words[256], struct ata_identity *identity)
{
    /* Word 106: bit 14 set and 15 clear make it valid; bit 13: several logical sectors in a physical one, 2^(3:0). */
    if ((words[106] & 0xe000) == 0x6000)
        identity->physical_block_exp = words[106] & 0xf;
    /* Word 209: as valid as 106, the offset of LBA 0 in its physical sector. VirtIO has 8 bits for it. */
    if ((words[209] & 0xc000) == 0x4000 && (words[209] & 0x3fff) < (1u << identity->physical_block_exp))
        identity->alignment_offset = (u8)(words[209] & 0x3fff);
}

status_t ata_parse_identity(const u16 words[256], struct ata_identity *identity)
{
    memset(identity, 0, sizeof(*identity));
    bool dma = words[49] & 1u << 8;
    bool lba48 = (words[83] & 0xe400) == 0x6400; /* 15:14 = 01: valid; bit 13: FLUSH CACHE EXT; bit 10: 48-bit LBA */
    bool long_sectors = (words[106] & 0xd000) == 0x5000; /* bit 12: logical sectors are longer than 512 bytes */
    if (!dma || !lba48 || long_sectors)
        return ERR_UNSUPPORTED;
    identity->sectors = words[100] | (u64)words[101] << 16 | (u64)words[102] << 32 | (u64)words[103] << 48;
    if (identity->sectors == 0 || identity->sectors > LBA48_END)
        return ERR_FORMAT;
    if (words[76] != 0xffff && (words[76] & 1u << 8))
        identity->queue_depth = (words[75] & 0x1f) + 1;
    parse_topology(words, identity);
    copy_string(identity->serial, &words[10], 10);
    copy_string(identity->model, &words[27], 20);
    return OK;
}

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
