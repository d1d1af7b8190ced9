/*
 * The contract between the hypervisor and a driver VM: how it starts, what it may ask.
 *
 * Start. An ELF64 ET_EXEC image, linked at DRIVER_LOAD_ADDRESS, is copied to its physical addresses inside the VM's RAM
 * [0, ram_size). The one vCPU starts at e_entry in 64-bit mode, CPL 0, interrupts off, RDI = DRIVER_INFO_ADDRESS,
 * RSP = ram_size (a stack grows down from the end of RAM), a flat GDT, and an identity map of the first 512 GiB (writable,
 * executable, 1 GiB pages) whose tables lie below DRIVER_LOAD_ADDRESS. There is no interrupt controller and no interrupt is ever
 * injected: events arrive through `wait` and the events word. A guest-physical address equals the DMA address of the device
 * wherever an IOMMU translates (see dma_ram_offset).
 *
 * Address space (nothing else exists; touching anything else is a fault of the VM):
 *   [0, ram_size)                        RAM, also reachable by the device's DMA
 *   DRIVER_INFO_ADDRESS                  struct driver_info, read-only
 *   DRIVER_EVENTS_ADDRESS                struct driver_events, read-only
 *   DRIVER_STASH_ADDRESS                 DRIVER_STASH_SIZE bytes, read-write; survives restarts once `stash` accepted it
 *   ring addresses from driver_info      see request_ring.h
 *   bar[i].address                       the device's memory BARs, uncached; port BARs: through in/out. What configuration
 *                                        space says is where the host has them: no address of this VM
 *   DRIVER_WINDOW_BASE + guest address   the guest pages that requests in flight name, with their rights
 *
 * Call. VMMCALL or VMCALL (driver_info.vendor_call says which): RAX = enum hypercall, arguments RDI, RSI, RDX, R10; result in RAX:
 * a value >= 0, or a negative status_t (-ERR_DENIED, ...). All other registers survive.
 */
#pragma once

#include "shared/abi/request_ring.h"
#include "shared/lib/types.h"

#define DRIVER_ABI_VERSION 1u
#define DRIVER_LOAD_ADDRESS 0x10000ull
#define DRIVER_BARS_ADDRESS 0x0300000000ull /* 12 GiB, above all RAM: BAR i begins in the page at + i * DRIVER_BAR_STRIDE */
#define DRIVER_BAR_STRIDE 0x0200000000ull
#define DRIVER_BAR_MOST (2 * DRIVER_BAR_STRIDE) /* more than 4 GiB take two registers, so the next one's room is free */
#define DRIVER_AREA 0x0f00000000ull /* 60 GiB, behind the BARs: pages that belong to the contract */
#define DRIVER_INFO_ADDRESS (DRIVER_AREA)
#define DRIVER_EVENTS_ADDRESS (DRIVER_AREA + 0x1000)
#define DRIVER_STASH_ADDRESS (DRIVER_AREA + 0x2000)
#define DRIVER_STASH_SIZE 4096u
#define DRIVER_RINGS_ADDRESS (DRIVER_AREA + 0x100000) /* queue q: + q * 0x40000; its completion page: + 0x20000 */
#define DRIVER_RING_STRIDE 0x40000ull
#define DRIVER_RING_COMPLETION_OFFSET 0x20000ull
#define DRIVER_WINDOW_BASE 0x1000000000ull /* 64 GiB: guest-physical 0 of the main guest */

enum driver_vendor_call { DRIVER_VMMCALL = 0, DRIVER_VMCALL = 1 };

enum driver_bar_kind { DRIVER_BAR_NONE = 0, DRIVER_BAR_MEMORY = 1, DRIVER_BAR_PORTS = 2 };

/*
 * An IDE controller's channel in compatibility mode has bar[0], [1] (secondary: [2], [3]) whatever its registers say: the
 * eight command ports, and of the control block the one port 0x3f6 (0x376), size 1; in native mode the control port is
 * the third of four. bar[4], the bus master's, is absent with `dma = none`.
 */
struct driver_bar {
    u64 address; /* guest-physical, or the first port */
    u64 size;    /* bytes or ports */
    u32 kind;
    u32 reserved;
};

struct driver_info {
    u32 abi_version;
    u32 vendor_call;  /* enum driver_vendor_call */
    u32 generation;   /* 0 at boot, +1 with each restart */
    u32 queue_count;  /* ring pairs that are mapped: always RING_MAX_QUEUES */
    u64 ram_size;
    u64 tsc_khz;      /* RDTSC is the clock of the whole machine */
    u64 window_size;  /* bytes of guest memory behind DRIVER_WINDOW_BASE */
    /*
     * What to add (modulo 2^64) to an address in RAM, or in the window, to get the device's: both 0 where an IOMMU translates.
     * Without one (`dma = unprotected`) the device sees host memory. With `dma = none` there is no DMA, and both are 0.
     */
    u64 dma_ram_offset;
    u64 dma_window_offset;
    u16 pci_bdf;
    u16 pci_vendor;
    u16 pci_device;
    u16 interrupts;   /* 1: the device's interrupt (message or line) is routed to DRIVER_EVENT_INTERRUPT; 0: poll */
    u32 pci_class;    /* base << 16 | sub << 8 | interface */
    u32 stash_length; /* bytes of the stash that were accepted from the predecessor; 0: none or checksum wrong */
    char name[16];    /* the VM's name in the manifest */
    struct driver_bar bar[6];
};

