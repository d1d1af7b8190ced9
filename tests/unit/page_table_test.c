/* SOURCES: hv/core/page_table.c hv/core/frames.c */
/* INCLUDE_FAKES */
/* The page-table builder: entries bit by bit, and random operations against an array with one entry a page. */
#include "hv/core/page_table.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"

#define RAM_BASE MIB(16)
#define RAM_SIZE MIB(8)
#define RW (PAGE_READ | PAGE_WRITE)
#define RWX (RW | PAGE_EXECUTE)

static const struct page_format *const formats[] = {&page_format_x86, &page_format_npt, &page_format_vtd,
                                                    &page_format_ept};

static int setup(void **state)
{
    fake_frames_create(RAM_BASE, RAM_SIZE);
    return 0;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static u64 size_of(u32 level)
{
    return PAGE_SIZE << 9 * level;
}

/* An independent walk: the raw entry that ends it, on *level. */
static u64 walk(const struct page_table *pt, u64 at, u32 *level)
{
    hpa_t table = pt->root;

    for (*level = 3;; (*level)--) {
        u64 entry = ((const u64 *)hpa_to_ptr(table))[at >> (12 + 9 * *level) & 511];
        bool superpage = (entry & 1ull << 7) != 0;
        if ((entry & 3) == 0 || *level == 0 || superpage)
            return entry;
        table = HPA(entry & 0xffffffffff000ull);
    }
}

/* What is mapped at `at`, exact to the byte: read back from the entry alone. */
static status_t lookup(const struct page_table *pt, u64 at, hpa_t *hpa, u32 *rights)
{
    u32 level;
    u64 entry = walk(pt, at, &level);
    bool vtd = pt->format->inverted == 0, ept = pt->format->inverted == 6 << 3;

    if ((entry & 3) == 0)
        return ERR_NOT_FOUND;
    if (hpa != NULL)
        *hpa = HPA((entry & 0xffffffffff000ull & ~(size_of(level) - 1)) | (at & (size_of(level) - 1)));
    if (rights != NULL && vtd)
        *rights = (u32)(entry & 3);
    else if (rights != NULL && ept)
        *rights = (u32)(entry & 7) | ((entry >> 3 & 7) == 6 ? 0 : PAGE_UNCACHED);
    else if (rights != NULL)
        *rights = PAGE_READ | (entry & 2 ? PAGE_WRITE : 0) | (entry >> 63 ? 0 : PAGE_EXECUTE) |
                  ((entry & 0x18) == 0x18 ? PAGE_UNCACHED : 0);
    return OK;
}

static u64 count_tables(const struct page_table *pt, hpa_t table, u32 level)
{
    u64 count = 1;

    for (u32 i = 0; level > 0 && i < 512; i++) {
        u64 entry = ((const u64 *)hpa_to_ptr(table))[i];
        if ((entry & 3) != 0 && (entry & 1ull << 7) == 0)
            count += count_tables(pt, HPA(entry & 0xffffffffff000ull), level - 1);
    }
    return count;
}

static void check_entry(const struct page_format *format, u32 rights, u64 size, u64 bits)
{
    struct page_table pt;
    u64 at = GIB(3);
    u32 level;

    assert_int_equal(page_table_create(&pt, format), OK);
    assert_int_equal(page_table_map(&pt, at, HPA(GIB(5)), size, rights), OK);
    assert_true(walk(&pt, at, &level) == (GIB(5) | bits));
    assert_int_equal(size_of(level), size);
}

static void entries_have_the_bits_of_their_format(void **state)
{
    const u64 nx = 1ull << 63;

    /* P 1, R/W 2, U/S 4, PWT 8, PCD 0x10, PS 0x80 */
    check_entry(&page_format_x86, PAGE_READ, PAGE_SIZE, 0x1 | nx);
    check_entry(&page_format_x86, RW, PAGE_SIZE, 0x3 | nx);
    check_entry(&page_format_x86, PAGE_READ | PAGE_EXECUTE, PAGE_SIZE, 0x1);
    check_entry(&page_format_x86, RW | PAGE_UNCACHED, PAGE_SIZE, 0x1b | nx);
    check_entry(&page_format_x86, RW, MIB(2), 0x83 | nx);
    check_entry(&page_format_x86, RW, GIB(1), 0x83 | nx);
    check_entry(&page_format_npt, PAGE_READ, PAGE_SIZE, 0x5 | nx);
    check_entry(&page_format_npt, RWX, MIB(2), 0x87);
    check_entry(&page_format_npt, RW | PAGE_UNCACHED, PAGE_SIZE, 0x1f | nx);
    /* R 1, W 2, superpage 0x80; what it has no bits for is ignored */
    check_entry(&page_format_vtd, PAGE_READ, PAGE_SIZE, 0x1);
    check_entry(&page_format_vtd, PAGE_WRITE, PAGE_SIZE, 0x2);
    check_entry(&page_format_vtd, RWX | PAGE_UNCACHED, MIB(2), 0x83);
    check_entry(&page_format_vtd, RW, GIB(1), 0x83);
    /* R 1, W 2, X 4, memory type 5:3: 6 is write-back, 0 uncacheable */
    check_entry(&page_format_ept, PAGE_READ, PAGE_SIZE, 0x31);
    check_entry(&page_format_ept, PAGE_WRITE, PAGE_SIZE, 0x33);
    check_entry(&page_format_ept, RWX, MIB(2), 0xb7);
    check_entry(&page_format_ept, RWX, GIB(1), 0xb7);
    check_entry(&page_format_ept, PAGE_READ | PAGE_EXECUTE, PAGE_SIZE, 0x35);
    check_entry(&page_format_ept, RW | PAGE_UNCACHED, PAGE_SIZE, 0x3);
}

static void upper_levels_grant_everything(void **state)
{
    static const u64 bits[] = {0x7, 0x7, 0x3, 0x7};

    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        struct page_table pt;
        assert_int_equal(page_table_create(&pt, formats[i]), OK);
        assert_int_equal(page_table_map(&pt, 0, HPA(0), PAGE_SIZE, PAGE_READ), OK);
        hpa_t table = pt.root;
        for (u32 level = 3; level > 0; level--) {
            u64 entry = *(const u64 *)hpa_to_ptr(table);
            assert_int_equal(entry & ~0xffffffffff000ull, bits[i]);
            table = HPA(entry & 0xffffffffff000ull);
        }
    }
}

