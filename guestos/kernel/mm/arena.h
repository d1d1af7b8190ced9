/*
 * The I/O arena: one physically contiguous region from which all virtqueues and I/O buffers come. A hypervisor that
 * grants pages to a driver VM thus never has to grant a page of anything else. Allocation is a stack: take a mark,
 * allocate, release to the mark. One thread.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

/* Reserve it: 40 MiB, or a sixth of RAM when that is less. ERR_NO_MEMORY: not even 1 MiB in one piece. */
NODISCARD status_t arena_init(void);

/* `size` bytes aligned to `align` (a power of two); NULL when the arena is used up. Contents are undefined. */
void *arena_alloc(u64 size, u64 align);

/* Why a device is not usable, in English: what is out of memory has found no room in the arena. */
const char *arena_status_text(status_t status);

u64 arena_mark(void);
void arena_release(u64 mark);

u64 arena_base(void);
u64 arena_size(void);
u64 arena_free(void); /* bytes that are left */
