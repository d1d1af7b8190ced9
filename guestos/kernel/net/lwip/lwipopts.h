/* What of lwIP 2.1.3 is used, and how large. All of it runs in the one thread of this kernel (NO_SYS). */
#pragma once

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET 0
#define LWIP_NETCONN 0
#define LWIP_STATS 0

/*
 * Memory. The heap lies outside the I/O arena, in pages that no device gets to see (transmit.c). Received
 * frames are custom pbufs in the driver's own buffers, so the pool stays nearly unused, and lwIP's comparison of the window
 * with the pool would compare the wrong things.
 */
#define MEM_ALIGNMENT 8
#define MEM_SIZE (1024 * 1024)
#define LWIP_RAM_HEAP_POINTER net_heap
#define LWIP_SUPPORT_CUSTOM_PBUF 1
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1
#define PBUF_POOL_SIZE 8
#define MEMP_NUM_PBUF 4096
#define MEMP_NUM_TCP_PCB 64
#define MEMP_NUM_TCP_PCB_LISTEN 8
#define MEMP_NUM_TCP_SEG 4096

/* Link and IP */
#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define ARP_QUEUEING 1
#define LWIP_ICMP 1
#define LWIP_RAW 1
#define LWIP_DHCP 1
#define DHCP_DOES_ARP_CHECK 0
#define LWIP_DNS 1
#define LWIP_NETIF_HOSTNAME 1
#define LWIP_NETIF_STATUS_CALLBACK 1
/* What belongs to an address leaves through its card, also when two cards are in one network, or beyond the gateway. */
#define LWIP_HOOK_FILENAME "guestos/kernel/net/lwip/hooks.h"
#define LWIP_HOOK_IP4_ROUTE_SRC(source, destination) interface_of_source(source)
#define IP_REASS_MAX_PBUFS 32
/* The device checks and completes checksums where it offers to, frame by frame (interface.c). */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1

/* TCP: windows for some 256 KiB in flight, as much as the buffers of both directions hold comfortably. */
#define TCP_MSS 1460
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 3
#define TCP_WND (180 * TCP_MSS)
#define TCP_SND_BUF (180 * TCP_MSS)
#define TCP_SND_QUEUELEN 1024
#define TCP_OVERSIZE TCP_MSS
#define LWIP_TCP_SACK_OUT 1
#define TCP_LISTEN_BACKLOG 1
#define SO_REUSE 1
/* A peer that leaves a hole must not be able to hold all receive buffers (see interface.c for what else prevents it). */
#define TCP_OOSEQ_MAX_PBUFS 200