/* From 4 KiB below a 1 GiB border to 4 KiB above another: every size of page, each where it fits. */
static void the_largest_pages_are_used(void **state)
{
    static const struct {
        u64 at, size;
    } expected[] = {
        {GIB(1) - PAGE_SIZE, PAGE_SIZE}, {GIB(1), GIB(1)}, {GIB(2), GIB(1)}, {GIB(3), MIB(2)},
        {GIB(3) + MIB(2), PAGE_SIZE},
    };

    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        struct page_table pt;
        assert_int_equal(page_table_create(&pt, formats[i]), OK);
        u64 at = GIB(1) - PAGE_SIZE;
        u64 size = PAGE_SIZE + GIB(2) + MIB(2) + PAGE_SIZE;
        assert_int_equal(page_table_map(&pt, at, HPA(GIB(4) + at), size, RW), OK);
        for (u32 j = 0; j < ARRAY_SIZE(expected); j++) {
            u32 level;
            u64 entry = walk(&pt, expected[j].at, &level);
            assert_int_equal(size_of(level), expected[j].size);
            assert_true((entry & 0xffffffffff000ull) == GIB(4) + expected[j].at);
        }
        assert_int_equal(lookup(&pt, at - 1, NULL, NULL), ERR_NOT_FOUND);
        assert_int_equal(lookup(&pt, at + size, NULL, NULL), ERR_NOT_FOUND);
        assert_int_equal(page_table_unmap(&pt, at, size), OK);
        assert_int_equal(lookup(&pt, GIB(2), NULL, NULL), ERR_NOT_FOUND);
    }
}

