/*
 * A decoder for the one kind of instruction that device registers in memory are accessed with: aligned moves. Pure:
 * bytes in, description out; the bytes are the guest's and may be anything.
 *
 * Known: MOV r/m,r  MOV r,r/m  MOV r/m,imm  MOVZX  MOVSX  MOVSXD, memory forms, 8 to 64 bits, 32-bit and 64-bit code
 * (SDM 2 chapter 2). Everything else (string moves, read-modify-write, LOCK and REP) is refused, not guessed.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define INSTRUCTION_MAX 15u /* bytes; SDM 2 2.3.11 */

struct decoded_move {
    u32 length;         /* of the instruction, 2..15 */
    u32 width;          /* of the memory operand: 1, 2, 4, 8 */
    bool write;         /* to memory */
    bool has_immediate; /* what is written is `immediate`, cut to width; else a register */
    bool sign_extend;   /* a read whose register is wider than memory */
    u64 immediate;
    u8 reg_base;  /* register number as encoded: 0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI, 8.. R8.. */
    u8 reg_shift; /* 8 for AH, CH, DH, BH */
    u8 reg_width; /* bytes of the register that take part */
};

/*
 * bytes[0..available) start at the instruction. long_mode: 64-bit code, else 32-bit protected mode.
 * ERR_RANGE: the instruction is longer than what is available. ERR_UNSUPPORTED: not such a move.
 */
NODISCARD status_t decode_move(const u8 *bytes, u32 available, bool long_mode, struct decoded_move *out);

/* What a write puts into memory, given the whole register reg_base. */
u64 decode_register_read(const struct decoded_move *move, u64 reg);
/* What a read leaves in the whole register reg_base, given what memory held (bits above `width` are ignored). */
void decode_register_write(const struct decoded_move *move, u64 *reg, u64 value);
