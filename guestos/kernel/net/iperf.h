/*
 * iperf3's protocol for TCP, both roles, both directions: one control connection, on which the server names each state
 * of the test by one byte and both sides exchange parameters and results, and one connection a stream. One test at a
 * time.
 */
#pragma once

#include "guestos/kernel/net/iperf_text.h"
#include "guestos/kernel/net/lwip.h"

#define IPERF_PORT 5201u

struct iperf_report {
    bool sender; /* this side sent */
    u32 streams;
    u64 bytes, us;  /* as counted here */
    u64 peer_bytes; /* as the peer counts them */
};

/* Run a test with the server at `address`, over this card (NULL: lwIP routes). ERR_DENIED: refused or busy. ERR_IO:
 * broken off. ERR_STATE: Ctrl-C. */
NODISCARD status_t iperf_run_client(struct netif *netif, const ip_addr_t *address, u16 port,
                                    const struct iperf_parameters *parameters, struct iperf_report *report);

/* Be a server for one test. Also ERR_BUSY: the port is in use; ERR_UNSUPPORTED: the client wants what this cannot. */
NODISCARD status_t iperf_run_server(u16 port, struct iperf_report *report);