static void superpages_follow_format_and_alignment(void **state)
{
    struct page_format small = page_format_vtd;
    struct page_table pt;
    u32 level;

    small.superpages = 1u << 1;
    assert_int_equal(page_table_create(&pt, &small), OK);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), GIB(1), RW), OK);
    walk(&pt, 0, &level);
    assert_int_equal(level, 1); /* no 1 GiB pages there */
    assert_int_equal(page_table_map(&pt, GIB(1), HPA(GIB(1) + PAGE_SIZE), MIB(2), RW), OK);
    walk(&pt, GIB(1), &level);
    assert_int_equal(level, 0); /* the two addresses differ in their offset */
}

/* Where a table of earlier mappings stands, it stays: it may be in a walker's cache. */
static void old_tables_are_kept(void **state)
{
    struct page_table pt;
    u32 level;

    assert_int_equal(page_table_create(&pt, &page_format_npt), OK);
    assert_int_equal(page_table_map(&pt, MIB(2), HPA(MIB(2)), PAGE_SIZE, RW), OK);
    assert_int_equal(page_table_unmap(&pt, MIB(2), PAGE_SIZE), OK);
    u64 before = frames_free_count;
    assert_int_equal(page_table_map(&pt, 0, HPA(0), MIB(6), RW), OK);
    assert_int_equal(frames_free_count, before);
    walk(&pt, 0, &level);
    assert_int_equal(level, 1);
    walk(&pt, MIB(2), &level);
    assert_int_equal(level, 0);
    walk(&pt, MIB(4), &level);
    assert_int_equal(level, 1);
}

static void superpages_are_not_split(void **state)
{
    struct page_table pt;
    u32 rights;

    assert_int_equal(page_table_create(&pt, &page_format_npt), OK);
    assert_int_equal(page_table_map(&pt, MIB(2), HPA(0), MIB(4), RW), OK);
    assert_int_equal(page_table_unmap(&pt, MIB(2), PAGE_SIZE), ERR_INVALID);
    assert_int_equal(page_table_unmap(&pt, MIB(2) + PAGE_SIZE, MIB(2)), ERR_INVALID);
    assert_int_equal(page_table_unmap(&pt, 0, MIB(4) - PAGE_SIZE), ERR_INVALID);
    assert_int_equal(page_table_unmap(&pt, MIB(6) - PAGE_SIZE, MIB(2)), ERR_INVALID);
    assert_int_equal(page_table_protect(&pt, MIB(2), PAGE_READ), ERR_INVALID);
    for (u64 at = MIB(2); at < MIB(6); at += PAGE_SIZE) {
        assert_int_equal(lookup(&pt, at, NULL, &rights), OK);
        assert_int_equal(rights & RWX, RW);
    }
    assert_int_equal(page_table_unmap(&pt, 0, MIB(4)), OK); /* all of the first, with empty space before it */
    assert_int_equal(lookup(&pt, MIB(4) - 1, NULL, NULL), ERR_NOT_FOUND);
    assert_int_equal(lookup(&pt, MIB(4), NULL, NULL), OK);
}

static void arguments_are_checked(void **state)
{
    struct page_table pt;

    assert_int_equal(page_table_create(&pt, &page_format_npt), OK);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), 0, RW), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 1, HPA(0), PAGE_SIZE, RW), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 0, HPA(1), PAGE_SIZE, RW), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), 100, RW), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), PAGE_SIZE, 0), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 0, HPA(1ull << 52), PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(page_table_map(&pt, 0, HPA((1ull << 52) - PAGE_SIZE), 2 * PAGE_SIZE, RW), ERR_RANGE);
    assert_int_equal(page_table_unmap(&pt, 0, 0), ERR_INVALID);
    assert_int_equal(page_table_unmap(&pt, 0x800, PAGE_SIZE), ERR_INVALID);
    assert_int_equal(page_table_protect(&pt, 0, PAGE_READ), ERR_NOT_FOUND);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), PAGE_SIZE, RW), OK);
    assert_int_equal(page_table_protect(&pt, 0, 0), ERR_INVALID);
    assert_int_equal(page_table_map(&pt, 0, HPA(0), PAGE_SIZE, RW), ERR_EXISTS);
}

