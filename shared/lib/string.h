/* The C string functions that freestanding code needs; on the host the C library has them, with the same contracts. */
#pragma once

#include "shared/lib/types.h"

#if __STDC_HOSTED__
#include <string.h>
#else
void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);
#endif

/* Copy src into dst[size], truncating, always terminated (size > 0). Returns false when it was truncated. */
bool str_copy(char *dst, size_t size, const char *src);

/* Parse an unsigned number, decimal or 0x-hex, of exactly the whole string. False: not a number or over 64 bits. */
NODISCARD bool str_to_u64(const char *s, u64 *out);
