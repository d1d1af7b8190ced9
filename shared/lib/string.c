/*
 * Memory and string functions. The compiler may call memcpy, memmove, memset and memcmp on its own in any freestanding
 * translation unit, so these four must exist under exactly these names.
 */
#include "shared/lib/string.h"

#if !__STDC_HOSTED__

/*
 * gcc recognises loops that copy, fill or measure and replaces them by a call of memcpy, memset or strlen: here that
 * would be a call of the function itself, without end. An empty statement that may touch memory breaks the pattern.
 */
static inline void keep_as_loop(void)
{
    __asm__ volatile("" ::: "memory");
}

/*
 * String instructions, in quadwords and then the rest in bytes. Silicon has microcode for long runs of either (SDM 1
 * 7.3.9.3); under emulation every step is a trip round a translated loop, so quadwords are eight times as fast there.
 * Vector registers are not available to this code at all.
 */
void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
    void *to = dst;
    size_t words = n / 8, rest = n % 8;

    __asm__ volatile("rep movsq" : "+D"(to), "+S"(src), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(src), "+c"(rest) : : "memory");
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    void *to = dst;
    size_t words = n / 8, rest = n % 8;
    u64 pattern = (u8)c * 0x0101010101010101ull;

    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(rest) : "a"(pattern) : "memory");
    return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
    u8 *to = dst;
    const u8 *from = src;

    /* An ascending copy is right unless dst begins inside the source. The difference wraps when dst lies below. */
    if ((uintptr_t)to - (uintptr_t)from >= n) {
        /* In quadwords, too: each is loaded before it is stored, below all that is yet to load. */
        size_t words = n / 8, rest = n % 8;
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest) : : "memory");
        return dst;
    }
    /* Not std + rep movsb: descending it has no fast path, and an interrupt would find the direction flag set. */
    while (n > 0) {
        n--;
        to[n] = from[n];
        keep_as_loop();
    }
    return dst;
}

/* Words first, while they are equal: that is nearly all there is to do when a page is compared with its copy. */
int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    size_t i = 0;

    for (; n - i >= sizeof(u64); i += sizeof(u64)) {
        u64 from_a, from_b;
        __builtin_memcpy(&from_a, x + i, sizeof(from_a));
        __builtin_memcpy(&from_b, y + i, sizeof(from_b));
        if (from_a != from_b)
            break;
        keep_as_loop();
    }
    for (; i < n; i++) {
        if (x[i] != y[i])
            return x[i] - y[i];
        keep_as_loop();
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0') {
        n++;
        keep_as_loop();
    }
    return n;
}

size_t strnlen(const char *s, size_t max)
{
    size_t n = 0;
    while (n < max && s[n] != '\0') {
        n++;
        keep_as_loop();
    }
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    while (n > 0 && *a != '\0' && *a == *b) {
        a++;
        b++;
        n--;
    }
    return n == 0 ? 0 : (unsigned char)*a - (unsigned char)*b;
}

char *strchr(const char *s, int c)
{
    for (;; s++) {
        if (*s == (char)c)
            return (char *)s;
        if (*s == '\0')
            return NULL;
        keep_as_loop();
    }
}

#endif

bool str_copy(char *dst, size_t size, const char *src)
{
    size_t n = strnlen(src, size);
    bool fits = n < size;

    if (!fits)
        n = size - 1;
    memcpy(dst, src, n);
    dst[n] = '\0';
    return fits;
}

/* The value of a digit in any base up to 16; 16 for what is none, so that one comparison with the base rejects it. */
static u32 digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (u32)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (u32)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (u32)(c - 'A') + 10;
    return 16;
}

bool str_to_u64(const char *s, u64 *out)
{
    u32 base = 10;
    u64 value = 0;

    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        base = 16;
        s += 2;
    }
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++) {
        u32 digit = digit_value(*s);
        if (digit >= base || __builtin_mul_overflow(value, (u64)base, &value) ||
            __builtin_add_overflow(value, (u64)digit, &value))
            return false;
    }
    *out = value;
    return true;
}
