/*
 * A hostile driver VM for the containment tests. It owns QEMU's `edu` device (docs/specs/edu), whose DMA engine goes
 * wherever it is told, and offers nothing to the guest. It makes one attempt after the other to get out: by DMA, by
 * forged interrupts, by configuration space, by its CPU, by lying to the hypervisor. An attempt may end the VM; the
 * stash then tells the successor where to go on, so that each is made exactly once.
 *
 * Log lines, for whoever reads the event log:
 *   rogue: selfcheck ok | rogue: selfcheck FAILED      can the device do DMA at all where it may?
 *   rogue: <n> <what> ...                              before attempt n
 *   rogue: <n> <result>                                after it, if there is an after
 *   rogue: done reads_leaked=<n> writes_ok=unknown denied=<n> accepted=<n> survived=<n>
 */
#pragma once

#include "drivervm/runtime/runtime.h"

/* What came of the attempts so far; kept in the stash. */
struct rogue_score {
    u32 next;         /* attempt to make next */
    u32 reads_leaked; /* DMA reads that brought bytes other than zeros */
    u32 denied;       /* calls that the hypervisor refused */
    u32 accepted;     /* calls that it should have refused and did not */
    u32 survived;     /* CPU attempts after which this VM still ran */
    u32 died;         /* starts that found their predecessor dead in an attempt */
};
extern struct rogue_score rogue_score;

/* A group of attempts: how many there are, and how to make number n of them. */
struct rogue_group {
    u32 (*count)(void);
    void (*attempt)(u32 n);
};
extern const struct rogue_group rogue_dma, rogue_cpu;

/* Map the device and prove that its DMA works inside our own RAM. Once a start, before the first attempt. */
NODISCARD status_t rogue_dma_open(void);

/* Count and log the answer of a call that has to be refused. */
void rogue_expect_denied(const char *what, i64 result);
