/* Text to and from the person (or script) at the console. One thread. */
#pragma once

#include "shared/lib/types.h"

/* Formats with shared/lib/printf.h; a line of at most 511 characters a call; "\n" is sent as "\r\n". */
void console_print(const char *format, ...) PRINTF_LIKE(1, 2);

/* Sleep until a character arrives and return it. */
char console_read(void);

/* Sleep for us microseconds or until Ctrl-C; false when it was Ctrl-C. */
bool console_sleep(u64 us);
