/*
 * The network interfaces: a netif of lwIP's on top of each usable virtio-net card, without a copy either way. The
 * default one, for what is on no interface's own network, is the first that has an address. One thread.
 */
#pragma once

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/net/lwip.h"
#include "shared/lib/status.h"

/* Start the devices and add them to lwIP. After lwip_init. ERR_NOT_FOUND: the machine has none; others: none is usable,
 * and why the first is not. */
NODISCARD status_t interface_init(void);

/* The interface of card number `index`, or of that name. NULL: there is no such card, or it is not usable. */
struct netif *interface_get(u32 index);
struct netif *interface_find(const char *name);

struct nic *interface_nic(const struct netif *netif);

/* Of all interfaces: take in what has arrived, follow the link, send what waited for room. */
void interface_poll(void);

/* Hand what lwIP has sent to the devices. */
void interface_flush(void);

/* Ask for an interrupt at the next frame; true when there is work already (see nic_enable_interrupts). */
bool interface_enable_interrupts(void);