static void addresses_stay_within_the_reach(void **state)
{
    const u64 end = 1ull << 48;

    for (u32 i = 0; i < ARRAY_SIZE(formats); i++) {
        struct page_table pt;
        assert_int_equal(page_table_create(&pt, formats[i]), OK);
        assert_int_equal(page_table_map(&pt, end - PAGE_SIZE, HPA(0), PAGE_SIZE, RW), OK);
        assert_int_equal(page_table_map(&pt, end, HPA(0), PAGE_SIZE, RW), ERR_RANGE);
        assert_int_equal(page_table_map(&pt, end - 2 * PAGE_SIZE, HPA(0), 3 * PAGE_SIZE, RW), ERR_RANGE);
        assert_int_equal(page_table_map(&pt, 0ull - PAGE_SIZE, HPA(0), PAGE_SIZE, RW), ERR_RANGE);
        assert_int_equal(page_table_map(&pt, 0ull - PAGE_SIZE, HPA(0), 2 * PAGE_SIZE, RW), ERR_RANGE);
        assert_int_equal(page_table_map(&pt, PAGE_SIZE, HPA(0), 0ull - PAGE_SIZE, RW), ERR_RANGE);
        assert_int_equal(page_table_unmap(&pt, end, PAGE_SIZE), ERR_RANGE);
        assert_int_equal(page_table_protect(&pt, end, PAGE_READ), ERR_RANGE);
        assert_int_equal(lookup(&pt, 0, NULL, NULL), ERR_NOT_FOUND); /* nothing came round to the beginning */
        assert_int_equal(lookup(&pt, end - 1, NULL, NULL), OK);
    }
}

/* With every possible number of frames left: all mapped or nothing, and every frame that is gone is a table. */
static void running_out_of_frames_takes_back_the_mapping(void **state)
{
    u64 at = GIB(1) - MIB(2) - PAGE_SIZE; /* needs two tables on each level but the highest */
    u64 size = MIB(4) + 2 * PAGE_SIZE;
    bool mapped = false;

    for (u64 left = 1; !mapped; left++) {
        struct page_table pt;
        hpa_t rest;
        fake_memory_destroy();
        fake_frames_create(RAM_BASE, RAM_SIZE);
        assert_int_equal(page_table_create(&pt, &page_format_npt), OK);
        assert_int_equal(frames_alloc(frames_free_count - left, PAGE_SIZE, &rest), OK);
        status_t status = page_table_map(&pt, at, HPA(at), size, RW);
        mapped = status == OK;
        assert_true(mapped || status == ERR_NO_MEMORY);
        for (u64 page = at; page < at + size; page += PAGE_SIZE)
            assert_int_equal(lookup(&pt, page, NULL, NULL), mapped ? OK : ERR_NOT_FOUND);
        assert_true(!mapped || left == 5);
        assert_int_equal(frames_free_count + count_tables(&pt, pt.root, 3), left + 1);
        assert_int_equal(pt.frames, count_tables(&pt, pt.root, 3));
    }
}

/* ---- wrote(): what hardware without snooping would see ---- */

static u64 flushed[RAM_SIZE / sizeof(u64)];

static void flush(const u64 *first, u32 count)
{
    u64 offset = ptr_to_hpa(first).v - RAM_BASE;

    memcpy((u8 *)flushed + offset, first, count * sizeof(u64));
}

static void check_flushed(hpa_t table, u32 level)
{
    const u64 *entries = hpa_to_ptr(table);

    assert_memory_equal((u8 *)flushed + (table.v - RAM_BASE), entries, PAGE_SIZE);
    for (u32 i = 0; level > 0 && i < 512; i++) {
        if ((entries[i] & 3) != 0 && (entries[i] & 1ull << 7) == 0)
            check_flushed(HPA(entries[i] & 0xffffffffff000ull), level - 1);
    }
}

static u32 passes;

static void count_pass(const u64 *first, u32 count)
{
    passes++;
}

