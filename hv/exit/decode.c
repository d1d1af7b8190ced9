#include "hv/exit/decode.h"

/* SDM 2 2.2.1: 0100WRXB */
#define REX_W 8u
#define REX_R 4u

struct cursor {
    const u8 *bytes;
    u32 available, at;
    status_t status; /* the first failure; later bytes read 0 */
};

static u8 next_byte(struct cursor *cursor)
{
    if (cursor->status == OK && cursor->at < INSTRUCTION_MAX && cursor->at < cursor->available)
        return cursor->bytes[cursor->at++];
    if (cursor->status == OK)
        cursor->status = cursor->at == INSTRUCTION_MAX ? ERR_UNSUPPORTED : ERR_RANGE;
    return 0;
}

/* Little endian, sign-extended to 64 bits. */
static u64 next_signed(struct cursor *cursor, u32 width)
{
    u64 value = 0;
    for (u32 i = 0; i < width; i++)
        value |= (u64)next_byte(cursor) << i * 8;
    u32 unused = 64 - width * 8;
    return (u64)((i64)(value << unused) >> unused);
}

/* SDM 2 2.1.5, tables 2-2 and 2-3: skip SIB and displacement. The address itself came with the exit. */
static void skip_address(struct cursor *cursor, u8 modrm)
{
    u8 mod = modrm >> 6, rm = modrm & 7;
    u8 base = rm == 4 ? next_byte(cursor) & 7 : rm;
    if (mod == 1)
        (void)next_signed(cursor, 1);
    else if (mod == 2 || base == 5) /* mod 0 with base 5: disp32 alone, or RIP-relative */
        (void)next_signed(cursor, 4);
}

/*
 * Returns the first opcode byte. Segment overrides and address size are skipped: the address came with the exit. *rex:
 * 0, none; it counts only right before the opcode (SDM 2 2.2.1).
 */
static u8 skip_prefixes(struct cursor *cursor, bool long_mode, bool *operand_size, u8 *rex)
{
    for (;;) {
        u8 byte = next_byte(cursor);
        bool segment = byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x64 || byte == 0x65;
        bool is_rex = long_mode && (byte & 0xf0) == 0x40;
        bool address_size = long_mode && byte == 0x67; /* elsewhere 16-bit addressing, not known here */
        if (!segment && !is_rex && !address_size && byte != 0x66)
            return byte;
        *operand_size |= byte == 0x66;
        *rex = is_rex ? byte : 0;
    }
}

/* The opcode says everything but the register. operand: 2, 4 or 8. False: not a move that we know. */
static bool decode_opcode(struct cursor *cursor, u8 opcode, u8 operand, bool long_mode, struct decoded_move *out)
{
    u32 escape = opcode == 0x0f ? 0x0f00 : 0;
    if (escape != 0)
        opcode = next_byte(cursor);
    out->width = out->reg_width = opcode & 1 ? operand : 1;
    switch (escape | (opcode & 0xfeu)) { /* the lowest bit: bytes, or more */
    case 0x88:                           /* MOV r/m, r */
        out->write = true;
        return true;
    case 0x8a: /* MOV r, r/m */
        return true;
    case 0xc6: /* MOV r/m, imm */
        out->write = out->has_immediate = true;
        return true;
    case 0x0fb6: /* MOVZX */
    case 0x0fbe: /* MOVSX */
        out->width = opcode & 1 ? 2 : 1;
        out->reg_width = operand;
        out->sign_extend = opcode >= 0xbe;
        return true;
    case 0x62: /* 63: MOVSXD r64, r/m32; discouraged without REX.W, ARPL outside 64-bit code (SDM 2B) */
        out->width = 4;
        out->sign_extend = true;
        return opcode == 0x63 && long_mode && operand == 8;
    default:
        return false;
    }
}

static u64 low_bytes(u64 value, u32 width)
{
    return width == 8 ? value : value & ((1ull << width * 8) - 1);
}

status_t decode_move(const u8 *bytes, u32 available, bool long_mode, struct decoded_move *out)
{
    struct cursor cursor = {.bytes = bytes, .available = available, .status = OK};
    bool small = false;
    u8 rex = 0;
    *out = (struct decoded_move){0};
    u8 opcode = skip_prefixes(&cursor, long_mode, &small, &rex);
    u8 operand = rex & REX_W ? 8 : small ? 2 : 4;
    bool known = decode_opcode(&cursor, opcode, operand, long_mode, out);
    if (!known)
        return cursor.status != OK ? cursor.status : ERR_UNSUPPORTED;

    u8 modrm = next_byte(&cursor);
    u8 reg = modrm >> 3 & 7;
    if (modrm >> 6 == 3 || (out->has_immediate && reg != 0))
        return ERR_UNSUPPORTED; /* between registers: no memory, no exit; C6 and C7 are moves with /0 only */
    skip_address(&cursor, modrm);
    if (out->has_immediate) {
        out->immediate = low_bytes(next_signed(&cursor, out->width == 8 ? 4 : out->width), out->width);
    } else if (out->reg_width == 1 && rex == 0 && reg >= 4) {
        out->reg_base = reg - 4;
        out->reg_shift = 8;
    } else {
        out->reg_base = (u8)(reg | (rex & REX_R ? 8 : 0));
    }
    out->length = cursor.at;
    return cursor.status;
}

u64 decode_register_read(const struct decoded_move *move, u64 reg)
{
    return low_bytes(reg >> move->reg_shift, move->width);
}

void decode_register_write(const struct decoded_move *move, u64 *reg, u64 value)
{
    u32 unused = 64 - move->width * 8;
    value <<= unused;
    value = move->sign_extend ? (u64)((i64)value >> unused) : value >> unused;
    value = low_bytes(value, move->reg_width);
    /* A 32-bit result clears the upper half; narrower ones leave the rest of the register alone (SDM 1 3.4.1.1). */
    u64 kept = move->reg_width >= 4 ? 0 : *reg & ~(low_bytes(~0ull, move->reg_width) << move->reg_shift);
    *reg = kept | value << move->reg_shift;
}
