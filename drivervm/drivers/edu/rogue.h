/*
 * A hostile driver VM for the containment tests. It owns QEMU's `edu` device (docs/specs/edu), whose DMA engine goes
 * wherever it is told. It makes one attempt after the other to get out: by DMA, by forged interrupts, by configuration
 * space, by its CPU, by lying to the hypervisor. An attempt may end the VM; the stash then tells the successor where to
 * go on, so that each is made exactly once.
 *
 * To the guest it offers an entropy source (VirtIO 1.2 5.4), whose requests are handed pages to hold on to: each is
 * served once as it should be and used once more after its answer, when the page is no longer ours (rogue_probe.c).
 *
 * Log lines, for whoever reads the event log:
 *   rogue: selfcheck ok | rogue: selfcheck FAILED      can the device do DMA at all where it may?
 *   rogue: <n> <what> ...                              before attempt n
 *   rogue: <n> <result>                                after it, if there is an after
 *   rogue: done reads_leaked=<n> writes_ok=unknown denied=<n> accepted=<n> survived=<n> died=<n>
 *   rogue: probe <n> ...                               the life of request n
 */
#pragma once

#include "drivervm/runtime/runtime.h"

#define ROGUE_TRANSFER                                                                                                 \
    512u /* bytes of one DMA; less than the device's buffer, whose last byte QEMU takes for its end */

/* What came of the attempts so far; kept in the stash. */
struct rogue_score {
    u32 next;         /* attempt to make next */
    u32 probes;       /* requests of the guest that were begun */
    u32 reads_leaked; /* DMA reads that brought bytes other than zeros */
    u32 denied;       /* calls that the hypervisor refused */
    u32 accepted;     /* calls that it should have refused and did not */
    u32 survived;     /* CPU attempts after which this VM still ran */
    u32 died;         /* starts that found their predecessor dead */
};
extern struct rogue_score rogue_score;
void rogue_save_score(void);

/* A group of attempts: how many there are, and how to make number n of them. */
struct rogue_group {
    u32 (*count)(void);
    void (*attempt)(u32 n);
};
extern const struct rogue_group rogue_offer, rogue_dma, rogue_cpu; /* rogue_offer: before the offer that is meant */

/* Map the device and take it over from a predecessor. Once a start, before anything below. */
NODISCARD status_t rogue_dma_open(void);

/*
 * One transfer of ROGUE_TRANSFER bytes between memory and the device's buffer; about 100 ms. False: no answer. What
 * came of it the device does not say.
 */
NODISCARD bool rogue_device_reads(u64 address);
NODISCARD bool rogue_device_writes(u64 address);

/* Fill the device's buffer with one value, by way of our own memory; does it hold only that value? */
NODISCARD bool rogue_fill_buffer(u8 value);
NODISCARD bool rogue_buffer_holds(u8 value);

/* A request of the guest; then, outside the rings, what it is used for. True when there was one. */
void rogue_probe_request(struct ring *ring, const struct ring_header_cell *header);
bool rogue_probe_run(void);

/* Count and log the answer of a call that has to be refused. */
void rogue_expect_denied(const char *what, i64 result);
