#include "guestos/kernel/shell/latency.h"

#define BUCKET_MASK ((1u << LATENCY_BUCKET_BITS) - 1)

static u32 bucket_of(u64 ns)
{
    if (ns <= BUCKET_MASK)
        return (u32)ns;
    u32 shift = 63 - (u32)__builtin_clzll(ns) - LATENCY_BUCKET_BITS;
    return ((shift + 1) << LATENCY_BUCKET_BITS) + (u32)(ns >> shift & BUCKET_MASK);
}

static u64 lower_edge(u32 bucket)
{
    u32 shift = bucket >> LATENCY_BUCKET_BITS;
    u64 low = bucket & BUCKET_MASK;

    return shift == 0 ? low : (low | (BUCKET_MASK + 1)) << (shift - 1);
}

void latency_add(struct latency *latency, u64 ns)
{
    latency->count++;
    latency->total_ns += ns;
    latency->max_ns = ns > latency->max_ns ? ns : latency->max_ns;
    latency->bucket[bucket_of(ns)]++;
}

void latency_merge(struct latency *latency, const struct latency *other)
{
    latency->count += other->count;
    latency->total_ns += other->total_ns;
    latency->max_ns = other->max_ns > latency->max_ns ? other->max_ns : latency->max_ns;
    for (u32 i = 0; i < LATENCY_BUCKETS; i++)
        latency->bucket[i] += other->bucket[i];
}

u64 latency_percentile(const struct latency *latency, u32 thousandth)
{
    u64 wanted = (latency->count * thousandth + 999) / 1000, seen = 0;

    for (u32 i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->bucket[i];
        if (seen != 0 && seen >= wanted)
            return lower_edge(i);
    }
    return 0;
}

u64 latency_mean(const struct latency *latency)
{
    return latency->count == 0 ? 0 : latency->total_ns / latency->count;
}
