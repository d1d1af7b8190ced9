/*
 * COM1: the hypervisor's own lines and the main guest's console, one behind the other. A hypervisor line never cuts a
 * line of the guest in two without starting a new one. No allocation, polled output. Context: hv lock held (or boot, or
 * panic).
 */
#pragma once

#include "shared/lib/types.h"

void console_init(void);
/* A whole line of the hypervisor's; a newline is added. */
void console_line(const char *text);
/* A byte that the main guest wrote to its UART. */
void console_guest_put(u8 byte);
/* A byte typed at the console: false when there is none. */
bool console_get(u8 *byte);
