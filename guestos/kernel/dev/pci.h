/* PCI configuration space by ports 0xcf8/0xcfc (PCI 3.0, 3.2.2.3.2). One thread. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/pci/registers.h"

struct pci_device {
    u16 bdf; /* bus << 8 | device << 3 | function */
    u16 vendor;
    u16 device;
};

struct pci_bar {
    u64 base; /* physical address, or the first port; 0: not assigned */
    bool io;
};

u8 pci_read8(u16 bdf, u32 offset);
u16 pci_read16(u16 bdf, u32 offset);
u32 pci_read32(u16 bdf, u32 offset);
void pci_write16(u16 bdf, u32 offset, u16 value);

/* Call visit for every function behind the root, bridges included, until it returns true. True when it did. */
bool pci_scan(bool (*visit)(const struct pci_device *device, void *context), void *context);

/* The offset of the next capability `id` after the one at `after` (0: the first); 0 when there is none. */
u8 pci_find_capability(u16 bdf, u8 id, u8 after);

/* BAR `index` (0..5) as firmware has assigned it. */
struct pci_bar pci_read_bar(u16 bdf, u32 index);
