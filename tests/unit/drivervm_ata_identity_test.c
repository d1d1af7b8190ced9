/* SOURCES: drivervm/drivers/ata/identity.c */
/* What a disk says about itself, as both kinds of disk driver read it. */
#include "drivervm/drivers/ata/identity.h"
#include "tests/unit/random.h"

#define SECTORS 8192u
static u16 identity[256];

static int setup(void **state)
{
    memset(identity, 0, sizeof(identity));
    memcpy(&identity[10], "NS1-3254            ", 20); /* pairs of characters, swapped */
    memcpy(&identity[27], "OMED LIDKS                              ", 40);
    identity[47] = 0x8010;
    identity[49] = 1u << 9 | 1u << 8;
    identity[60] = 77; /* the 48-bit capacity counts */
    identity[75] = 31;
    identity[76] = 1u << 8;
    identity[83] = 1u << 14 | 1u << 13 | 1u << 12 | 1u << 10;
    identity[100] = SECTORS;
    identity[106] = 0x6003;
    identity[209] = 0x4002;
    return 0;
}

static void identity_is_read(void **state)
{
    struct ata_identity out;

    assert_int_equal(ata_parse_identity(identity, &out), OK);
    assert_int_equal(out.sectors, SECTORS);
    assert_int_equal(out.queue_depth, 32);
    assert_int_equal(out.block, 16);
    assert_int_equal(out.physical_block_exp, 3);
    assert_int_equal(out.alignment_offset, 2);
    assert_true(out.dma && out.lba48 && out.flush && out.flush_ext);
    assert_string_equal(out.serial, "SN-12345");
    assert_string_equal(out.model, "MODEL DISK");
}

static void a_disk_of_28_bits(void **state)
{
    struct ata_identity out;

    identity[83] = 1u << 14 | 1u << 12;
    identity[60] = 0xffff;
    identity[61] = 0x0fff;
    identity[49] = 1u << 9;
    assert_int_equal(ata_parse_identity(identity, &out), OK);
    assert_int_equal(out.sectors, 0x0fffffff);
    assert_true(out.flush && !out.flush_ext && !out.lba48 && !out.dma);
    identity[83] = 0xffff; /* the word is not valid */
    assert_int_equal(ata_parse_identity(identity, &out), OK);
    assert_true(!out.flush && !out.flush_ext && !out.lba48);
}

static void identities_that_we_refuse(void **state)
{
    static const struct {
        u32 word;
        u16 value;
        status_t status;
    } cases[] = {
        {49, 1u << 8, ERR_UNSUPPORTED}, /* no LBA */
        {106, 0x5000, ERR_UNSUPPORTED}, /* 4 KiB logical sectors */
        {100, 0, ERR_FORMAT},           /* no sectors */
        {103, 2, ERR_FORMAT},           /* more than 48 bits can name */
    };
    struct ata_identity out;

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(NULL);
        identity[cases[i].word] = cases[i].value;
        assert_int_equal(ata_parse_identity(identity, &out), cases[i].status);
    }
    setup(NULL);
    identity[83] = 1u << 14;
    identity[61] = 0x2000; /* more than 28 bits can name */
    assert_int_equal(ata_parse_identity(identity, &out), ERR_FORMAT);
}

static void any_identity_is_survived(void **state)
{
    struct random random = random_start("identity");
    struct ata_identity out;
    u32 accepted = 0;

    for (u32 round = 0; round < 20000; round++) {
        u16 words[256];
        random_fill(&random, words, sizeof(words));
        if (ata_parse_identity(words, &out) != OK)
            continue;
        accepted++;
        assert_true(out.sectors > 0 && out.sectors <= 1ull << 48);
        assert_true(out.queue_depth <= 32 && out.block <= 255);
        assert_true(strlen(out.serial) <= 20 && strlen(out.model) <= 40);
    }
    assert_true(accepted > 0);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(identity_is_read),
        TEST(a_disk_of_28_bits),
        TEST(identities_that_we_refuse),
        TEST(any_identity_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
