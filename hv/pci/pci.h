/*
 * Physical PCI: enumeration, configuration access (ECAM or ports), resets, interrupts.
 *
 * Every device is enumerated once at boot and then left with bus mastering and INTx off until a driver VM owns it.
 * Context: hv lock held. No function trusts what configuration space says: lists are bounded, BARs are checked against
 * RAM.
 */
#pragma once

#include "shared/abi/boot_info.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define PCI_MAX_DEVICES 64u

/* For messages: "pci " BDF_FORMAT, BDF_PARTS(dev->bdf) */
#define BDF_FORMAT "%02x:%02x.%x"
#define BDF_PARTS(bdf) (bdf) >> 8, (bdf) >> 3 & 31, (bdf)&7

enum pci_reset_kind { PCI_RESET_NONE, PCI_RESET_FLR, PCI_RESET_BUS, PCI_RESET_DRIVER };
extern const char *const pci_reset_name[]; /* "none", "flr", "bus", "driver" */

struct pci_bar {
    u64 address; /* host-physical, or port */
    u64 size;    /* 0: absent */
    bool memory;
    bool fixed; /* of an IDE channel in compatibility mode: among the ISA devices' ports */
};

struct pci_device {
    u16 bdf;
    u16 vendor, device;
    u32 class_code;            /* base << 16 | sub << 8 | interface */
    u8 header_type;            /* 0 device, 1 bridge */
    u8 secondary_bus;          /* of a bridge */
    struct pci_device *bridge; /* upstream, NULL on the root bus */
    struct pci_bar bar[6];
    u8 cap_msi, cap_msix, cap_express; /* offsets; 0: absent */
    bool has_flr;
    bool past_iommu; /* it says itself that its DMA is not translated, see virtio_platform.c */
    bool assigned;   /* to a driver VM */

    /* Taken once at enumeration, so that the device cannot change its mind later. */
    u32 bar_raw[6];      /* what firmware wrote into the BAR registers */
    u16 command;         /* as firmware left it, bus mastering off (on in bridges) */
    u16 express_control; /* Device Control of the PCI Express capability */
    hpa_t msix_table, msix_pba;
    u32 msix_count;

    /* The interrupt in force, so that a reset can restore it. */
    bool message_on, intx_on;
    u64 message_address;
    u32 message_data;
    volatile u32 *msix_entries; /* the mapped table, from the first pci_enable_message() on */
};

extern struct pci_device pci_devices[PCI_MAX_DEVICES];
extern u32 pci_device_count;

/*
 * Scan buses first..last of segment 0, through the ECAM of MCFG at `ecam`, or 0: by ports 0xcf8 and 0xcfc. Bus
 * mastering is turned off everywhere except in bridges, INTx in all; bridges get what they have of access control (no
 * forged requester ids, no peer-to-peer past the IOMMU). A BAR that is unassigned, wraps, lies in RAM of the memory
 * map, in the ECAM window or among interrupt controllers, or shares a page with another device's is treated as absent.
 * Errors: ERR_RANGE (first bus after last), ERR_NOT_FOUND (no device at all). Boot, once, before iommu_init().
 */
NODISCARD status_t pci_enumerate(hpa_t ecam, u8 first_bus, u8 last_bus, const struct boot_memory *map, u32 map_count);

/* NULL: no such device. */
struct pci_device *pci_find_address(u16 bdf);
/* The first device of that class which is not assigned. */
struct pci_device *pci_find_class(u32 class_code, u32 class_mask);

/* Raw access; offset aligned to width (1, 2, 4), below 4096; by ports what is above 256 reads all ones. */
u32 pci_read(const struct pci_device *dev, u32 offset, u32 width);
void pci_write(const struct pci_device *dev, u32 offset, u32 width, u32 value);

/* Command register: bus mastering on or off; memory and port decoding are on while the device is assigned. */
void pci_set_bus_master(const struct pci_device *dev, bool on);

/*
 * The driver VM's view of its device's configuration space: reads of the header and standard capabilities pass (BARs as
 * they are); the command register may be written as a whole, 16 bits wide (I/O, memory, bus master, INTx disable).
 * *bus_master says that the write asks for bus mastering: it is not carried out here but by driver_enable_dma(). A
 * write that clears it takes effect at once. INTx stays disabled unless it was enabled here. Errors: ERR_INVALID
 * (offset, width, alignment), ERR_DENIED.
 */
NODISCARD status_t pci_driver_read(const struct pci_device *dev, u32 offset, u32 width, u32 *value);
NODISCARD status_t pci_driver_write(const struct pci_device *dev, u32 offset, u32 width, u32 value, bool *bus_master);

/*
 * Reset the device: FLR (PCIe 5.0 6.6.2), else secondary bus reset when nothing else lives behind that bridge, else
 * nothing (PCI_RESET_DRIVER: its own driver must do it at start). Bus mastering is off before and after; BARs, command
 * and MSI are restored from what was enumerated. Bounded waits as the specification asks (100 ms after FLR unless the
 * device answers sooner: it polls). Returns the kind that was done; PCI_RESET_NONE: the device does not answer any
 * more.
 */
enum pci_reset_kind pci_reset_device(struct pci_device *dev);

/* Which kind pci_reset_device() would use. */
enum pci_reset_kind pci_reset_kind(const struct pci_device *dev);

/*
 * One message for the device: MSI, or MSI-X entry 0 with all others masked. The driver VM cannot reach either; it
 * survives pci_reset_device(). Turns memory decoding on for MSI-X. First call at boot. ERR_UNSUPPORTED: neither
 * capability.
 */
NODISCARD status_t pci_enable_message(struct pci_device *dev, u64 address, u32 data);
/* The registers that make an IDE controller master the bus (PCI IDE Controller 1.0: BAR 4) are not given away. */
void pci_withhold_dma(struct pci_device *dev);

/* Let the device use its interrupt pin; survives pci_reset_device(), too. */
void pci_enable_intx(struct pci_device *dev);
/* Neither message nor pin. */
void pci_disable_interrupt(struct pci_device *dev);

/* The interrupt lines of the device's pin: ISA's 14 and 15 of IDE channels in compatibility mode, else the one that
 * firmware noted. Returns how many; 0: none. */
#define PCI_LINES 2u
struct pci_line {
    u8 irq;   /* 0..15 */
    bool isa; /* edge, high; else level, low (PCI 3.0 2.2.6) */
};
u32 pci_lines(const struct pci_device *dev, struct pci_line line[PCI_LINES]);

/* True when [hpa, hpa+size) touches the MSI-X table or PBA pages of the device: not mapped into the driver VM. */
bool pci_is_msix_page(const struct pci_device *dev, hpa_t page);
