/* What lwIP asks of this kernel while it routes (LWIP_HOOK_FILENAME). */
#pragma once

struct netif;
struct ip4_addr;

/* The interface whose address `source` is and whose link is up; NULL: lwIP decides by the destination. */
struct netif *interface_of_source(const struct ip4_addr *source);
