/* For Eva: the decoder on any bytes, as many as are available and not one more. */
#include "hv/exit/decode.c"

#include "tests/proof/world.h"

static void decode(const u8 *bytes, u32 available)
{
    struct decoded_move move;
    u64 reg = any_u64();
    if (decode_move(bytes, available, any_u64() & 1, &move) != OK)
        return;
    //@ assert 2 <= move.length <= INSTRUCTION_MAX;
    //@ assert move.width == 1 || move.width == 2 || move.width == 4 || move.width == 8;
    //@ assert move.reg_width == 1 || move.reg_width == 2 || move.reg_width == 4 || move.reg_width == 8;
    //@ assert move.reg_shift == 0 || move.reg_shift == 8;
    //@ assert move.reg_base < 16;
    (void)decode_register_read(&move, reg);
    decode_register_write(&move, &reg, any_u64());
}

int main(void)
{
    decode(unknown(1) + 1, 0);
    //@ loop unroll 14;
    for (u32 available = 1; available < INSTRUCTION_MAX; available++)
        decode(unknown(available), available);
    decode(unknown(INSTRUCTION_MAX), Frama_C_unsigned_int_interval(INSTRUCTION_MAX, UINT32_MAX));
    return 0;
}
