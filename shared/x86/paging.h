/* Entries of page tables with four levels (SDM 3A 4.5.4 tables 4-15 to 4-20, APM 2 5.4.1). All levels have the same
 * bits here. */
#pragma once

#define PTE_PRESENT (1ull << 0)
#define PTE_WRITE (1ull << 1)
#define PTE_USER (1ull << 2)
#define PTE_WRITE_THROUGH (1ull << 3)
#define PTE_CACHE_DISABLE (1ull << 4)
#define PTE_LARGE (1ull << 7) /* above the lowest level: a page, no table */
#define PTE_NO_EXECUTE (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull
