/* splitmix64 (Steele, Lea, Flood 2014): the one source of pseudo-random numbers and patterns here. Pure. */
#pragma once

#include "shared/lib/types.h"

#define MIX_STEP 0x9e3779b97f4a7c15ull

/* The finalizer: a bijection that changes about half of the bits when one changes. */
static inline u64 mix64(u64 x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* The next number of the generator whose state is *state. */
static inline u64 mix_next(u64 *state)
{
    *state += MIX_STEP;
    return mix64(*state);
}
