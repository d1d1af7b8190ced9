/*
 * What the files of the relay share. Nothing outside hv/relay includes this, except the relay's own tests.
 *
 * A request's life, and who may touch the guest's pages meanwhile:
 *
 *   available ring --forward--> in flight --complete--> published, slot free
 *                                  |                                (strict grants: revoked before it is published)
 *                                  \--guest resets the device--> withdrawn --complete, or device blocked--> slot free,
 *                                                                                                           silently
 *
 * A withdrawn request keeps its tag until the driver answers it, so that a late completion cannot be taken for another
 * request's; and the device's reset does not finish (device_status reads back non-zero, VirtIO 1.2 4.1.4.3.1) until
 * then. So all requests in flight are withdrawn, or none: `resetting` of the device says which.
 */
#pragma once

#include "hv/core/driver.h"
#include "hv/relay/relay.h"
#include "shared/virtio/virtio.h"

/* A descriptor chain, copied out of guest memory once and checked: every segment lies in RAM and is not empty. */
struct chain_segment {
    u64 gpa;
    u32 length;
};
struct chain {
    u16 head;     /* the descriptor's index: the id of its used element */
    u16 count;    /* segments */
    u16 readable; /* the first so many are device-readable */
    u32 readable_bytes;
    u32 writable_bytes; /* both together fit 32 bits */
    struct chain_segment segment[RING_MAX_SEGMENTS];
};

/* A split virtqueue (VirtIO 1.2 2.7). Addresses are the guest's; pointers are valid while enabled. */
struct virtqueue {
    u16 enabled;    /* 0 or 1, as in its register */
    u16 notify_off; /* always 0 */
    u16 size;
    u16 vector;   /* MSI-X entry, or VIRTIO_MSI_NO_VECTOR */
    u64 features; /* negotiated */
    u64 desc_gpa, avail_gpa, used_gpa;
    const u8 *desc;
    const struct virtq_avail *avail;
    struct virtq_used *used;
    u16 last_avail; /* entries of the available ring that were taken */
    u16 used_idx;   /* entries of the used ring that were filled; visible to the guest after virtqueue_publish() */
    u16 published;  /* what the guest was shown */
    u32 taken;      /* console.c: bytes of the next chain that were taken */
};

struct log_slot {
    bool in_flight;
    bool granted; /* its pages count it as a user */
    u64 id;
    u64 submitted; /* TSC - recovery.lost; of the replay or the guest's reset, if any; ~0: it may wait for ever */
    struct chain chain;
};
/*
 * The in-flight log of one queue. It takes no more cells than the request ring has: so whatever is in flight fits an
 * empty request ring, and a replay never has to wait for the driver.
 */
struct inflight {
    u32 count, free_cells;
    u8 order[RING_TAGS]; /* all tags: first `count` in flight, in submission order, then the free ones */
    struct log_slot slot[RING_TAGS];
};

struct relay_queue {
    struct virtqueue vq;
    struct ring_request_page *requests;
    union ring_cell *cells;
    struct ring_completion_page *completions; /* the driver writes here: read once, then check */
    u32 produced;                             /* cells written */
    u32 consumed;                             /* cells that the driver reported as read; checked */
    u32 completed;                            /* completions taken */
    struct inflight log;
};

struct grant {     /* of one page of the guest */
    u16 users;     /* segments in flight that touch it; at most RING_MAX_QUEUES * RING_CELLS */
    u8 rights;     /* PAGE_READ, PAGE_WRITE; 0: not granted */
    u8 referenced; /* the eviction clock's second chance */
};
struct grants {
    bool strict;
    u32 capacity, count, unused; /* pages: at most, granted, of these without users */
    u32 hand;                    /* of the clock, in list */
    u32 *list;                   /* the granted pages, unordered */
    struct grant *page;          /* one for each page of guest RAM */
    u64 page_count;
    /* Between these lie all pages that TLBs may remember with other rights than they have; none: first > last. */
    u64 stale_first, stale_last;
};

enum relay_state { RELAY_CLOSED, RELAY_OPEN, RELAY_DEAD };

#define MSIX_ENTRIES (RING_MAX_QUEUES + 1u) /* one for each queue, one for configuration changes */

#define CONFIG_WORDS 64u /* 256 bytes */

struct virtio_device {
    u32 config_space[CONFIG_WORDS];
    u32 msix[MSIX_ENTRIES][4]; /* PCI 3.0 6.8.2: address low, high, data, control */
    u32 msix_pending;
    u8 device_config[DRIVER_CONFIG_SIZE], generation;
    bool resetting; /* status 0 was written; waits for the withdrawn requests */
    u16 queues;
    u64 offered;
    u64 features; /* accepted by the guest; from here on: what VirtIO's reset clears */
    u32 device_feature_select, driver_feature_select;
    u16 queue_select, config_vector;
    u8 status, isr;
};

