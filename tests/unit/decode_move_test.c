/* SOURCES: hv/exit/decode.c */
/* LIBS: capstone */
/* The decoder of moves: against Capstone on generated instructions, and by hand where Capstone cannot say. */
#include "tests/unit/random.h"

#include <capstone/capstone.h>

#include "hv/exit/decode.h"

#define INSTRUCTIONS 100000u
#define MAX 15u

static csh handle_of(bool long_mode)
{
    static csh handles[2];
    csh *handle = &handles[long_mode];

    if (*handle == 0) {
        assert_int_equal(cs_open(CS_ARCH_X86, long_mode ? CS_MODE_64 : CS_MODE_32, handle), CS_ERR_OK);
        cs_option(*handle, CS_OPT_DETAIL, CS_OPT_ON);
    }
    return *handle;
}

/* The encoded number of a general register, and whether it is a high byte. False: another kind of register. */
static bool number_of(csh handle, unsigned reg, u8 *base, u8 *shift)
{
    static const char *const names[16][5] = {
        {"rax", "eax", "ax", "al", "ah"},     {"rcx", "ecx", "cx", "cl", "ch"},
        {"rdx", "edx", "dx", "dl", "dh"},     {"rbx", "ebx", "bx", "bl", "bh"},
        {"rsp", "esp", "sp", "spl", "-"},     {"rbp", "ebp", "bp", "bpl", "-"},
        {"rsi", "esi", "si", "sil", "-"},     {"rdi", "edi", "di", "dil", "-"},
        {"r8", "r8d", "r8w", "r8b", "-"},     {"r9", "r9d", "r9w", "r9b", "-"},
        {"r10", "r10d", "r10w", "r10b", "-"}, {"r11", "r11d", "r11w", "r11b", "-"},
        {"r12", "r12d", "r12w", "r12b", "-"}, {"r13", "r13d", "r13w", "r13b", "-"},
        {"r14", "r14d", "r14w", "r14b", "-"}, {"r15", "r15d", "r15w", "r15b", "-"},
    };
    const char *name = cs_reg_name(handle, reg);

    for (u8 i = 0; name != NULL && i < 16; i++) {
        for (u8 form = 0; form < 5; form++) {
            if (strcmp(names[i][form], name) == 0) {
                *base = i;
                *shift = form == 4 ? 8 : 0;
                return true;
            }
        }
    }
    return false;
}

/* LOCK and REP (XACQUIRE, XRELEASE) before the opcode, which Capstone does not always report. Such moves are refused.
 */
static bool has_lock_or_rep(const cs_insn *insn)
{
    for (u32 i = 0; i < insn->size; i++) {
        u8 byte = insn->bytes[i];
        if (byte == 0xf0 || byte == 0xf2 || byte == 0xf3)
            return true;
        if (strchr("\x26\x2e\x36\x3e\x64\x65\x66\x67", byte) == NULL && (byte & 0xf0) != 0x40)
            return false;
    }
    return false;
}

/* Capstone's view in our terms. False: not a move that the decoder promises to know. */
static bool expected_of(csh handle, const cs_insn *insn, struct decoded_move *out)
{
    const cs_x86 *x86 = &insn->detail->x86;
    const cs_x86_op *a = &x86->operands[0], *b = &x86->operands[1];
    bool offset_form = (x86->opcode[0] & 0xfc) == 0xa0; /* MOV AL/eAX, moffs: no ModRM, not promised */

    /* MOVSXD without REX.W extends nothing, is discouraged (SDM 2), and Capstone 4 takes it for 64 bits. Not promised.
     */
    bool odd_extension = x86->opcode[0] == 0x63 && (x86->rex & 8) == 0;

    *out = (struct decoded_move){.length = insn->size};
    if (insn->id != X86_INS_MOV && insn->id != X86_INS_MOVZX && insn->id != X86_INS_MOVSX && insn->id != X86_INS_MOVSXD)
        return false;
    if (x86->op_count != 2 || offset_form || odd_extension || has_lock_or_rep(insn) || x86->addr_size == 2)
        return false;
    out->write = a->type == X86_OP_MEM;
    out->sign_extend = insn->id == X86_INS_MOVSX || insn->id == X86_INS_MOVSXD;
    if (out->write && b->type == X86_OP_IMM) {
        out->width = out->reg_width = a->size;
        out->has_immediate = true;
        out->immediate = a->size == 8 ? (u64)b->imm : (u64)b->imm & ((1ull << a->size * 8) - 1);
        return true;
    }
    const cs_x86_op *memory = out->write ? a : b, *reg = out->write ? b : a;
    out->width = memory->size;
    out->reg_width = reg->size;
    return memory->type == X86_OP_MEM && reg->type == X86_OP_REG &&
           number_of(handle, reg->reg, &out->reg_base, &out->reg_shift);
}

