/* Arithmetic for sizes that a peer supplies. What can overflow returns false then, and leaves *out alone. */
#pragma once

#include "shared/lib/types.h"

NODISCARD static inline bool add_u64(u64 a, u64 b, u64 *out)
{
    u64 sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

NODISCARD static inline bool mul_u64(u64 a, u64 b, u64 *out)
{
    u64 product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

NODISCARD static inline bool add_u32(u32 a, u32 b, u32 *out)
{
    u32 sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

static inline u32 min_u32(u32 a, u32 b)
{
    return a < b ? a : b;
}

static inline u64 min_u64(u64 a, u64 b)
{
    return a < b ? a : b;
}

static inline u64 max_u64(u64 a, u64 b)
{
    return a > b ? a : b;
}

/* True when [at, at + len) lies inside [base, base + size); len 0 counts as inside when at does. */
static inline bool range_inside(u64 at, u64 len, u64 base, u64 size)
{
    return at >= base && at - base <= size && len <= size - (at - base);
}

static inline bool ranges_overlap(u64 a, u64 a_len, u64 b, u64 b_len)
{
    return a < b ? a_len > b - a : b_len > a - b;
}
