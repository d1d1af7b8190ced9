/* The ELF parser: a good image, then each field broken in each way that has an error of its own. */
#include "tests/unit/random.h"

#include "shared/lib/checked.h"
#include "shared/lib/elf.h"

#define PH_COUNT 4u
#define DATA_OFFSET 0x200u
#define IMAGE_SIZE 0x500u

/* The layouts once more, written down from the specification and independent of the parser's. */
struct program_header {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};

struct image {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
    struct program_header ph[PH_COUNT];
    u8 padding[DATA_OFFSET - 64 - PH_COUNT * 56];
    u32 notes[16]; /* at DATA_OFFSET */
    u8 rest[IMAGE_SIZE - DATA_OFFSET - 64];
};
_Static_assert(sizeof(struct image) == IMAGE_SIZE, "no padding by the compiler");
_Static_assert(offsetof(struct image, notes) == DATA_OFFSET, "no padding by the compiler");

/* Text, data with bss, a note segment with a foreign note before the PVH one, and a header of no interest. */
static struct image good_image(void)
{
    struct image image = {
        .ident = {0x7f, 'E', 'L', 'F', 2, 1, 1},
        .type = 2,
        .machine = 62,
        .version = 1,
        .entry = 0x100010,
        .phoff = 64,
        .ehsize = 64,
        .phentsize = 56,
        .phnum = PH_COUNT,
        .ph =
            {
                {4, 4, DATA_OFFSET, 0, 0, 52, 52, 4},
                {1, 5, 0x300, 0xffffffff80100000, 0x100000, 0x80, 0x80, 0x1000},
                {0x6474e551, 6, 0, 0, 0, 0, 0, 16}, /* PT_GNU_STACK */
                {1, 6, 0x400, 0xffffffff80101000, 0x101000, 0x100, 0x2000, 0x1000},
            },
        /* namesz, descsz, type, name (5 bytes + padding), desc (3 bytes + padding); then Xen's, desc of 8 bytes */
        .notes = {5, 3, 18, 0x20756e47, 0, 0x00ffffff, 4, 8, 18, 0x006e6558, 0x01000020, 0},
    };
    /* 6 words of the foreign note + 6 words of Xen's are 48 bytes; 4 bytes of a header that is no longer whole follow.
     */
    return image;
}

/* From a block of exactly that size, so that the sanitizer sees a read beyond it. */
static status_t parse_bytes(const void *bytes, size_t size, struct elf_image *out, const char **why)
{
    u8 *copy = malloc(size > 0 ? size : 1);

    memcpy(copy, bytes, size);
    status_t status = elf_parse(copy, size, out, why);
    free(copy);
    assert_non_null(*why);
    assert_int_equal(status == OK, **why == '\0');
    return status;
}

static void expect(const struct image *image, status_t status, const char *part)
{
    struct elf_image out;
    const char *why = NULL;

    assert_int_equal(parse_bytes(image, sizeof(*image), &out, &why), status);
    if (strstr(why, part) == NULL)
        fail_msg("'%s' does not name %s", why, part);
}

static void a_good_image_is_read_out(void **state)
{
    struct image image = good_image();
    struct elf_image out;
    const char *why;

    assert_int_equal(parse_bytes(&image, sizeof(image), &out, &why), OK);
    assert_true(out.entry == 0x100010);
    assert_true(out.pvh_entry == 0x1000020);
    assert_int_equal(out.count, 2);
    const struct elf_segment *text = &out.segment[0];
    assert_true(text->offset == 0x300 && text->file_size == 0x80 && text->mem_size == 0x80);
    assert_true(text->vaddr == 0xffffffff80100000 && text->paddr == 0x100000);
    assert_true(text->execute && !text->write);
    const struct elf_segment *data = &out.segment[1];
    assert_true(data->offset == 0x400 && data->file_size == 0x100 && data->mem_size == 0x2000);
    assert_true(data->vaddr == 0xffffffff80101000 && data->paddr == 0x101000);
    assert_true(!data->execute && data->write);
}

static void every_truncation_is_an_error(void **state)
{
    struct image image = good_image();
    struct elf_image out;
    const char *why;

    for (size_t size = 0; size < sizeof(image); size++)
        assert_int_equal(parse_bytes(&image, size, &out, &why), ERR_RANGE);
}