/* Mostly moves, of every form; some anything. */
static void generate(struct random *random, bool long_mode, u8 code[MAX])
{
    static const u8 prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x66, 0x66, 0x67};
    static const u8 opcodes[] = {0x88, 0x89, 0x8a, 0x8b, 0xc6, 0xc7, 0x63, 0xb6, 0xb7, 0xbe, 0xbf};
    u32 at = 0;

    random_fill(random, code, MAX);
    if (random_one_in(random, 4))
        return;
    for (u64 count = random_below(random, 3); count > 0; count--)
        code[at++] = prefixes[random_below(random, ARRAY_SIZE(prefixes) - (long_mode ? 0 : 1))];
    if (long_mode && random_one_in(random, 2))
        code[at++] = (u8)(0x40 | random_below(random, 16));
    u8 opcode = opcodes[random_below(random, ARRAY_SIZE(opcodes))];
    if (opcode >= 0xb6 && opcode <= 0xbf)
        code[at++] = 0x0f;
    code[at++] = opcode;
    if ((opcode & 0xfe) == 0xc6 && !random_one_in(random, 8))
        code[at] &= 0xc7; /* /0 */
}

static void show(const u8 *code, bool long_mode, const cs_insn *insn)
{
    print_message("%u-bit:", long_mode ? 64u : 32u);
    for (u32 i = 0; i < MAX; i++)
        print_message(" %02x", code[i]);
    print_message("  %s %s\n", insn != NULL ? insn->mnemonic : "(none)", insn != NULL ? insn->op_str : "");
}

static void agrees_with_capstone(void **state)
{
    struct random random = random_start("decode");
    u32 moves = 0, refused = 0;
    (void)state;

    for (u32 i = 0; i < INSTRUCTIONS; i++) {
        bool long_mode = !random_one_in(&random, 4);
        csh handle = handle_of(long_mode);
        struct decoded_move expected, got;
        cs_insn *insn = NULL;
        u8 code[MAX];

        generate(&random, long_mode, code);
        size_t count = cs_disasm(handle, code, sizeof(code), 0x1000, 1, &insn);
        bool known = count == 1 && expected_of(handle, insn, &expected);
        status_t status = decode_move(code, MAX, long_mode, &got);
        bool same = known ? status == OK && memcmp(&expected, &got, sizeof(got)) == 0 : status != OK;
        if (!same) {
            show(code, long_mode, count == 1 ? insn : NULL);
            print_message("status %s, length %u width %u reg %u/%u/%u imm %llx\n", status_text(status), got.length,
                          got.width, got.reg_base, got.reg_shift, got.reg_width, (unsigned long long)got.immediate);
            fail();
        }
        cs_free(insn, count);
        if (known) {
            moves++;
            /* Every shorter view of it is too short, and reads nothing behind its end (ASan watches the heap copy). */
            u32 part = (u32)random_below(&random, got.length);
            u8 *copy = malloc(part + 1);
            memcpy(copy, code, part);
            u8 *exact = realloc(copy, part == 0 ? 1 : part);
            assert_int_equal(decode_move(exact, part, long_mode, &got), ERR_RANGE);
            free(exact);
        } else {
            refused++;
        }
    }
    print_message("%u moves, %u others\n", moves, refused);
    assert_true(moves > INSTRUCTIONS / 3);
    assert_true(refused > INSTRUCTIONS / 10);
}

