/* ICMP echo requests (RFC 792), one a second, and their replies. */
#pragma once

#include "guestos/kernel/net/lwip.h"
#include "shared/lib/types.h"

#define PING_MAX_SIZE 8192u

struct ping {
    /* set by the caller */
    ip_addr_t address;
    struct netif *netif; /* the card to use; NULL: lwIP routes */
    u64 count;
    u64 size;        /* bytes of payload, at most PING_MAX_SIZE; what does not fit one frame goes in fragments */
    u64 interval_us; /* 0: a second */
    void (*reply)(u32 sequence, u64 us); /* may be NULL */
    /* result */
    u64 sent, received;
    u64 min_us, max_us, total_us;
};

/* ERR_STATE: Ctrl-C, with what there is until then. ERR_NO_MEMORY. ERR_NOT_FOUND: there is no way to the address. */
NODISCARD status_t ping_run(struct ping *ping);