/* A revocation takes back a window of which some pages are granted: it must not cost a walk for each of them. */
static void a_sparse_range_goes_in_one_pass_a_table(void **state)
{
    struct page_format format = page_format_vtd;
    struct page_table pt;

    format.wrote = count_pass;
    assert_int_equal(page_table_create(&pt, &format), OK);
    for (u64 at = GIB(1); at < GIB(1) + MIB(4); at += 2 * PAGE_SIZE)
        assert_int_equal(page_table_map(&pt, at, HPA(at), PAGE_SIZE, RW), OK);
    assert_int_equal(page_table_map(&pt, GIB(2), HPA(0), PAGE_SIZE, RW), OK);
    passes = 0;
    assert_int_equal(page_table_unmap(&pt, PAGE_SIZE, GIB(3)), OK);
    assert_in_range(passes, 3,
                    3 + 6); /* the three tables of 4 KiB pages, and the empty entries between and behind them */
    assert_int_equal(lookup(&pt, GIB(1) + MIB(2), NULL, NULL), ERR_NOT_FOUND);
    assert_int_equal(lookup(&pt, GIB(2), NULL, NULL), ERR_NOT_FOUND);
}

/* ---- the model: one entry a 4 KiB page of an 8 MiB window, one group number a superpage ---- */

#define MODEL_PAGES 2048u

struct model_page {
    bool mapped;
    u64 hpa;
    u32 rights;
    u32 leaf; /* the first page of the leaf that holds it */
    u32 leaf_pages;
};

struct model {
    struct page_table pt;
    struct random random;
    u64 frames_before;                 /* free ones, before there was a table */
    u64 window;                        /* address of page 0 */
    u32 mask;                          /* the rights that the format can tell */
    bool had_table[MODEL_PAGES / 512]; /* a 4 KiB page was mapped there once, so a table stays */
    struct model_page page[MODEL_PAGES];
};

static bool model_is_free(const struct model *model, u64 first, u64 count)
{
    for (u64 i = first; i < first + count; i++) {
        if (model->page[i].mapped)
            return false;
    }
    return true;
}

static void model_map(struct model *model, u64 first, u64 count)
{
    static const u32 choices[] = {PAGE_READ, RW, RWX, PAGE_READ | PAGE_EXECUTE, RW | PAGE_UNCACHED};
    u32 rights = choices[random_below(&model->random, ARRAY_SIZE(choices))];
    bool aligned = random_one_in(&model->random, 2);
    u64 hpa = GIB(8) + (aligned ? first : random_below(&model->random, 4096)) * PAGE_SIZE;
    status_t status =
        page_table_map(&model->pt, model->window + first * PAGE_SIZE, HPA(hpa), count * PAGE_SIZE, rights);

    if (!model_is_free(model, first, count)) {
        assert_int_equal(status, ERR_EXISTS);
        return;
    }
    assert_int_equal(status, OK);
    for (u64 i = 0; i < count;) {
        u64 at = first + i;
        bool large =
            at % 512 == 0 && (hpa / PAGE_SIZE + i) % 512 == 0 && count - i >= 512 && !model->had_table[at / 512];
        u32 pages = large ? 512 : 1;
        model->had_table[at / 512] |= !large;
        for (u32 j = 0; j < pages; j++, i++)
            model->page[first + i] = (struct model_page){true, hpa + i * PAGE_SIZE, rights, (u32)at, pages};
    }
}

static void model_unmap(struct model *model, u64 first, u64 count)
{
    bool cut = false;

    for (u64 i = first; i < first + count; i++) {
        const struct model_page *page = &model->page[i];
        cut |= page->mapped && (page->leaf < first || page->leaf + page->leaf_pages > first + count);
    }
    status_t status = page_table_unmap(&model->pt, model->window + first * PAGE_SIZE, count * PAGE_SIZE);
    assert_int_equal(status, cut ? ERR_INVALID : OK);
    for (u64 i = first; !cut && i < first + count; i++)
        model->page[i].mapped = false;
}

static void model_protect(struct model *model, u64 at)
{
    struct model_page *page = &model->page[at];
    u32 rights = random_one_in(&model->random, 2) ? PAGE_READ : RWX;
    status_t expected = !page->mapped ? ERR_NOT_FOUND : page->leaf_pages > 1 ? ERR_INVALID : OK;

    assert_int_equal(page_table_protect(&model->pt, model->window + at * PAGE_SIZE, rights), expected);
    if (expected == OK)
        page->rights = rights;
}

