/* For Eva: the decoder on any bytes, as many as are available and not one more. */
#include "hv/exit/decode.c"

#include "tests/proof/world.h"

static u8 memory[INSTRUCTION_MAX];

static void decode(const u8 *bytes, u32 available)
{
    struct decoded_move move;
    u64 reg = any_u64();
    if (decode_move(bytes, available, any_u64() & 1, &move) != OK)
        return;
    //@ assert move.length <= INSTRUCTION_MAX;
    //@ assert move.width == 1 || move.width == 2 || move.width == 4 || move.width == 8;
    //@ assert move.reg_width == 1 || move.reg_width == 2 || move.reg_width == 4 || move.reg_width == 8;
    //@ assert move.reg_shift == 0 || move.reg_shift == 8;
    //@ assert move.reg_base < 16;
    (void)decode_register_read(&move, reg);
    decode_register_write(&move, &reg, any_u64());
}

int main(void)
{
    //@ widen_hints global:"all", INSTRUCTION_MAX;
    //@ loop unroll 15;
    for (u32 available = 0; available < INSTRUCTION_MAX; available++)
        decode(UNKNOWN(memory, available), available);
    decode(UNKNOWN(memory, INSTRUCTION_MAX), Frama_C_unsigned_int_interval(INSTRUCTION_MAX, UINT32_MAX));
    return 0;
}
