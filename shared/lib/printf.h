/*
 * A small printf for freestanding code: %c %s %d %i %u %x %X %p %% with -, 0, width, .precision (for %s), and the
 * length modifiers h l ll z. Anything else is printed as it stands. On the host the names are the same, with the
 * prefix, so that both builds format alike.
 */
#pragma once

#include <stdarg.h>

#include "shared/lib/types.h"

/* Like C's vsnprintf: always terminates when size > 0, returns the length that the whole text would have had. */
int bh_vsnprintf(char *buf, size_t size, const char *fmt, va_list args);
int bh_snprintf(char *buf, size_t size, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* In a function with arguments behind its parameter fmt: what bh_vsnprintf() makes of them. */
#define BH_FORMAT(buf, size, fmt)                                                                                      \
    do {                                                                                                               \
        va_list args_;                                                                                                 \
        va_start(args_, fmt);                                                                                          \
        (void)bh_vsnprintf(buf, size, fmt, args_);                                                                     \
        va_end(args_);                                                                                                 \
    } while (0)
