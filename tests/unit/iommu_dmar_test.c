/* SOURCES: hv/iommu/dmar.c */
/* The DMAR parser with tables as firmware writes them, cut off anywhere, and damaged. */
#include "hv/iommu/dmar.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

static u8 table[4096];
static u32 size;

static void put(u32 at, u32 width, u64 value)
{
    memcpy(table + at, &value, width);
}

static void append(u32 width, u64 value)
{
    put(size, width, value);
    size += width;
    put(4, 4, size);
}

static int setup(void **state)
{
    memset(table, 0, sizeof(table));
    memcpy(table, "DMAR", 4);
    size = 48;
    put(4, 4, size);
    table[36] = 47; /* host address width - 1 */
    table[37] = 1;
    return 0;
}

static void add_unit(u64 base, u16 segment, u8 flags, u32 scope_bytes)
{
    append(2, 0);
    append(2, 16 + scope_bytes);
    append(1, flags);
    append(1, 0);
    append(2, segment);
    append(8, base);
    size += scope_bytes;
    put(4, 4, size);
}

/* A structure that does not concern us: reserved memory of one device. */
static void add_reserved(void)
{
    append(2, 1);
    append(2, 24 + 8);
    append(4, 0);
    append(8, 0x7d000000);
    append(8, 0x7f7fffff);
    append(8, 0x0314020000000801);
}

static bool parse(struct dmar_info *info)
{
    /* A copy of the exact size, so that the sanitizer sees each byte that is read beyond it. */
    u8 *copy = malloc(size);

    memcpy(copy, table, size);
    const char *flaw = dmar_parse(copy, size, info);
    free(copy);
    assert_true(!flaw || *flaw);
    return !flaw;
}

static void good_table(void **state)
{
    struct dmar_info info;

    add_reserved();
    add_unit(0xfed90000, 0, 1, 8);
    append(2, 2); /* ATSR */
    append(2, 8);
    append(4, 0);
    assert_true(parse(&info));
    assert_true(info.interrupt_remapping);
    assert_int_equal(info.unit_count, 1);
    assert_int_equal(info.unit_base, 0xfed90000);
    assert_int_equal(info.unit_segment, 0);
}

static void which_unit(void **state)
{
    struct dmar_info info;

    table[37] = 0;
    assert_true(parse(&info));
    assert_false(info.interrupt_remapping);
    assert_int_equal(info.unit_count, 0);
    add_unit(0xfed90000, 1, 1, 0);
    assert_true(parse(&info));
    assert_int_equal(info.unit_segment, 1);
    add_unit(0xfed91000, 0, 1, 0);
    assert_true(parse(&info));
    assert_int_equal(info.unit_count, 2);
    assert_int_equal(info.unit_base, 0xfed91000);
}

/* The unit's last scope_bytes are these. */
static void put_scopes(const u8 *scopes, u32 bytes)
{
    memcpy(table + size - bytes, scopes, bytes);
}

static void where_ioapics_are(void **state)
{
    static const u8 scopes[] = {
        1, 8,  0, 0, 0, 0,    0x1f, 2,       /* an endpoint */
        3, 8,  0, 0, 2, 0xff, 0,    0,       /* as QEMU has it */
        3, 10, 0, 0, 3, 0,    0x1c, 0, 0, 0, /* behind a bridge: left out */
        3, 8,  0, 0, 9, 0xf0, 0x1f, 7,       /* as Intel has it */
    };
    static const u8 lies[] = {3, 8, 0, 0, 1, 2, 3, 4, 3, 9, 0, 0, 5, 6, 7, 8}; /* the last one goes beyond its unit */
    struct dmar_info info;

    add_unit(0xfed90000, 0, 1, sizeof(scopes));
    put_scopes(scopes, sizeof(scopes));
    assert_true(parse(&info));
    assert_int_equal(info.ioapic_count, 2);
    assert_int_equal(info.ioapic[0].id, 2);
    assert_int_equal(info.ioapic[0].source, 0xff00);
    assert_int_equal(info.ioapic[1].id, 9);
    assert_int_equal(info.ioapic[1].source, 0xf0ff);

    setup(state);
    add_unit(0xfed90000, 0, 1, sizeof(lies));
    put_scopes(lies, sizeof(lies));
    assert_true(parse(&info));
    assert_int_equal(info.ioapic_count, 1);
    assert_int_equal(info.ioapic[0].source, 2 << 8 | 3 << 3 | 4);

    setup(state);
    add_unit(0xfed90000, 0, 1, 8 * 8); /* more than there is room for */
    for (u32 i = 0; i < 8; i++)
        memcpy(table + size - 64 + 8 * i, scopes + 8, 8);
    assert_true(parse(&info));
    assert_int_equal(info.ioapic_count, DMAR_IOAPICS);
}

