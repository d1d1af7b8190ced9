/*
 * A driver image over the control port: pieces of a line each, in any order, then size and checksum of the whole. They
 * are put together here, where no VM writes: what was checked is what is loaded.
 */
#include "hv/control/answer.h"
#include "hv/core/driver.h"
#include "shared/lib/string.h"

#define UPLOAD_MAX KIB(160) /* an image of 128 KiB at most, as a file */

static u8 staged[UPLOAD_MAX];

static i32 hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

const char *upload_chunk(struct vm *vm, const char *const words[])
{
    size_t length = (strlen(words[1]) + 1) / 2; /* half a byte ends in the terminator, which is no digit */
    u64 at;

    (void)vm;
    if (!str_to_u64(words[0], &at) || at > UPLOAD_MAX || length > UPLOAD_MAX - at)
        return "OFFSET is no number, or beyond 160 KiB";
    for (size_t i = 0; i < length; i++) {
        i32 high = hex_digit(words[1][2 * i]), low = hex_digit(words[1][2 * i + 1]);
        if (high < 0 || low < 0)
            return "not hexadecimal";
        staged[at + i] = (u8)(high << 4 | low);
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
