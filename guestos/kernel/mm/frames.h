/*
 * Page frames: one bitmap over the RAM above the first megabyte. Allocation is first fit from low addresses, so that
 * early page tables lie where the boot map reaches. One thread; not for interrupt handlers.
 */
#pragma once

#include "guestos/kernel/arch/pvh.h"
#include "shared/lib/types.h"

struct frames_info {
    u64 total; /* bytes of RAM that the allocator manages */
    u64 free;  /* bytes */
    u64 end;   /* the first address above all RAM */
};

/* Take over the RAM in *boot, less the kernel image. A machine with too little RAM for the bitmap is a panic. */
void frames_init(const struct pvh_boot *boot);

/* `count` contiguous frames, physical address aligned to `align` (a power of two, at least a page); 0 when there are
 * none. */
u64 frames_alloc(u64 count, u64 align);
void frames_free(u64 address, u64 count);
struct frames_info frames_get_info(void);

/*
 * Canaries: a seeded pattern in every free frame, to see whether somebody else (a device, a driver VM) wrote to memory
 * that it was never handed. A frame that is allocated loses its canary. Both call progress(bytes so far) now and then
 * and stop when it returns false.
 */
u64 frames_set_canaries(u64 seed, bool (*progress)(u64 bytes));             /* bytes that were filled */
u64 frames_check_canaries(u64 *changed_words, bool (*progress)(u64 bytes)); /* bytes that were compared */
u64 frames_get_canary_seed(void);
