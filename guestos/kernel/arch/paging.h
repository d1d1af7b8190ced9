/*
 * The kernel's address space: physical memory one to one, no page both writable and executable, page 0 and the stack's
 * guard page absent. Addresses are therefore physical and virtual at once, and the device address of a buffer is its
 * pointer.
 */
#pragma once

#include "guestos/kernel/arch/pvh.h"
#include "shared/lib/types.h"

/* Build the tables from RAM in *boot and switch to them. After frames_init; running out of frames is a panic. */
void paging_init(const struct pvh_boot *boot);

/* Map [physical, physical + size) uncached, writable, not executable, and return the pointer to it. Repeating it is
 * harmless. */
volatile u8 *paging_map_device(u64 physical, u64 size);

/*
 * For experiments: the page at `address` gets this entry as it is (0: absent), whatever it says; tables above it are
 * made where they are missing. Addresses from 1 TiB on are used by nobody else.
 */
#define PAGING_EXPERIMENTS (1ull << 40)
#define PAGING_PRESENT_WRITE 3ull
#define PAGING_USER 4ull
void paging_set_entry(u64 address, u64 entry);
