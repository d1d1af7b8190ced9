/*
 * lwIP's interfaces, all that this kernel uses: included through this file only. One name means two things: ERR_TIMEOUT
 * is this project's (shared/lib/status.h); lwIP's, which no function that is used here returns, is out of sight.
 */
#pragma once

#include "shared/lib/status.h"

#define ERR_TIMEOUT LWIP_ERR_TIMEOUT
#include "lwip/dhcp.h"
#include "lwip/dns.h"
#include "lwip/etharp.h"
#include "lwip/icmp.h"
#include "lwip/inet_chksum.h"
#include "lwip/init.h"
#include "lwip/ip_addr.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/raw.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"
#undef ERR_TIMEOUT
