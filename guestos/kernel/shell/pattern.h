/*
 * Seeded test data. The contents of a 512-byte sector are a pure function of (seed, sector number, generation); all
 * arithmetic is unsigned modulo 2^64, words are 64-bit little endian:
 *
 *   mix64(x):  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
 *              x = (x ^ (x >> 27)) * 0x94d049bb133111eb
 *              return x ^ (x >> 31)
 *   word[0]  = sector
 *   word[1]  = generation
 *   state    = mix64(seed ^ mix64(sector + (generation << 40)))
 *   word[i]  = mix64(state + i * 0x9e3779b97f4a7c15)        for i = 2 .. 63
 *
 * The first two words say in plain where and when the data belongs, so that a misplaced or stale sector shows as what
 * it is. `blk write` and `blk verify` use generation 0.
 */
#pragma once

#include "shared/lib/types.h"

#define PATTERN_SECTOR 512u
#define PATTERN_WORDS (PATTERN_SECTOR / 8)

/* Write one sector's pattern to `at` (any alignment). */
void pattern_fill(void *at, u64 seed, u64 sector, u64 generation);

/* The index of the first word of the 512 bytes at `at` that differs from the pattern, or -1. */
int pattern_compare(const void *at, u64 seed, u64 sector, u64 generation);

/* Word `index` of the pattern, for messages. */
u64 pattern_word(u64 seed, u64 sector, u64 generation, u32 index);
