/*
 * What the runtime gives to a driver: who we are, the log, the clock, memory for DMA, configuration space; and the
 * shape of a driver. Context: one thread, no interrupts, no locks. Memory is never given back: a VM's end is its
 * restart.
 */
#pragma once

#include "drivervm/runtime/hypercall.h"
#include "drivervm/runtime/ring.h"
#include "shared/abi/hypercall.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/pci/registers.h"

/* The contract's pages; host tests let them point to their own. */
extern const struct driver_info *driver_info;
extern const struct driver_events *driver_events;
extern void *driver_stash;
extern struct ring driver_rings[RING_MAX_QUEUES];

/*
 * A driver, or a class layer (blk.h) on behalf of its drivers. An image holds one object `driver`. The loop calls:
 *   start    once: bring up the device and fill *offer; virtio_type 0: nothing to show to the guest. Logs why it fails.
 *   request  for each request, in the order of its ring; *header was checked by ring_peek. It must ring_take() it.
 *   poll     when the device may have news: its interrupt, a time-out, or each time round in a machine without
 * interrupts. True when it found any. pump     after requests and polls: hand to the device what it has room for.
 *   timeout  microseconds to sleep at most when there is no work; WAIT_FOREVER when only events matter.
 */
struct driver {
    status_t (*start)(struct driver_offer *offer);
    void (*request)(struct ring *ring, const struct ring_header_cell *header);
    bool (*poll)(void);
    void (*pump)(void);
    u64 (*timeout)(void);
};
extern const struct driver driver;

#define WAIT_FOREVER (~0ull)

/* One line to the event log, printf-like (shared/lib/printf.h), cut at 200 bytes. */
void log_line(const char *format, ...) PRINTF_LIKE(1, 2);

/* A time `us` microseconds from now, and whether such a time has come. */
u64 deadline_after(u64 us);
bool deadline_passed(u64 deadline);
u64 microseconds_since(u64 tsc);

/*
 * Waiting for the device, awake, with a sign of life each time: the time-out is the only bound, so keep it honest.
 *
 *   for (struct device_wait wait = device_wait_begin(READY_US); !is_ready();)
 *       if (!device_wait_more(&wait))
 *           return ERR_TIMEOUT;
 *
 * There is always a look after the time-out, and between two looks at most a millisecond counts: a VM that was not
 * scheduled meanwhile has done nothing wrong, nor has its device, which may not have been either. What is spent so (and
 * in spin_us and mmio_wait) adds up in device_waited_us().
 */
struct device_wait {
    u64 left, last; /* TSC */
    bool late;
};
struct device_wait device_wait_begin(u64 timeout_us);
NODISCARD bool device_wait_more(struct device_wait *wait);
u64 device_waited_us(void);

/* Do nothing for at least `us` microseconds, awake; for the few pauses that hardware asks for. */
void spin_us(u64 us);

/*
 * Read a register until (value & mask) == wanted, without sleeping: a device answers in microseconds or is broken.
 * False after timeout_us.
 */
NODISCARD bool mmio_wait(u64 address, u32 mask, u32 wanted, u64 timeout_us);

/* Configuration space of our device, filtered by the hypervisor. width: 1, 2 or 4 bytes. */
NODISCARD status_t pci_read(u32 offset, u32 width, u32 *value);
NODISCARD status_t pci_write(u32 offset, u32 width, u32 value);

/* Set and clear bits of the command register. Bus mastering only once every address the device holds is ours. */
NODISCARD status_t pci_command(u32 set, u32 clear);

/*
 * The stash, DRIVER_STASH_SIZE bytes for our successor. save: keep these bytes. load: true when the predecessor left
 * exactly `length` bytes; what they say is to be checked like anything from outside.
 */
NODISCARD status_t stash_save(const void *data, u32 length);
NODISCARD bool stash_load(void *data, u32 length);

/* The device's address for a byte of RAM or of the window; the same number wherever an IOMMU translates. */
u64 dma_address(u64 address);

/*
 * Zeroed RAM after the image. alignment: a power of two. NULL: none left.
 * dma_available: bytes left, alignment apart.
 */
NODISCARD void *dma_alloc(u64 size, u64 alignment);
u64 dma_available(void);

/* The way in from start.S: sets everything up, starts the driver and never comes back. */
__attribute__((noreturn)) void runtime_main(const struct driver_info *info);
