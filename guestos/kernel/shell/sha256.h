/* SHA-256 (FIPS 180-4). Pure. */
#pragma once

#include "shared/lib/types.h"

#define SHA256_SIZE 32u
#define SHA256_BLOCK 64u

struct sha256 {
    u32 state[8];
    u64 bytes;                /* hashed so far */
    u8 partial[SHA256_BLOCK]; /* of which bytes % 64 are waiting here */
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t size);
void sha256_finish(struct sha256 *hash, u8 digest[SHA256_SIZE]);

/* Finish and give the digest as 64 lower-case hexadecimal digits, terminated. */
void sha256_finish_hex(struct sha256 *hash, char text[2 * SHA256_SIZE + 1]);
