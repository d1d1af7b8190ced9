/* What IDENTIFY DEVICE tells about a disk (ATA-6 8.15, ACS-3 7.12.7), on whatever wire it is. Pure; tested on the host.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

struct ata_identity {
    u64 sectors;     /* of 512 bytes */
    u32 queue_depth; /* for queued commands; 0: the disk has none */
    u32 block;       /* sectors of one data block of READ and WRITE MULTIPLE at most; 0: there are no such commands */
    u8 physical_block_exp;
    u8 alignment_offset;
    bool dma;
    bool lba48; /* 48-bit addresses; else 28 bits */
    bool flush; /* FLUSH CACHE, FLUSH CACHE EXT */
    bool flush_ext;
    char serial[21]; /* NUL terminated, trailing blanks cut */
    char model[41];
};

/*
 * Read the 256 words. The disk is hostile. ERR_UNSUPPORTED: no LBA, or logical sectors that are not 512 bytes.
 * ERR_FORMAT: a capacity that cannot be.
 */
NODISCARD status_t ata_parse_identity(const u16 words[256], struct ata_identity *identity);
