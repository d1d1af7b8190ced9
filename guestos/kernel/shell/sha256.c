#include "guestos/kernel/shell/sha256.h"

#include "shared/lib/printf.h"
#include "shared/lib/string.h"

/* 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const u32 k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline u32 rotate(u32 x, u32 n)
{
    return x >> n | x << (32 - n);
}

/* 4.1.2 and 6.2.2 step 3. The caller rotates the names of the eight variables instead of moving their values. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                               \
    do {                                                                                                               \
        u32 t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + k[i] + w[i];               \
        d += t1;                                                                                                       \
        h = t1 + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)));                           \
    } while (0)

static void hash_block(u32 state[8], const u8 *block)
{
    u32 w[64];
    u32 a = state[0], b = state[1], c = state[2], d = state[3];
    u32 e = state[4], f = state[5], g = state[6], h = state[7];

    memcpy(w, block, SHA256_BLOCK);
    for (u32 i = 0; i < 16; i++)
        w[i] = __builtin_bswap32(w[i]);
    for (u32 i = 16; i < 64; i++) {
        u32 x = w[i - 15], y = w[i - 2];
        w[i] =
            w[i - 16] + w[i - 7] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) + (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    for (u32 i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void sha256_init(struct sha256 *hash)
{
    /* 5.3.3 */
    static const u32 initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, initial, sizeof(initial));
    hash->bytes = 0;
}

void sha256_update(struct sha256 *hash, const void *data, size_t size)
{
    const u8 *from = data;
    size_t held = hash->bytes % SHA256_BLOCK;

    hash->bytes += size;
    if (held != 0) {
        size_t part = size < SHA256_BLOCK - held ? size : SHA256_BLOCK - held;
        memcpy(hash->partial + held, from, part);
        from += part;
        size -= part;
        if (held + part < SHA256_BLOCK)
            return;
        hash_block(hash->state, hash->partial);
    }
    for (; size >= SHA256_BLOCK; from += SHA256_BLOCK, size -= SHA256_BLOCK)
        hash_block(hash->state, from);
    memcpy(hash->partial, from, size);
}

void sha256_finish(struct sha256 *hash, u8 digest[SHA256_SIZE])
{
    static const u8 padding[SHA256_BLOCK] = {0x80};
    u64 bits = __builtin_bswap64(hash->bytes * 8);
    size_t held = hash->bytes % SHA256_BLOCK;

    /* 5.1.1: a one bit, zeros, and the length in the last eight bytes of a block. */
    sha256_update(hash, padding, held < 56 ? 56 - held : 120 - held);
    sha256_update(hash, &bits, sizeof(bits));
    for (u32 i = 0; i < 8; i++) {
        u32 word = __builtin_bswap32(hash->state[i]);
        memcpy(digest + 4 * (size_t)i, &word, 4);
    }
}

void sha256_finish_hex(struct sha256 *hash, char text[2 * SHA256_SIZE + 1])
{
    u8 digest[SHA256_SIZE];

    sha256_finish(hash, digest);
    for (u32 i = 0; i < SHA256_SIZE; i++)
        bh_snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
}