static void cut_off_anywhere(void **state)
{
    struct dmar_info info;

    add_unit(0xfed90000, 0, 1, 0);
    add_reserved();
    const u32 whole = size;
    const u32 good[] = {48, 48 + 16, whole}; /* between structures a shorter table is a table */
    for (u32 cut = 0; cut <= whole; cut++) {
        size = cut;
        if (cut >= 8)
            put(4, 4, cut);
        bool expected = cut == good[0] || cut == good[1] || cut == good[2];
        assert_int_equal(parse(&info), expected);
    }
}

static void lengths_that_lie(void **state)
{
    struct dmar_info info;

    add_unit(0xfed90000, 0, 1, 0);
    put(4, 4, size + 1); /* the table */
    assert_false(parse(&info));
    put(4, 4, 47);
    assert_false(parse(&info));
    put(4, 4, 0xffffffff);
    assert_false(parse(&info));
    put(4, 4, size);
    for (u32 length = 0; length < 16; length++) { /* the structure: 0 would never end */
        put(50, 2, length);
        assert_false(parse(&info));
    }
    put(50, 2, 17);
    assert_false(parse(&info));
    put(50, 2, 0xffff);
    assert_false(parse(&info));
}

static void other_damage(void **state)
{
    struct dmar_info info;

    add_unit(0xfed90800, 0, 1, 0);
    assert_false(parse(&info)); /* registers not page aligned */
    put(56, 8, 0);
    assert_false(parse(&info));
    setup(state);
    table[0] = 'X';
    assert_false(parse(&info));
}

/* Random bytes changed in a good table: the limits hold, and nothing is read beyond it (the sanitizer's part). */
static void random_damage(void **state)
{
    struct random random = random_start("random_damage");
    struct dmar_info info;
    u32 accepted = 0;

    for (u32 round = 0; round < 50000; round++) {
        setup(state);
        u32 scopes = (u32)random_below(&random, 3);
        add_unit(0xfed90000, 0, 1, scopes * 8);
        for (u32 i = 0; i < scopes; i++)
            memcpy(table + 64 + 8 * i, (const u8[]){3, 8, 0, 0, 2, 0xff, 0, 0}, 8);
        add_reserved();
        for (u64 i = random_below(&random, 6); i > 0; i--)
            table[random_below(&random, size)] = (u8)random_bits(&random);
        accepted += parse(&info);
        assert_int_equal(info.unit_base & 0xfff, 0);
        assert_true(info.ioapic_count <= DMAR_IOAPICS);
    }
    assert_true(accepted > 1000 && accepted < 49000); /* else it does not test what it says */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(good_table, setup),        cmocka_unit_test_setup(which_unit, setup),
        cmocka_unit_test_setup(where_ioapics_are, setup), cmocka_unit_test_setup(cut_off_anywhere, setup),
        cmocka_unit_test_setup(lengths_that_lie, setup),  cmocka_unit_test_setup(other_damage, setup),
        cmocka_unit_test_setup(random_damage, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