struct relay {
    struct vm *owner;      /* whose slot of the guest's bus the device has */
    struct driver *driver; /* NULL: the hypervisor's own device, which never opens */
    enum relay_state state;
    bool awaits_completion; /* none was published since the replay */
    struct driver_offer offer;
    struct virtio_device device;
    struct grants grants;
    struct relay_stats stats;
    struct relay_queue queue[RING_MAX_QUEUES];
};

/* Its requests may wait for ever (driver_offer.patient_queues). */
static inline bool queue_is_patient(const struct relay *relay, const struct relay_queue *queue)
{
    return relay->offer.patient_queues >> (queue - relay->queue) & 1;
}

/* queue.c */

/* Resolve and check size, alignment and place of the three parts. ERR_INVALID; then nothing changed. */
NODISCARD status_t virtqueue_enable(struct virtqueue *vq, const struct vm *vm, u16 max_size, u64 features);
/* Copy the next available chain. ERR_NOT_FOUND: none. ERR_INVALID: it breaks the rules, *why says which. Does not
 * consume it. */
NODISCARD status_t virtqueue_next(const struct virtqueue *vq, const struct vm *vm, struct chain *out, const char **why);
/* Fill the next used element; the guest does not see it yet. */
void virtqueue_fill(struct virtqueue *vq, u16 head, u32 length);
/* Show the guest what was filled. True when it wants an interrupt for that. */
bool virtqueue_publish(struct virtqueue *vq);
/* Ask for kicks from here on, or for none. After asking, look at the ring again. */
void virtqueue_want_kicks(struct virtqueue *vq, bool want);

/* inflight.c */

void inflight_init(struct inflight *log);
/* Where the next chain is to be copied; NULL: all tags are in flight. */
struct chain *inflight_draft(struct inflight *log);
/* Enter the draft, granted; there are cells for it. Returns its tag. */
u8 inflight_add(struct inflight *log, u64 id, u64 now);
void inflight_remove(struct inflight *log, u8 tag);
/* What a request takes of a ring: its header and its segments. */
static inline u32 inflight_cells(const struct chain *chain)
{
    return chain->count + 1u;
}

/* grant.c */

void grants_create(struct relay *relay);
/*
 * Make every page of the chain reachable with its rights and count a user; grants_settle() before the driver sees it.
 * ERR_NO_SPACE, ERR_NO_MEMORY: not now; ERR_RANGE: never, the chain has more pages than the cache. On error none of its
 * pages has a user more.
 */
NODISCARD status_t grants_take(struct relay *relay, const struct chain *chain);
/* The chain's pages lose a user each. They stay granted until grants_settle() or eviction. */
void grants_release(struct relay *relay, const struct chain *chain);
/*
 * Before anything is published in either direction: in strict mode take back every page without users; then make all
 * changes since the last time take effect. On return nothing is reachable that is not granted.
 */
void grants_settle(struct relay *relay);
/* Take back everything, users or not; slots in the logs no longer count as users. */
void grants_revoke_all(struct relay *relay);

/* forward.c */

/* The guest's kick. In any state. */
void relay_kick(struct relay *relay);
/* Put all that is in flight into empty rings again, in submission order. */
void relay_replay(struct relay *relay);

/* complete.c */

/* Take the driver's `consumed`. False: it jumped, reported. */
bool ring_take_consumed(struct relay *relay, struct relay_queue *queue);
/* Fill a used element that carries the device's error for this chain. */
void answer_with_error(struct relay *relay, struct relay_queue *queue, const struct chain *chain);
/* Settle the grants, then show what is in this queue: the requests to the driver, the answers to the guest, with an
 * interrupt. */
void relay_publish(struct relay *relay, struct relay_queue *queue);

/* virtio_pci.c */

/* The device appears: configuration space for this offer, BARs where firmware would have put them. */
void device_create(struct relay *relay);
/* MSI-X, or without it bits in the ISR register (4.1.4.5). */
#define ISR_QUEUE 1u
#define ISR_CONFIG 2u
void device_interrupt(struct relay *relay, u16 vector, u8 isr);
/* The guest broke a rule: DEVICE_NEEDS_RESET. */
void device_break(struct relay *relay, const char *why);
/* A reset that waits is done as soon as nothing is in flight any more. */
void device_finish_reset(struct relay *relay);
/* Tell the driver VM what features the guest accepted. */
void device_announce_features(struct relay *relay);
/* May requests be taken from the guest's rings? */
static inline bool device_is_live(const struct relay *relay)
{
    return (relay->device.status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) == VIRTIO_STATUS_DRIVER_OK &&
           !relay->device.resetting;
}
