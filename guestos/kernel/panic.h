/* The end of this kernel: only for its own errors, never for what a device or the hypervisor says. */
#pragma once

#include "shared/lib/types.h"

/* Print "guestos: panic: ..." and halt for ever with interrupts off. */
__attribute__((noreturn)) void panic(const char *format, ...) PRINTF_LIKE(1, 2);
