/* One command to the control port and its answer (hv/control/control.h has the protocol). One thread. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define DRVCTL_LINE 2048u /* of an answer; what is longer is cut */

/*
 * Send `command` and hand each line of the answer to take(). OK, or ERR_DENIED: refused, `why` has the port's words
 * (cut to size); else the port does not work: vcon_error(), ERR_TIMEOUT, ERR_STATE (Ctrl-C), ERR_IO. Then it was
 * restarted, so that the next command finds no rest of this one's answer.
 */
NODISCARD status_t drvctl_ask(const char *command, void (*take)(const char *line, void *context), void *context,
                              char *why, u32 size);
