/* Latencies and their percentiles, exact to about 3 %: 32 buckets for each power of two of nanoseconds. Pure. */
#pragma once

#include "shared/lib/types.h"

#define LATENCY_BUCKET_BITS 5u
#define LATENCY_BUCKETS (64u << LATENCY_BUCKET_BITS)

/* All zero: nothing was measured yet. */
struct latency {
    u64 count, total_ns, max_ns;
    u32 bucket[LATENCY_BUCKETS];
};

void latency_add(struct latency *latency, u64 ns);

/* Add all that `other` has measured. */
void latency_merge(struct latency *latency, const struct latency *other);

/* In nanoseconds: the lower edge of the bucket in which the p-th thousandth of all latencies lies; 0 when there are
 * none. */
u64 latency_percentile(const struct latency *latency, u32 thousandth);
u64 latency_mean(const struct latency *latency);
