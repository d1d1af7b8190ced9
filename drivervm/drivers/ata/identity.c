#include "drivervm/drivers/ata/identity.h"
#include "shared/lib/string.h"

#define LBA28_END (1ull << 28)
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

static void parse_abilities(const u16 words[256], struct ata_identity *identity)
{
    bool valid = (words[83] & 0xc000) == 0x4000;

    identity->dma = words[49] & 1u << 8;
    identity->lba48 = valid && (words[83] & 1u << 10);
    identity->flush = valid && (words[83] & 1u << 12);
    identity->flush_ext = valid && (words[83] & 1u << 13);
    identity->block = words[47] & 0xff;
    if (words[76] != 0xffff && (words[76] & 1u << 8))
        identity->queue_depth = (words[75] & 0x1f) + 1;
}

status_t ata_parse_identity(const u16 words[256], struct ata_identity *identity)
{
    memset(identity, 0, sizeof(*identity));
    bool lba = words[49] & 1u << 9;
    bool long_sectors = (words[106] & 0xd000) == 0x5000; /* bit 12: logical sectors are longer than 512 bytes */
    if (!lba || long_sectors)
        return ERR_UNSUPPORTED;
    parse_abilities(words, identity);
    identity->sectors = words[60] | (u64)words[61] << 16;
    if (identity->lba48)
        identity->sectors = words[100] | (u64)words[101] << 16 | (u64)words[102] << 32 | (u64)words[103] << 48;
    if (identity->sectors == 0 || identity->sectors > (identity->lba48 ? LBA48_END : LBA28_END))
        return ERR_FORMAT;
    parse_topology(words, identity);
    copy_string(identity->serial, &words[10], 10);
    copy_string(identity->model, &words[27], 20);
    return OK;
}