static void headers_are_checked(void **state)
{
#define BROKEN(change, status, part)                                                                                   \
    do {                                                                                                               \
        struct image image = good_image();                                                                             \
        image.change;                                                                                                  \
        expect(&image, status, part);                                                                                  \
    } while (0)
    BROKEN(ident[0] = 0, ERR_FORMAT, "e_ident");
    BROKEN(ident[4] = 1, ERR_FORMAT, "e_ident"); /* 32 bits */
    BROKEN(ident[5] = 2, ERR_FORMAT, "e_ident"); /* big-endian */
    BROKEN(ident[6] = 0, ERR_FORMAT, "e_ident");
    BROKEN(type = 3, ERR_FORMAT, "e_type"); /* ET_DYN */
    BROKEN(machine = 3, ERR_FORMAT, "e_machine");
    BROKEN(version = 2, ERR_FORMAT, "e_version");
    BROKEN(ehsize = 52, ERR_FORMAT, "e_ehsize");
    BROKEN(phentsize = 32, ERR_FORMAT, "e_phentsize");
    BROKEN(phoff = sizeof(image) - PH_COUNT * 56 + 1, ERR_RANGE, "e_phoff");
    BROKEN(phoff = UINT64_MAX - 8, ERR_RANGE, "e_phoff");
    BROKEN(phnum = 0xffff, ERR_RANGE, "e_phoff");
    BROKEN(phnum = 0, ERR_NOT_FOUND, "PT_LOAD");
    BROKEN(phnum = 1, ERR_NOT_FOUND, "PT_LOAD"); /* the notes alone */
    BROKEN(ph[2].type = 3, ERR_FORMAT, "PT_INTERP");
}

static void segments_are_checked(void **state)
{
    BROKEN(ph[1].memsz = 0x7f, ERR_FORMAT, "p_memsz");
    BROKEN(ph[1].offset = sizeof(image) - 0x7f, ERR_RANGE, "p_filesz");
    BROKEN(ph[1].offset = UINT64_MAX - 0x10, ERR_RANGE, "p_filesz");
    BROKEN(ph[3].filesz = 0x101, ERR_RANGE, "p_filesz");
    BROKEN(ph[3].memsz = UINT64_MAX, ERR_OVERFLOW, "p_vaddr");
    BROKEN(ph[3].vaddr = UINT64_MAX - 0x1fff + 1, ERR_OVERFLOW, "p_vaddr");
    BROKEN(ph[3].paddr = UINT64_MAX - 0x1000, ERR_OVERFLOW, "p_paddr");
    BROKEN(ph[3].paddr = 0x10007f, ERR_INVALID, "p_paddr");              /* its first byte in the text */
    BROKEN(ph[3].paddr = 0x100000 - 0x2000 + 1, ERR_INVALID, "p_paddr"); /* its last */
    BROKEN(ph[3].paddr = 0x100000 - 0x1000, ERR_INVALID, "p_paddr");     /* around it */
}

static void neighbours_and_empty_segments_are_fine(void **state)
{
    struct image image = good_image();
    struct elf_image out;
    const char *why;

    image.ph[3].paddr = 0x100080; /* right behind the text */
    assert_int_equal(parse_bytes(&image, sizeof(image), &out, &why), OK);
    image.ph[3].paddr = 0x100000 - 0x2000;
    assert_int_equal(parse_bytes(&image, sizeof(image), &out, &why), OK);
    image.ph[3].filesz = image.ph[3].memsz = 0;
    image.ph[3].paddr = 0x100010;
    assert_int_equal(parse_bytes(&image, sizeof(image), &out, &why), OK);
    assert_int_equal(out.count, 1);
}

static void notes_are_checked(void **state)
{
    BROKEN(ph[0].filesz = IMAGE_SIZE, ERR_RANGE, "note segment");
    BROKEN(ph[0].offset = UINT64_MAX, ERR_RANGE, "note segment");
    BROKEN(notes[0] = 0xffffffff, ERR_FORMAT, "n_descsz");
    BROKEN(notes[1] = 0xffffffff, ERR_FORMAT, "n_descsz");
    BROKEN(notes[7] = 17, ERR_FORMAT, "n_descsz"); /* Xen's own reaches beyond */
    BROKEN(notes[7] = 5, ERR_FORMAT, "PVH");
    BROKEN(ph[0].filesz = 47, ERR_FORMAT, "n_descsz");
}

