/*
 * Bytes that come in pieces of any size, written to a disk from its first sector on while more of them come. There is
 * one writer; its buffers are the command's, in the I/O arena. disk_writer_add never waits, so that a callback of lwIP
 * may call it; who sees disk_writer_is_tight must let disk_writer_drain wait before more than DISK_WRITER_RESERVE bytes
 * follow.
 */
#pragma once

#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/net/lwip.h"
#include "shared/lib/types.h"

#define DISK_WRITER_RESERVE ((u32)TCP_WND)

/* False: the I/O arena has no room; says so. */
NODISCARD bool disk_writer_open(struct blk *disk);

/* What does not fit the disk, or follows an error, is dropped; disk_writer_finish will tell. */
void disk_writer_add(const u8 *data, u32 size);

bool disk_writer_is_tight(void);

/* Wait for a completion, for a moment at most. Not inside callbacks. */
void disk_writer_drain(void);

/* Write the last sector, the rest of it zeroes, wait for all, and flush. An enum shell_status; says what went wrong. */
int disk_writer_finish(void);
