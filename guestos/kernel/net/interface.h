/* The one network interface: lwIP's netif on top of the virtio-net driver, without a copy either way. One thread. */
#pragma once

#include "guestos/kernel/net/lwip.h"
#include "shared/lib/status.h"

/* Start the device and add it to lwIP. After lwip_init. ERR_NOT_FOUND: the machine has none; others: it is not usable.
 */
NODISCARD status_t interface_init(void);

struct netif *interface_get(void);

/* Take in what has arrived, follow the link, send what waited for room. */
void interface_poll(void);
