/*
 * A driver image over the control port: pieces of a line each, in any order, then size and checksum of the whole. They
 * are put together here, where no VM writes: what was checked is what is loaded.
 */
#include "hv/control/answer.h"
#include "hv/core/driver.h"
#include "shared/lib/string.h"

#define UPLOAD_MAX KIB(160) /* an image of 128 KiB at most, as a file */

static u8 staged[UPLOAD_MAX];

/* RFC 4648 4, without padding: bits that do not make a byte at the end are left out. */
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const char *upload_chunk(struct vm *vm, const char *const words[])
{
    size_t length = strlen(words[1]) * 6 / 8;
    u32 bits = 0, have = 0;
    u64 at;

    (void)vm;
    if (!str_to_u64(words[0], &at) || at > UPLOAD_MAX || length > UPLOAD_MAX - at)
        return "OFFSET is no number, or beyond 160 KiB";
    for (const char *c = words[1], *digit; *c != '\0'; c++) {
        if ((digit = strchr(digits, *c)) == NULL)
            return "not base64";
        bits = bits << 6 | (u32)(digit - digits);
        have += 6;
        if (have >= 8)
            staged[at++] = (u8)(bits >> (have -= 8));
    }
    return NULL;
}

const char *upload_replace(struct vm *vm, const char *const words[])
{
    const char *why;
    u64 size, sum;

    if (!str_to_u64(words[0], &size) || !str_to_u64(words[1], &sum) || size > UPLOAD_MAX ||
        recovery_checksum(staged, size) != sum)
        return "size or checksum is another: pieces are missing or damaged";
    return recovery_replace(vm->driver, staged, size, &why) == OK ? NULL : why;
}
