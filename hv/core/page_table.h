/*
 * Radix page tables of 512 entries: one builder for the hypervisor's own map, nested page tables and VT-d second-level
 * tables. The formats differ in the bits of an entry only (struct page_format).
 *
 * The builder never invalidates a TLB: that is the caller's duty, in its order (unmap, invalidate, then reuse the
 * frame). Context: hv lock held. Tables come from frame_alloc() and stay.
 */
#pragma once

#include "hv/core/frames.h"

#define PAGE_READ 1u
#define PAGE_WRITE 2u
#define PAGE_EXECUTE 4u
#define PAGE_UNCACHED 8u
#define PAGE_RIGHTS 4u

#define PAGE_TABLE_REACH (1ull << 48) /* four levels; addresses lie below */

struct page_format {
    u32 superpages;         /* bit 1: 2 MiB leaves allowed, bit 2: 1 GiB leaves allowed (bit n = level n) */
    u64 table;              /* an entry that refers to a table: it allows everything, the leaf alone decides */
    u64 leaf;               /* in every leaf */
    u64 inverted;           /* bits that a right clears instead of sets */
    u64 right[PAGE_RIGHTS]; /* the bits of PAGE_READ, PAGE_WRITE, ... in the order of their values; 0: ignored */
    /* After entries [first, first+count) were written: flush for hardware that does not snoop. May be NULL. */
    void (*wrote)(const u64 *first, u32 count);
};

/*
 * Superpages and wrote() depend on the machine: copy a format and change these where CPU or unit has less. A present
 * x86 entry is always readable. VT-d ignores EXECUTE and UNCACHED.
 */
extern const struct page_format page_format_x86; /* own map; the bits of linear addresses above 47 are the caller's */
extern const struct page_format page_format_npt; /* the same, all for the user: it walks as one (APM 2 15.25.5) */
extern const struct page_format page_format_ept;
extern const struct page_format page_format_vtd;

struct page_table {
    const struct page_format *format;
    hpa_t root;
    u32 frames; /* that its tables take, so far */
};

/* An empty table. ERR_NO_MEMORY. */
NODISCARD status_t page_table_create(struct page_table *pt, const struct page_format *format);

/*
 * Map [at, at+size) to [hpa, hpa+size), page multiples, with the largest pages that alignment and format allow (smaller
 * ones where a table of earlier mappings stands: tables are never given back to be reused while caches may hold them).
 * Errors: ERR_INVALID (alignment, size 0, no rights), ERR_RANGE (beyond PAGE_TABLE_REACH), ERR_EXISTS (something is
 * mapped there), ERR_NO_MEMORY (what was mapped so far is taken back).
 */
NODISCARD status_t page_table_map(struct page_table *pt, u64 at, hpa_t hpa, u64 size, u32 rights);

/*
 * Remove [at, at+size). Parts that are not mapped are skipped, absent tables whole: a large sparse range costs one pass
 * over the tables that are there. A superpage that sticks out is refused (ERR_INVALID, nothing changed).
 */
NODISCARD status_t page_table_unmap(struct page_table *pt, u64 at, u64 size);

/* Set the rights of the mapped 4 KiB page at `at`. ERR_NOT_FOUND, ERR_INVALID (inside a superpage, no rights). */
NODISCARD status_t page_table_protect(struct page_table *pt, u64 at, u32 rights);