static u64 pvh_entry_of(const struct image *image)
{
    struct elf_image out;
    const char *why;

    assert_int_equal(parse_bytes(image, sizeof(*image), &out, &why), OK);
    return out.pvh_entry;
}

static void only_the_right_note_counts(void **state)
{
    struct image image = good_image();

    image.notes[7] = 4; /* a 32-bit address */
    assert_true(pvh_entry_of(&image) == 0x1000020);
    image.notes[8] = 17; /* another type */
    assert_true(pvh_entry_of(&image) == 0);
    image = good_image();
    image.notes[9] = 0x006e6559; /* "Yen" */
    assert_true(pvh_entry_of(&image) == 0);
    image = good_image();
    image.ph[0].type = 0; /* no note segment at all */
    assert_true(pvh_entry_of(&image) == 0);
}

/* With p_align 8, descriptions and notes begin on multiples of 8. */
static void notes_with_eight_byte_alignment(void **state)
{
    struct image image = good_image();
    const u32 notes[16] = {4, 4, 5, 0x00554e47, 0xffffffff, 0, 4, 8, 18, 0x006e6558, 0x2000, 0};

    image.ph[0].align = 8;
    image.ph[0].filesz = 48;
    memcpy(image.notes, notes, sizeof(notes));
    assert_true(pvh_entry_of(&image) == 0x2000);
}

static void too_many_segments(void **state)
{
    u8 bytes[64 + 17 * 56] = {0};
    struct image head = good_image();
    struct elf_image out;
    const char *why;

    for (u32 count = 16; count <= 17; count++) {
        head.phnum = (u16)count;
        memcpy(bytes, &head, 64);
        for (u32 i = 0; i < count; i++) {
            struct program_header ph = {1, 4, 0, i * 0x1000, i * 0x1000, 0x10, 0x1000, 0};
            memcpy(bytes + 64 + i * sizeof(ph), &ph, sizeof(ph));
        }
        assert_int_equal(parse_bytes(bytes, sizeof(bytes), &out, &why), count == 16 ? OK : ERR_NO_SPACE);
    }
}

/* Whatever is done to an image: an error, or segments that obey all promises of the header. */
static void damaged_images_keep_the_promises(void **state)
{
    struct random random = random_start("elf");
    u32 good = 0;

    for (u32 i = 0; i < 50000; i++) {
        struct image image = good_image();
        struct elf_image out;
        const char *why;
        for (u64 changes = random_between(&random, 1, 3); changes > 0; changes--)
            ((u8 *)&image)[random_below(&random, DATA_OFFSET + 64)] = (u8)random_bits(&random);
        if (parse_bytes(&image, sizeof(image), &out, &why) != OK)
            continue;
        good++;
        assert_in_range(out.count, 1, ELF_MAX_SEGMENTS);
        for (u32 j = 0; j < out.count; j++) {
            const struct elf_segment *a = &out.segment[j];
            assert_true(range_inside(a->offset, a->file_size, 0, sizeof(image)));
            assert_true(a->mem_size > 0 && a->mem_size >= a->file_size);
            assert_true(a->paddr + a->mem_size > a->paddr && a->vaddr + a->mem_size > a->vaddr);
            for (u32 k = 0; k < j; k++)
                assert_false(ranges_overlap(a->paddr, a->mem_size, out.segment[k].paddr, out.segment[k].mem_size));
        }
    }
    assert_true(good > 1000); /* the damage is not so bad that the test would only see errors */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_image_is_read_out),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(segments_are_checked),
        cmocka_unit_test(neighbours_and_empty_segments_are_fine),
        cmocka_unit_test(notes_are_checked),
        cmocka_unit_test(only_the_right_note_counts),
        cmocka_unit_test(notes_with_eight_byte_alignment),
        cmocka_unit_test(too_many_segments),
        cmocka_unit_test(damaged_images_keep_the_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
