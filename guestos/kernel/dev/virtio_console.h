/*
 * The virtio console (VirtIO 1.2, 5.3; port 0): a stream of bytes each way. Inside Bulkhead it is the control port that
 * the manifest may give the guest. The device is not trusted: a completion must name a chain in flight and have a
 * possible length. One thread.
 */
#pragma once

#include "guestos/kernel/dev/virtio_pci.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define VCON_BUFFER_SIZE 4096u

/* Find the device, take arena memory, start it. A machine without one is no error. */
void vcon_init(void);

/* OK, or why there is none to be used: ERR_NOT_FOUND, there is no such device. */
status_t vcon_error(void);

/*
 * Hand over at most VCON_BUFFER_SIZE bytes; returns when the device has taken them. ERR_TIMEOUT, ERR_STATE (Ctrl-C),
 * ERR_IO (the device breaks the rules or wants a reset): vcon_restart() mends all of them.
 */
NODISCARD status_t vcon_send(const char *bytes, u32 size, u64 deadline_us);

/* Wait until there is something and take at most size bytes of it. Errors as above. */
NODISCARD status_t vcon_receive(char *bytes, u32 size, u32 *received, u64 deadline_us);

/* Reset and start again: what was under way in either direction is gone. */
NODISCARD status_t vcon_restart(void);

/* The bare device, which is reset, for probes; vcon_restart() makes it ours again. NULL: there is none. */
const struct virtio_device *vcon_release_device(void);

u64 vcon_interrupts(void);