static void refuses_what_is_not_a_plain_move(void **state)
{
    static const u8 codes[][MAX] = {
        {0xf0, 0x89, 0x08},       /* lock mov [rax], ecx */
        {0xf3, 0x89, 0x08},       /* rep (xrelease) mov */
        {0xa4},                   /* movsb */
        {0xab},                   /* stosd */
        {0x89, 0xc8},             /* mov eax, ecx: no memory */
        {0xc7, 0x48, 0x00, 1},    /* c7 /1 */
        {0x01, 0x08},             /* add [rax], ecx */
        {0x87, 0x08},             /* xchg [rax], ecx */
        {0x8c, 0x08},             /* mov [rax], cs */
        {0x0f, 0x20, 0xc0},       /* mov rax, cr0 */
        {0x0f, 0xae, 0x00},       /* fxsave */
        {0x66, 0x0f, 0x7f, 0x00}, /* movdqa [rax], xmm0 */
        {0x63, 0x00},             /* movsxd without REX.W */
    };
    struct decoded_move move;
    (void)state;

    for (u32 i = 0; i < ARRAY_SIZE(codes); i++)
        assert_int_equal(decode_move(codes[i], MAX, true, &move), ERR_UNSUPPORTED);
    /* Sixteen bytes are no instruction, even if they are there. */
    u8 padded[20];
    memset(padded, 0x3e, sizeof(padded));
    assert_int_equal(decode_move(padded, sizeof(padded), true, &move), ERR_UNSUPPORTED);
    static const u8 arpl[] = {0x63, 0x00}, address16[] = {0x67, 0x89, 0x00};
    assert_int_equal(decode_move(arpl, 2, false, &move), ERR_UNSUPPORTED);
    assert_int_equal(decode_move(address16, 3, false, &move), ERR_UNSUPPORTED);
}

static u64 after_read(const u8 *code, u64 reg, u64 memory)
{
    struct decoded_move move;

    assert_int_equal(decode_move(code, MAX, true, &move), OK);
    assert_false(move.write);
    decode_register_write(&move, &reg, memory);
    return reg;
}

static void registers_take_values_as_the_cpu_would(void **state)
{
    const u64 old = 0x1122334455667788, memory = 0xaabbccddeeff8081;
    struct decoded_move move;
    (void)state;

    assert_int_equal(after_read((const u8[MAX]){0x8a, 0x00}, old, memory), 0x1122334455667781);             /* al */
    assert_int_equal(after_read((const u8[MAX]){0x8a, 0x20}, old, memory), 0x1122334455668188);             /* ah */
    assert_int_equal(after_read((const u8[MAX]){0x66, 0x8b, 0x00}, old, memory), 0x1122334455668081);       /* ax */
    assert_int_equal(after_read((const u8[MAX]){0x8b, 0x00}, old, memory), 0xeeff8081);                     /* eax */
    assert_int_equal(after_read((const u8[MAX]){0x48, 0x8b, 0x00}, old, memory), memory);                   /* rax */
    assert_int_equal(after_read((const u8[MAX]){0x0f, 0xb6, 0x00}, old, memory), 0x81);                     /* movzx */
    assert_int_equal(after_read((const u8[MAX]){0x0f, 0xbe, 0x00}, old, memory), 0xffffff81);               /* movsx */
    assert_int_equal(after_read((const u8[MAX]){0x66, 0x0f, 0xbe, 0x00}, old, memory), 0x112233445566ff81); /* to ax */
    assert_int_equal(after_read((const u8[MAX]){0x48, 0x0f, 0xbf, 0x00}, old, memory), 0xffffffffffff8081);
    assert_int_equal(after_read((const u8[MAX]){0x48, 0x63, 0x00}, old, memory), 0xffffffffeeff8081); /* movsxd */

    assert_int_equal(decode_move((const u8[MAX]){0x88, 0x20}, MAX, true, &move), OK); /* mov [rax], ah */
    assert_int_equal(decode_register_read(&move, old), 0x77);
    assert_int_equal(decode_move((const u8[MAX]){0x89, 0x08}, MAX, true, &move), OK);
    assert_int_equal(move.reg_base, 1);
    assert_int_equal(decode_register_read(&move, old), 0x55667788);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_capstone),
        cmocka_unit_test(refuses_what_is_not_a_plain_move),
        cmocka_unit_test(registers_take_values_as_the_cpu_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
