/*
 * A small HTTP server that works while the shell does something else. "/" is a status page; "/100M", "/64K", "/12345"
 * are files of that many bytes: net_pattern() over and over, sent in place. GET and HEAD, one request a connection.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

/* ERR_EXISTS: it runs already. ERR_BUSY: the port is in use. ERR_NO_MEMORY. */
NODISCARD status_t http_server_start(u16 port);

/* Stop listening; transfers that are under way go on. ERR_STATE: it does not run. */
NODISCARD status_t http_server_stop(void);
