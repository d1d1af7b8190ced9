/*
 * The hypervisor's own address space (SDM 3A 4.5), one for all CPUs, built once at boot:
 *
 *   0xffff800000000000  direct map of all RAM, writable, never executable (hpa_to_ptr); not the image's text and rodata
 *   0xffffa00000000000  devices, uncached (paging_map_device)
 *   0xffffb00000000000  stacks of the CPUs but the first, each with an unmapped guard page below
 *   0xffffffff80000000  the image: text R-X, read-only data R--, data RW-; a guard page below the first CPU's stack
 *
 * Nothing is both writable and executable, and no code is writable under another address.
 */
#pragma once

#include "hv/core/frames.h"

#define DIRECT_MAP_BASE 0xffff800000000000ull
#define CPU_STACK_SIZE (8 * PAGE_SIZE)

/* Build the tables and switch to them. Boot CPU, once, after frames_init(). */
NODISCARD status_t paging_init(const struct boot_info *boot);

/* Uncached mapping of a device's registers; also makes hpa_to_ptr()-like access by the returned pointer possible. Boot
 * only; panics when out of space. */
void *paging_map_device(hpa_t at, u64 size);

/* The first address that no page-table entry can hold (SDM 3A 4.1.4). No lock needed. */
u64 paging_physical_end(void);

/* A stack for a CPU with a guard page below it; returns its top. ERR_NO_MEMORY. */
NODISCARD status_t paging_create_stack(u32 cpu, void **top);

/* Physical address of the root, for CPUs that come up. */
u64 paging_root(void);

/* The start-up page of other CPUs below 1 MiB, mapped one to one and executable while they start; unmap when they run.
 */
NODISCARD status_t paging_map_trampoline(hpa_t page);
void paging_unmap_trampoline(hpa_t page);
