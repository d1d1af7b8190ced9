/*
 * The oracle (DESIGN, "Recovery"): what page tables, IOMMU domains, grants and in-flight logs should hold, recomputed
 * from an abstract state of its own. A difference is a mistake of the hypervisor, and ends the machine with a panic
 * that names VM, place, expected and found.
 *
 *   seams.c   feeds the state: what the relay granted, logged and answered, who may master the bus. Says when to look.
 *   check.c   holds the real structures against it
 *
 * It is linked into checked images only, and no other file knows of it: its seams are calls between other files, which
 * the linker leads through it (--wrap, hv/CMakeLists.txt). A call inside one file is no seam.
 *
 * Nothing that a guest or a driver VM says may lead to a difference. A device can: one that claims to master the bus
 * after it was told not to is taken at its word.
 *
 * Context: hv lock held.
 */
#pragma once

#include "hv/iommu/formats.h"
#include "hv/relay/internal.h"

struct oracle_page { /* of the guest */
    u16 users, writers;
    u8 may;       /* rights that somebody asked for since the page was last seen without users */
    u8 found;     /* rights when it was last looked at: what TLBs may hold */
    bool touched; /* since the last settling */
};

struct oracle_request {
    bool in_flight, granted;
    u64 id, sum; /* sum: of the chain as it was logged */
};

struct oracle_queue {
    struct oracle_request request[RING_TAGS]; /* by tag */
    u32 in_flight;
};

struct oracle_mapping {
    u64 at, hpa, size;
    u32 rights;
};

struct oracle {
    struct driver *driver;
    bool live;               /* its driver asked for bus mastering and has not been quiesced since */
    bool shot;               /* since the last settling: vcpu_shootdown(), */
    u64 flushed, flushed_to; /* and the pages of the window that were flushed from the IOTLB */
    u32 used;                /* pages with users */
    struct oracle_page *page;
    u32 *touched, touched_count;
    u64 first, end; /* all pages that were ever touched since the last revocation lie between */
    struct oracle_queue queue[RING_MAX_QUEUES];
    u32 mappings;
    struct oracle_mapping mapping[64]; /* all of its VM outside the window, its RAM first */
};

extern struct oracle oracles[VM_MAX]; /* by VM */

_Noreturn void oracle_differ(const struct oracle *o, const char *what, u64 where, u64 expected, u64 found);

/* At boot, before any VM runs: what stands in tables now is not taken for granted, but computed. */
void oracle_start(void);
/* One page of the window, in both tables; after settling. */
void oracle_check_page(struct oracle *o, u64 page);
/* In constant time: logs, and the domain of the device. */
void oracle_check(struct oracle *o);
/* Every table, log and device. */
void oracle_check_all(void);
