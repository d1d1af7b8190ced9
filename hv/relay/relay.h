/*
 * The data path: the guest's virtqueues on one side, a driver VM's request and completion rings on the other. The
 * hypervisor is the only writer of the guest's used rings. One struct relay a driver VM = one virtio-pci device of the
 * main guest.
 *
 *   virtio_pci.c   registers, configuration space, MSI-X of the device      guest -> relay_kick()
 *   queue.c        split virtqueue: read a chain once, check it; publish    pure on top of vm_ram()
 *   grant.c        guest pages <-> driver VM (nested table + IOMMU domain)
 *   forward.c      available ring -> check, grant, log, request ring
 *   complete.c     completion ring -> check against the log, publish, MSI-X
 *   inflight.c     the log: the chain behind each tag, in submission order
 *   console.c      a device with the hypervisor itself behind it: no driver VM, grants, log
 *
 * Errors: what breaks a rule of VirtIO sets the device broken (DEVICE_NEEDS_RESET, configuration interrupt) until the
 * guest resets it. What breaks a rule of the rings is reported as FAULT_COMPLETION_RING of the driver VM.
 *
 *   CLOSED --relay_offer--> OPEN --relay_close, or the driver breaks its rings--> CLOSED (the log stays)
 *   any --relay_give_up--> DEAD (requests get the device's error), or in silence CLOSED; a later offer opens it again
 *
 * Context: hv lock held.
 */
#pragma once

#include "hv/core/vm.h"
#include "shared/abi/hypercall.h"

struct relay;

struct relay_stats {
    u64 requests, completions, bytes_read, bytes_written; /* as seen by the guest */
    u64 kicks, interrupts, errors_answered, broken;
    u64 grants_new, grants_hit, grants_evicted, grants_revoked, granted_pages;
    u64 replayed;
    u64 last_completion; /* TSC when it was published */
    u32 in_flight;
};

/* A relay for the driver VM, with rings mapped into it (DRIVER_RINGS_ADDRESS), log and grant table for the main guest's
 * RAM. At boot. */
NODISCARD status_t relay_create(struct driver *driver, struct relay **out);

/*
 * The driver VM's offer, copied already. First one: creates the guest's PCI device (slot in order of the manifest).
 * Later: must match (ERR_INVALID otherwise); then in-flight requests are replayed in submission order and the relay
 * opens.
 */
NODISCARD status_t relay_offer(struct relay *relay, const struct driver_offer *offer);
/* A new device configuration, zero-padded. ERR_STATE, ERR_RANGE. */
NODISCARD status_t relay_config(struct relay *relay, const u8 *config, u32 length);

/* Take what the guest made available (all queues); returns true when new cells went into a request ring. Stops when the
 * ring is full. */
bool relay_forward(struct relay *relay);
/* Take what the driver completed; publishes and interrupts the guest. The driver stands in its `wait`: when it
 * has completed all, it has consumed all. A violation is reported to recovery (then returns). Returns how many. */
u32 relay_complete(struct relay *relay);
/* The driver is about to sleep: let the guest kick (EVENT_IDX or flags), then look again: true when there is new work
 * after all. */
bool relay_arm_kicks(struct relay *relay);
/* Ask the guest for kicks, or, while the driver runs, for none. */
void relay_want_kicks(struct relay *relay, bool want);
/* Are there request cells that the driver has not consumed? */
bool relay_driver_has_work(const struct relay *relay);

/* quiesce: take nothing more from the guest or from the driver's rings; the log stays. */
void relay_close(struct relay *relay);
/* quiesce, after the device is blocked: take back every grant (nested table, IOMMU domain, invalidations done on
 * return). */
void relay_revoke_all(struct relay *relay);
/* restart: empty rings for the successor. */
void relay_reset_rings(struct relay *relay);
/* Policy gave up: answer all in flight and all later requests, but for those that may wait for ever, with the device's
 * error bytes (or, silent, not at all). */
void relay_give_up(struct relay *relay, bool answer);

/* TSC - recovery.lost of the oldest request in flight that may not wait for ever (since its submission or, after a
 * replay, since the replay); ~0 when none. */
u64 relay_oldest(const struct relay *relay);
u32 relay_in_flight(const struct relay *relay);
struct relay_stats relay_stats(const struct relay *relay);

/* For the injector (recovery/inject.c), which plays a broken driver from outside; never used on the data path. */
struct ring_completion_page *relay_completion_page(struct relay *relay, u32 queue);
struct ring_request_page *relay_request_page(struct relay *relay, u32 queue); /* cells follow at + 4096 */
/* Some tag in flight whose device-writable length is *max_length; ERR_NOT_FOUND. */
NODISCARD status_t relay_some_in_flight(struct relay *relay, u32 queue, u16 *tag, u32 *max_length);
/* Is the guest page granted to this driver VM now? For the injector. */
bool relay_is_granted(const struct relay *relay, gpa_t page);

/*
 * The guest's side, called by hv/platform. Width 1, 2 or 4, for memory also 8. Configuration space: offset below
 * 256, aligned to width. Port and memory: false when no BAR claims the address now; else the access was made.
 */
void relay_pci_config(struct relay *relay, u32 offset, u32 width, bool write, u32 *value);
bool relay_port(struct relay *relay, u16 port, u32 width, bool write, u32 *value);
bool relay_memory(struct relay *relay, gpa_t address, u32 width, bool write, u64 *value);
/*
 * The main guest is being reset: the device goes to its reset state. Requests in flight are withdrawn when the driver
 * completes them; until relay_in_flight() is 0 the device may still write into their pages, so the guest's memory is
 * not for reuse yet.
 */
void relay_guest_reset(struct relay *relay);

/*
 * A console of the guest's (VirtIO 1.2 5.3, one port), in the guest's own slot. At boot, once; the other functions need
 * it. Kicks are for nobody: hv/control looks when it has time. At a reset it is told by control_reset_guest().
 */
void relay_console_create(void);
/* Bytes to the guest, or from it, as many as there are buffers for, in a bounded time; returns how many. */
u32 relay_console_move(bool to_guest, char *bytes, u32 size);

/* Relays in slot order, for the PCI bus. NULL where a driver never offered. */
extern struct relay *relays[VM_MAX];
