/*
 * Random numbers for property-based tests: repeatable, quick, the same everywhere (splitmix64, Steele et al., OOPSLA
 * 2014).
 *
 *   struct random random = random_start("grants");   prints the seed; BULKHEAD_SEED=<number> repeats that run
 *   u64 page = random_below(&random, 64);
 */
#pragma once

#include <time.h>

#include "shared/lib/string.h"
#include "tests/unit/unit.h"

struct random {
    u64 state;
    u64 seed;
};

/* 64 bits, all equally likely. */
static inline u64 random_u64(struct random *random)
{
    u64 z = random->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* In [0, limit); limit > 0. Its bias is below limit / 2^64, which no test notices. */
static inline u64 random_below(struct random *random, u64 limit)
{
    return (u64)((unsigned __int128)random_u64(random) * limit >> 64);
}

/* In [low, high]. */
static inline u64 random_between(struct random *random, u64 low, u64 high)
{
    u64 span = high - low + 1; /* 0: all 64 bits */
    return low + (span == 0 ? random_u64(random) : random_below(random, span));
}

/* True once in `times` calls on average. */
static inline bool random_one_in(struct random *random, u64 times)
{
    return random_below(random, times) == 0;
}

/* A number of random width: small ones and huge ones are equally likely, so both kinds of border are met. */
static inline u64 random_bits(struct random *random)
{
    return random_u64(random) >> random_below(random, 64);
}

static inline void random_fill(struct random *random, void *out, size_t size)
{
    u8 *bytes = out;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (u8)random_u64(random);
}

/* A generator with the seed of BULKHEAD_SEED, else of the clock. Says which, so that a failure can be repeated. */
static inline struct random random_start(const char *name)
{
    const char *text = getenv("BULKHEAD_SEED");
    struct timespec now;
    u64 seed;

    clock_gettime(CLOCK_REALTIME, &now);
    if (text == NULL)
        seed = (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
    else if (!str_to_u64(text, &seed))
        fail_msg("BULKHEAD_SEED=%s is not a number", text);
    printf("%s: BULKHEAD_SEED=%llu\n", name, (unsigned long long)seed);
    return (struct random){.state = seed, .seed = seed};
}
