/*
 * Physical frames of 4 KiB, out of all RAM that the loader called free: a list of ranges. Nothing is given back: VMs
 * live as long as the machine, and page tables keep their frames.
 *
 * Context: hv lock held (or boot, before other CPUs run). Nothing here is reachable by a guest except through limits
 * that callers check at boot: frames are taken when VMs are created and for page tables of grants, whose number is
 * bounded by the guest's memory.
 */
#pragma once

#include "shared/abi/boot_info.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

/*
 * The hypervisor's pointer to physical memory (the direct map), and back. Valid for RAM and for MMIO that was mapped by
 * paging_map_device(). In unit tests a fake maps an arena.
 */
void *hpa_to_ptr(hpa_t hpa);
hpa_t ptr_to_hpa(const void *ptr);

/* Take over the FREE ranges of the memory map, but frames below 1 MiB (SMP start-up code takes its own). ERR_NO_MEMORY.
 */
NODISCARD status_t frames_init(const struct boot_memory *map, u32 count);

/* One zeroed frame. ERR_NO_MEMORY. */
NODISCARD status_t frame_alloc(hpa_t *out);

/*
 * `count` contiguous frames, the first aligned to `align` bytes (power of two >= 4096); contents undefined.
 * ERR_NO_MEMORY when no run is long enough, ERR_INVALID for count 0 or a bad align.
 */
NODISCARD status_t frames_alloc(u64 count, u64 align, hpa_t *out);

/* At boot: `count` contiguous zeroed frames for `what`, without which there is nothing to start: else boot_fail(). */
void *boot_frames(u64 count, const char *what);

/* How many are left, and how many there were. Written here only. */
extern u64 frames_free_count, frames_total_count;

/* The longest run of free frames that starts at a multiple of align (as above): what frames_alloc could still serve. */
u64 frames_largest_run(u64 align);
