/*
 * What GCC builds in and Frama-C does not know, in C. Atomic loads become volatile reads: any value comes back, each time,
 * as from memory that somebody else writes. Included before each source by test_proof.py.
 */
#pragma once

#include "shared/lib/types.h"

#define __atomic_load_n(at, order) (*(const volatile __typeof__(*(at)) *)(at))
#define __atomic_store_n(at, value, order) (*(at) = (value))
#define __atomic_thread_fence(order) ((void)0)
#define __builtin_ia32_pause() ((void)0)

/* Unsigned, and operands as wide as the result: so checked.h uses them. */
#define __builtin_add_overflow(a, b, sum) (*(sum) = (a) + (b), (b) > (__typeof__(*(sum)))-1 - (a))
#define __builtin_mul_overflow(a, b, product) proof_mul_u64(a, b, product)

/* Assumed: GCC's description of the builtin. */
/*@ requires \valid(product);
    assigns \result, *product \from a, b;
    ensures \result == 0 || \result == 1;
    ensures \result == 0 ==> *product == a * b;
    ensures \result == 1 <==> a * b > 0xffffffffffffffff; */
int proof_mul_u64(u64 a, u64 b, u64 *product);

/* checked.h: proven, and what callers know of it. */

/*@ requires \valid(out);
    assigns \result, *out \from a, b, *out;
    ensures \result <==> a + b <= 0xffffffffffffffff;
    ensures *out == (\result ? a + b : \old(*out)); */
static inline bool add_u64(u64 a, u64 b, u64 *out);
/*@ requires \valid(out);
    assigns \result, *out \from a, b, *out;
    ensures \result <==> a * b <= 0xffffffffffffffff;
    ensures *out == (\result ? a * b : \old(*out)); */
static inline bool mul_u64(u64 a, u64 b, u64 *out);
/*@ requires \valid(out);
    assigns \result, *out \from a, b, *out;
    ensures \result <==> a + b <= 0xffffffff;
    ensures *out == (\result ? a + b : \old(*out)); */
static inline bool add_u32(u32 a, u32 b, u32 *out);
/*@ assigns \result \from at, len, base, size;
    ensures \result <==> base <= at && at + len <= base + size; */
static inline bool range_inside(u64 at, u64 len, u64 base, u64 size);
/*@ assigns \result \from a, a_len, b, b_len;
    ensures a_len > 0 && b_len > 0 ==> (\result <==> a < b + b_len && b < a + a_len); */
static inline bool ranges_overlap(u64 a, u64 a_len, u64 b, u64 b_len);
