/*
 * A machine's PCI functions without hardware: stands in for hv/pci/config.c. Registers have writable bits and bits that
 * a one clears; function-level and bus resets put a function back to its power-on values; time goes on by itself.
 */
#pragma once

#include "hv/pci/internal.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

struct fake_function {
    u16 bdf;
    u8 space[PCI_CONFIG_SIZE];
    u8 writable[PCI_CONFIG_SIZE];
    u8 clears[PCI_CONFIG_SIZE];   /* write one to clear */
    u8 power_on[PCI_CONFIG_SIZE]; /* see fake_pci_power_on() */
    u32 express;                  /* offset of the capability whose reset bit works; 0: none */
    u32 resets;
    u32 silent; /* so many vendor reads give 0xffff; ~0: for ever */
    u32 silent_after_reset;
    u32 window; /* offset of a register that leads elsewhere: accesses to it go through window_access; 0: none */
    u32 (*window_access)(struct fake_function *f, bool write, u32 value);
};

/* Remove all functions. */
void fake_pci_clear(void);
/* A function with header type 0, command bits I/O, memory and bus master as firmware leaves them. */
struct fake_function *fake_pci_add(u16 bdf, u32 class_code);
struct fake_function *fake_pci_add_bridge(u16 bdf, u8 secondary_bus);
void fake_pci_put(struct fake_function *f, u32 offset, u32 width, u32 value);
u32 fake_pci_get(const struct fake_function *f, u32 offset, u32 width);
/* BAR `index` of `size` bytes, with its low type bits in `type`, at `address`. A 64-bit one takes two. */
void fake_pci_bar(struct fake_function *f, u32 index, u64 address, u64 size, u32 type);
/* A capability at `offset`, put in front of the list. Its `size` bytes behind the header are writable when `open`. */
void fake_pci_capability(struct fake_function *f, u8 id, u8 offset, u32 size, bool open);
/* What a reset leaves: the present registers with BARs, command and open capability registers zeroed. */
void fake_pci_power_on(struct fake_function *f);

/* As of a CPU with 40 bits of physical address. */
#define FAKE_PHYSICAL_END (1ull << 40)

/* Where paging_map_device() leads: one page of MSI-X table. */
extern u32 fake_msix_page[1024];
