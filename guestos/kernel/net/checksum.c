/* The Internet checksum: where no device computes it, the one pass over all data that is left. */
#include "guestos/kernel/net/support.h"
#include "shared/lib/string.h"

/* Frames lie anywhere: x86 does not mind, but the compiler must be told. */
typedef u64 __attribute__((aligned(1), may_alias)) loose_u64;

u16 net_checksum(const void *data, int size)
{
    const loose_u64 *word = data;
    u64 low = 0, high = 0; /* of 32-bit halves: 2^32 additions would not overflow them */
    u64 tail = 0;
    u32 left = size < 0 ? 0 : (u32)size;

    for (; left >= 32; left -= 32, word += 4) {
        u64 a = word[0], b = word[1], c = word[2], d = word[3];
        low += (u64)(u32)a + (u32)b + (u32)c + (u32)d;
        high += (a >> 32) + (b >> 32) + (c >> 32) + (d >> 32);
    }
    for (; left >= 8; left -= 8, word++) {
        low += (u32)*word;
        high += *word >> 32;
    }
    memcpy(&tail, word, left); /* an odd byte counts as if a zero byte followed (RFC 1071, section 1) */
    u64 sum = low + high + (u32)tail + (tail >> 32);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)sum;
}
