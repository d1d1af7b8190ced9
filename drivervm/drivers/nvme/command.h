/* Building commands and reading what the controller tells of itself. Pure: memory in, memory out; tested on the host.
 */
#pragma once

#include "drivervm/drivers/nvme/regs.h"
#include "drivervm/runtime/blk.h"

/* What a command of ours needs beside its queue entry, each in one page (4.3: a list may not cross one). */
struct nvme_slot {
    u64 list[NVME_LIST];
};
_Static_assert(PAGE_SIZE % sizeof(struct nvme_slot) == 0, "NVMe 4.3");
#define NVME_MAX_BYTES (NVME_LIST * (u32)PAGE_SIZE) /* wherever they begin: PRP1 is one page more */

/* What IDENTIFY CONTROLLER tells us. */
struct nvme_controller {
    u32 max_bytes; /* of one command, at most NVME_MAX_BYTES */
    bool dataset;
    bool write_zeroes;
    char serial[21]; /* NUL terminated, trailing blanks cut */
    char model[41];
};

/* What IDENTIFY NAMESPACE tells us. */
struct nvme_namespace {
    u64 blocks;
    u32 block_exp; /* bytes of a block, as a power of two: 9 to 12 */
    u64 unique[3]; /* NGUID and EUI64; zeros when it has none */
};

/* The device is hostile. ERR_UNSUPPORTED: queue entries of other sizes. */
NODISCARD status_t nvme_parse_controller(const struct nvme_identify_controller *raw, struct nvme_controller *out);

/* ERR_UNSUPPORTED: metadata, protection, or blocks of other sizes. ERR_FORMAT: a capacity that cannot be. */
NODISCARD status_t nvme_parse_namespace(const struct nvme_identify_namespace *raw, struct nvme_namespace *out);

/* The command for io, with its PRPs; slot is its memory. False: io breaks the limits that we named. */
NODISCARD bool nvme_build_io(struct nvme_command *command, struct nvme_slot *slot, u32 nsid, u32 block_exp,
                             struct blk_io *io);
