/*
 * One TCP connection as a command uses it: opened, written and closed with waiting in between; what arrives is handed
 * to a function, in place. Between connection_open or _accept and connection_close the structure must stay where it is.
 */
#pragma once

#include "guestos/kernel/net/lwip.h"
#include "shared/lib/types.h"

struct connection {
    /* set by the caller, the rest zero */
    void (*received)(void *context, const u8 *data, u32 size);
    void *context;
    struct netif *netif; /* the card to use; NULL: lwIP routes */
    bool hold; /* set by received(): the peer may send no more than the window that it has, until connection_release */
    /* state, to be read only */
    struct tcp_pcb *pcb; /* NULL: not open, or lost */
    bool connected;
    bool finished; /* nothing more will come: the peer has closed its side, or the connection is lost */
    bool lost;     /* reset, or given up */
    u32 held;      /* bytes whose room in the window was not given back */
};

/* Resolve the host and connect. ERR_NOT_FOUND (name), ERR_DENIED (refused), ERR_TIMEOUT, ERR_STATE (Ctrl-C),
 * ERR_NO_MEMORY. */
NODISCARD status_t connection_open(struct connection *connection, const char *host, u16 port);

/* Wait for the first peer that connects to the port. ERR_BUSY: the port is in use. ERR_STATE: Ctrl-C. ERR_NO_MEMORY. */
NODISCARD status_t connection_accept(struct connection *connection, u16 port);

/* Send a copy of the data, waiting for room. ERR_IO: the connection is lost. ERR_STATE: Ctrl-C. */
NODISCARD status_t connection_send(struct connection *connection, const void *data, u32 size);

/* After a `hold`: go on receiving. */
void connection_release(struct connection *connection);

/* Say that nothing more will be sent; receiving goes on. */
void connection_finish(struct connection *connection);
void connection_close(struct connection *connection);
