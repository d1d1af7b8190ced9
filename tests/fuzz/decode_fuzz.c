/* SOURCES: hv/exit/decode.c */
/* Any bytes: the decoder ends, stays inside them, and what it accepts makes sense. */
#include <stdlib.h>

#include "hv/exit/decode.h"

static void check(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool long_mode = data[0] & 1;
    struct decoded_move move, again;
    u32 available = size - 1 > 32 ? 32 : (u32)(size - 1);
    status_t status = decode_move(data + 1, available, long_mode, &move);
    if (status != OK) {
        check(status == ERR_UNSUPPORTED || status == ERR_RANGE);
        return 0;
    }
    check(move.length >= 2 && move.length <= 15 && move.length <= available);
    check(move.width == 1 || move.width == 2 || move.width == 4 || move.width == 8);
    check(move.reg_width >= move.width || move.write);
    check(move.reg_base < (long_mode ? 16 : 8) && (move.reg_shift == 0 || move.reg_shift == 8));
    check(!move.has_immediate || move.write);
    /* The bytes of the instruction are enough, and one less is not. */
    check(decode_move(data + 1, move.length, long_mode, &again) == OK && again.length == move.length);
    check(decode_move(data + 1, move.length - 1, long_mode, &again) == ERR_RANGE);
    u64 reg = 0;
    decode_register_write(&move, &reg, ~0ull);
    check(decode_register_read(&move, reg) != 0);
    return 0;
}