static void model_compare(const struct model *model, struct random *random)
{
    for (u64 i = 0; i < MODEL_PAGES; i++) {
        const struct model_page *page = &model->page[i];
        u64 offset = random_below(random, PAGE_SIZE);
        hpa_t hpa;
        u32 rights;
        u32 level;
        status_t status = lookup(&model->pt, model->window + i * PAGE_SIZE + offset, &hpa, &rights);
        assert_int_equal(status, page->mapped ? OK : ERR_NOT_FOUND);
        if (!page->mapped)
            continue;
        assert_true(hpa.v == page->hpa + offset);
        assert_int_equal(rights & model->mask, page->rights & model->mask);
        walk(&model->pt, model->window + i * PAGE_SIZE, &level);
        assert_int_equal(size_of(level), page->leaf_pages * PAGE_SIZE);
    }
    assert_int_equal(model->frames_before - frames_free_count, count_tables(&model->pt, model->pt.root, 3));
    assert_int_equal(model->frames_before - frames_free_count, model->pt.frames);
    check_flushed(model->pt.root, 3);
}

static void run_model(const char *name, const struct page_format *base, u64 window, u32 mask)
{
    static struct model model;
    struct page_format format = *base;

    memset(&model, 0, sizeof(model));
    format.wrote = flush;
    model.random = random_start(name);
    model.window = window;
    model.mask = mask;
    model.frames_before = frames_free_count;
    assert_int_equal(page_table_create(&model.pt, &format), OK);
    for (u32 step = 0; step < 3000; step++) {
        /* Sometimes whole superpages, sometimes around their borders, sometimes anything. */
        u64 first = random_below(&model.random, MODEL_PAGES);
        u64 count = random_between(&model.random, 1, random_one_in(&model.random, 3) ? MODEL_PAGES : 16);
        if (random_one_in(&model.random, 3)) {
            first &= ~511ull;
            count = 512 * random_between(&model.random, 1, 3) + random_below(&model.random, 2);
        }
        count = count < MODEL_PAGES - first ? count : MODEL_PAGES - first;
        switch (random_below(&model.random, 5)) {
        case 0:
        case 1:
            model_map(&model, first, count);
            break;
        case 2:
            model_protect(&model, first);
            break;
        default:
            model_unmap(&model, first, count);
        }
        if (step % 50 == 0) {
            model_compare(&model, &model.random);
            /* Old tables force small pages: now and then a fresh table lets large ones appear again. */
            if (step % 250 == 0) {
                model.frames_before = frames_free_count;
                assert_int_equal(page_table_create(&model.pt, &format), OK);
                memset(model.page, 0, sizeof(model.page));
                memset(model.had_table, 0, sizeof(model.had_table));
            }
        }
    }
    model_compare(&model, &model.random);
}

static void random_operations_match_the_model(void **state)
{
    /* Windows across a border of the level above, and at both ends of the reach. */
    run_model("npt", &page_format_npt, GIB(512) - MIB(4), RWX | PAGE_UNCACHED);
    run_model("x86", &page_format_x86, PAGE_TABLE_REACH - MIB(8), RWX | PAGE_UNCACHED);
    run_model("vtd", &page_format_vtd, GIB(1) - MIB(2), RW);
    run_model("vtd", &page_format_vtd, 0, RW);
    run_model("ept", &page_format_ept, GIB(512) - MIB(4), RWX | PAGE_UNCACHED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_have_the_bits_of_their_format, setup, teardown),
        cmocka_unit_test_setup_teardown(upper_levels_grant_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_pages_are_used, setup, teardown),
        cmocka_unit_test_setup_teardown(superpages_follow_format_and_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(old_tables_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(superpages_are_not_split, setup, teardown),
        cmocka_unit_test_setup_teardown(arguments_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_stay_within_the_reach, setup, teardown),
        cmocka_unit_test_setup_teardown(running_out_of_frames_takes_back_the_mapping, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sparse_range_goes_in_one_pass_a_table, setup, teardown),
        cmocka_unit_test_setup_teardown(random_operations_match_the_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
