/*
 * The network: start, address, and waiting for it. lwIP runs in the one thread, whenever that polls: net_wait does
 * while a command waits for the network, background_run while it waits for something else. Callbacks of lwIP happen
 * inside these two only.
 */
#pragma once

#include "guestos/kernel/net/lwip.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define NET_PATTERN_BYTES 262139u /* a prime: no lost or doubled run of whole segments leaves the pattern in step */

enum net_wait_result {
    NET_DONE,
    NET_TIMEOUT,
    NET_INTERRUPTED, /* Ctrl-C */
};

/* Find the devices and set everything up, without addresses. Without a device nothing happens and nothing is used. */
void net_init(void);
bool net_is_present(void);
status_t net_error(void); /* why none is present */

/*
 * Poll until done(context) or us microseconds are over. done is called after each poll; it may send.
 */
enum net_wait_result net_wait(bool (*done)(void *context), void *context, u64 us);

/* Set a fixed address and forget DHCP's; dns may be 0.0.0.0. The name server is the one that was set last. */
void net_set_address(struct netif *netif, ip4_addr_t address, u32 prefix, ip4_addr_t gateway, ip4_addr_t dns);

/* Ask for an address by DHCP and wait for it. ERR_TIMEOUT, ERR_STATE (Ctrl-C), ERR_NO_MEMORY. */
NODISCARD status_t net_use_dhcp(struct netif *netif, u64 us);

/* The IPv4 address of a name or of an address in text, by DNS. ERR_NOT_FOUND, ERR_TIMEOUT, ERR_STATE (Ctrl-C). */
NODISCARD status_t net_resolve(const char *host, ip_addr_t *address);

/* Listen on a TCP port; also while earlier connections of it are being forgotten. ERR_BUSY: somebody listens there.
 * ERR_NO_MEMORY. */
NODISCARD status_t net_listen(u16 port, u8 backlog, struct tcp_pcb **listener);

/* Test data in the I/O arena, to be sent in place: NET_PATTERN_BYTES of the sectors 0, 1, ... of pattern.h, seed 1. */
const u8 *net_pattern(void);
