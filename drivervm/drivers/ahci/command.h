/* Building and reading what goes between HBA and disk. Pure: memory in, memory out, no registers; tested on the host.
 */
#pragma once

#include "drivervm/drivers/ahci/regs.h"
#include "drivervm/runtime/blk.h"

/* What IDENTIFY DEVICE tells us (ACS-3 7.12.7). */
struct ata_identity {
    u64 sectors;     /* of 512 bytes */
    u32 queue_depth; /* for queued commands; 0: the disk has none */
    u8 physical_block_exp;
    u8 alignment_offset;
    char serial[21]; /* NUL terminated, trailing blanks cut */
    char model[41];
};

/*
 * Read the 256 words. The disk is hostile. ERR_UNSUPPORTED: no DMA, no 48-bit addresses or flush, or logical
 * sectors that are not 512 bytes. ERR_FORMAT: a capacity that cannot be.
 */
NODISCARD status_t ata_parse_identity(const u16 words[256], struct ata_identity *identity);

/* The FIS for a read, write or flush; queued: as native queued command with tag `slot`. */
void fis_build_io(struct fis_h2d *fis, const struct blk_io *io, bool queued, u32 slot);

/* The FIS for a command that reads one 512-byte block: IDENTIFY, or READ LOG EXT of log page `log`. */
void fis_build_fetch(struct fis_h2d *fis, u8 command, u8 log);

/* Lay out io's pieces; returns the PRDs used, 0 when they do not fit or break AHCI 4.2.3.3. A flush needs none: see
 * io->bytes. */
u32 prdt_build(struct prd *prd, struct blk_io *io);

/* The tag that the NCQ error log (ACS-3 9.13, log 10h) blames. ERR_FORMAT: checksum wrong, or no queued command failed.
 */
NODISCARD status_t ncq_log_tag(const u8 log[512], u32 *tag);
