/* Building and reading what goes between HBA and disk. Pure: memory in, memory out, no registers; tested on the host.
 */
#pragma once

#include "drivervm/drivers/ahci/regs.h"
#include "drivervm/runtime/blk.h"

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