/* Event bits, as `wait` returns them and as they stand in driver_events.pending. */
#define DRIVER_EVENT_REQUEST 1u   /* some request ring has cells that were not consumed */
#define DRIVER_EVENT_INTERRUPT 2u /* the device sent its interrupt */
#define DRIVER_EVENT_TIMEOUT 4u   /* the time given to `wait` is over */
#define DRIVER_EVENT_FEATURES 8u  /* the guest has accepted features or reset the device; see driver_events.features */

struct driver_events {
    u32 pending; /* set by the hypervisor at any time, cleared by it when `wait` returns them */
    u32 reserved;
    u64 features; /* what the guest accepted; 0 after a device reset */
};

enum hypercall {
    /*
     * wait(timeout_us): hand over completions, let the hypervisor look for new requests, then sleep until an event bit is
     * set. Returns the bits at once when some are. timeout_us 0: do not sleep (a poll); ~0: no time-out. The only call that blocks.
     * A level-triggered interrupt is masked when it comes; the first `wait` after the one that returned
     * DRIVER_EVENT_INTERRUPT arms it again: a driver must have silenced its device before, else it gets the event again.
     */
    HYPERCALL_WAIT = 1,
    /*
     * offer(address of struct driver_offer in RAM): the device works; show it to the guest. Once a start. After a restart the
     * offer must equal the first one in type, features, queues, size and patience (config may differ): otherwise the VM is at fault.
     * From here on requests arrive. -ERR_INVALID, -ERR_STATE (second offer), -ERR_RANGE (address).
     */
    HYPERCALL_OFFER = 2,
    /* config(address, length): replace the device configuration space and tell the guest (configuration change interrupt). */
    HYPERCALL_CONFIG = 3,
    /* stash(length): checksum and keep the first `length` bytes of the stash page for the successor. */
    HYPERCALL_STASH = 4,
    /* log(address, length): one line of text, at most 200 bytes, for the event log. Unprintable bytes are shown as '?'. */
    HYPERCALL_LOG = 5,
    /* time(): microseconds since boot. (RDTSC and tsc_khz do the same without an exit.) */
    HYPERCALL_TIME = 6,
    /*
     * fault(code, detail, frame): the driver gives up on itself; it is restarted. Does not return. frame is for crash reports, and
     * not the hypervisor's business: after an exception the address of its struct exception_frame (drivervm/runtime/exception.h), else 0.
     */
    HYPERCALL_FAULT = 7,
    /* pci_read(offset, width 1/2/4): the device's configuration space, filtered. */
    HYPERCALL_PCI_READ = 8,
    /*
     * pci_write(offset, width, value): only what is harmless: in the command register I/O, memory, bus master and
     * INTx-disable, written as a whole (width 2). Setting bus master first attaches the device to this VM's DMA domain
     * (`dma = none`: -ERR_DENIED). INTx stays disabled where no line is routed, whatever is written. Anything else: -ERR_DENIED.
     */
    HYPERCALL_PCI_WRITE = 9,
    /*
     * ready(): booted, and the device not touched yet. With `spare = yes` successors begin behind the image's first ready(): with that RAM,
     * RIP and general registers, all else as at a start. So what differs between them (driver_info but vendor_call, stash, rings) is
     * looked at later, and descriptor tables are loaded after it. Otherwise nothing happens. Returns 0.
     */
    HYPERCALL_READY = 10,
};

/* Codes of HYPERCALL_FAULT. */
enum driver_fault_code {
    DRIVER_FAULT_EXCEPTION = 1, /* detail: vector << 56 | low 56 bits of RIP */
    DRIVER_FAULT_ASSERT = 2,    /* an internal check failed; detail: line number */
    DRIVER_FAULT_DEVICE = 3,    /* the device does not come up or does not answer; detail: the driver's own */
};

#define DRIVER_CONFIG_SIZE 96u /* bytes of virtio device configuration space */
#define DRIVER_ERROR_SIZE 4u

struct driver_offer {
    u32 virtio_type;  /* VirtIO 1.2 section 5: 1 network, 2 block, ... */
    u32 queues;       /* 1 .. RING_MAX_QUEUES */
    u64 features;     /* device-type feature bits (0..23, 50..63) only; transport bits are the hypervisor's */
    u32 queue_size;   /* largest virtqueue: power of two, at most RING_TAGS */
    u32 config_length;
    u8 config[DRIVER_CONFIG_SIZE];
    /*
     * How the device says "error" for a request that no driver will ever serve: these bytes overwrite the last error_length
     * bytes of the request's device-writable part (block: one status byte, VIRTIO_BLK_S_IOERR). 0: nothing is written.
     */
    u32 error_length;
    u8 error[DRIVER_ERROR_SIZE];
    /*
     * Bit q: requests of queue q wait for the outside world (receive buffers) and may be in flight for ever. They have no
     * deadline, no recovery waits for one of them to complete, and when no driver will ever serve them they stay
     * unanswered. A bit of a queue that is not offered: -ERR_INVALID.
     */
    u32 patient_queues;
    u32 device_wait_us; /* of the time since its start, what it spent waiting for its device: for `status`, believed nowhere */
};
