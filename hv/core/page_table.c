#include "hv/core/page_table.h"
#include "hv/core/hypervisor.h"
#include "shared/x86/paging.h"

#define TABLE_ENTRIES 512u
#define ADDRESS_BITS 0x000ffffffffff000ull /* 51:12, in all formats */
#define ADDRESS_END (1ull << 52)

/* x86 P and R/W, VT-d R and W: a present entry has one of them in every format, an absent one neither. */
#define PRESENT_BITS 3ull
#define SUPERPAGE (1ull << 7) /* in all formats; level 0 has leaves only */
#define TOP_LEVEL 3u

/* UNCACHED is PAT index 3: uncacheable in the PAT's reset value, which nobody changes. */
#define X86_UNCACHED (PTE_WRITE_THROUGH | PTE_CACHE_DISABLE)
#define X86_FORMAT                                                                                                     \
    .superpages = 1u << 1 | 1u << 2, .table = PTE_PRESENT | PTE_WRITE | PTE_USER, .inverted = PTE_NO_EXECUTE,          \
    .right = {PTE_PRESENT, PTE_PRESENT | PTE_WRITE, PTE_PRESENT | PTE_NO_EXECUTE, X86_UNCACHED}

/* VT-d 9.8: no present bit; an entry that allows neither access is not present (VT-d 3.7) */
#define VTD_READ (1ull << 0)
#define VTD_WRITE (1ull << 1)

/* SDM 3C 28.2.2. Neither write nor (on all CPUs) execute may come without read. */
#define EPT_READ (1ull << 0)
#define EPT_WRITE (1ull << 1)
#define EPT_EXECUTE (1ull << 2)
#define EPT_WRITE_BACK (6ull << 3) /* the memory type; 0 is uncacheable */

const struct page_format page_format_x86 = {X86_FORMAT};
const struct page_format page_format_npt = {X86_FORMAT, .leaf = PTE_USER};

const struct page_format page_format_vtd = {
    .superpages = 1u << 1 | 1u << 2,
    .table = VTD_READ | VTD_WRITE,
    .right = {VTD_READ, VTD_WRITE},
};

/* Write-back unless UNCACHED takes that away. */
const struct page_format page_format_ept = {
    .superpages = 1u << 1 | 1u << 2,
    .table = EPT_READ | EPT_WRITE | EPT_EXECUTE,
    .inverted = EPT_WRITE_BACK,
    .right = {EPT_READ, EPT_READ | EPT_WRITE, EPT_READ | EPT_EXECUTE, EPT_WRITE_BACK},
};

/* ---- entries ---- */

/* An entry as a walk finds it; level 0 maps 4 KiB. */
struct place {
    u64 *entry;
    u32 level;
};

static u64 level_size(u32 level)
{
    return PAGE_SIZE << 9 * level;
}

static bool is_present(u64 entry)
{
    return entry & PRESENT_BITS;
}

static bool is_table(u64 entry, u32 level)
{
    return is_present(entry) && level > 0 && !(entry & SUPERPAGE);
}

static u64 make_leaf(const struct page_format *format, u64 hpa, u32 rights, u32 level)
{
    u64 bits = format->leaf;

    for (u32 i = 0; i < PAGE_RIGHTS; i++)
        bits |= rights & 1u << i ? format->right[i] : 0;
    return hpa | (bits ^ format->inverted) | (level > 0 ? SUPERPAGE : 0);
}

static void publish(const struct page_table *pt, const u64 *first, u32 count)
{
    if (pt->format->wrote != NULL)
        pt->format->wrote(first, count);
}

/* Hardware may walk the table at this moment: one store an entry, and after what the entry refers to. */
static void set_entry(const struct page_table *pt, u64 *entry, u64 value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
    publish(pt, entry, 1);
}

/* The leaf that maps `at`, or the empty entry that ends the walk. */
static struct place find(const struct page_table *pt, u64 at)
{
    u64 table = pt->root.v;

    for (u32 level = TOP_LEVEL;; level--) {
        u64 *entry = (u64 *)hpa_to_ptr(HPA(table)) + at / level_size(level) % TABLE_ENTRIES;
        if (!is_table(*entry, level))
            return (struct place){entry, level};
        table = *entry & ADDRESS_BITS;
    }
}

/* The first address behind the entry that a walk to `at` ended in. */
static u64 skip(u64 at, u32 level)
{
    return (at | (level_size(level) - 1)) + 1;
}

static status_t new_table(struct page_table *pt, hpa_t *table)
{
    status_t status = frame_alloc(table);

    if (status != OK)
        return status;
    pt->frames++;
    publish(pt, hpa_to_ptr(*table), TABLE_ENTRIES); /* its zeros, before anything refers to them */
    return OK;
}

/* After it, sums of at and size cannot overflow. */
static status_t check_range(u64 at, u64 size)
{
    if (size == 0 || ((at | size) & PAGE_MASK) != 0)
        return ERR_INVALID;
    return at < PAGE_TABLE_REACH && size <= PAGE_TABLE_REACH - at ? OK : ERR_RANGE;
}

/* ---- public ---- */

status_t page_table_create(struct page_table *pt, const struct page_format *format)
{
    *pt = (struct page_table){.format = format};
    return new_table(pt, &pt->root);
}

static u32 largest_level(const struct page_table *pt, u64 at, u64 hpa, u64 size)
{
    u32 level = TOP_LEVEL;

    while (level > 0 && (!(pt->format->superpages & 1u << level) || ((at | hpa) & (level_size(level) - 1)) != 0 ||
                         size < level_size(level)))
        level--;
    return level;
}

static bool is_anything_mapped(const struct page_table *pt, u64 at, u64 end)
{
    while (at < end) {
        struct place place = find(pt, at);
        if (is_present(*place.entry))
            return true;
        at = skip(at, place.level);
    }
    return false;
}

/*
 * Remove what is mapped in [at, end), where no leaf sticks out. From the entry that a walk ends in the pass goes on
 * through its table, up to an entry that refers to another table: that one takes a new walk.
 */
static void clear(struct page_table *pt, u64 at, u64 end)
{
    while (at < end) {
        struct place place = find(pt, at);
        u32 count = 0;
        do {
            __atomic_store_n(&place.entry[count++], 0, __ATOMIC_RELAXED);
            at = skip(at, place.level);
        } while (at < end && at % level_size(place.level + 1) != 0 && !is_table(place.entry[count], place.level));
        publish(pt, place.entry, count);
    }
}

/* Map one page of `level`, or of the level of a table that stands there already. Returns its size; 0: no memory. */
static u64 map_one(struct page_table *pt, u64 at, u64 hpa, u32 rights, u32 level)
{
    struct place place = find(pt, at);

    while (place.level > level) {
        hpa_t table;
        if (new_table(pt, &table) != OK)
            return 0;
        set_entry(pt, place.entry, table.v | pt->format->table);
        place = find(pt, at);
    }
    set_entry(pt, place.entry, make_leaf(pt->format, hpa, rights, place.level));
    return level_size(place.level);
}

status_t page_table_map(struct page_table *pt, u64 at, hpa_t hpa, u64 size, u32 rights)
{
    status_t status = check_range(at, size);

    if (status != OK)
        return status;
    if ((hpa.v & PAGE_MASK) != 0 || !is_present(make_leaf(pt->format, 0, rights, 0)))
        return ERR_INVALID;
    if (hpa.v >= ADDRESS_END || size > ADDRESS_END - hpa.v)
        return ERR_RANGE;
    if (is_anything_mapped(pt, at, at + size))
        return ERR_EXISTS;
    for (u64 done = 0, step; done < size; done += step) {
        u32 level = largest_level(pt, at + done, hpa.v + done, size - done);
        step = map_one(pt, at + done, hpa.v + done, rights, level);
        if (step == 0) {
            clear(pt, at, at + done);
            return ERR_NO_MEMORY;
        }
    }
    return OK;
}

/* Is there a leaf at `at` that reaches beyond [first, end)? */
static bool sticks_out(const struct page_table *pt, u64 at, u64 first, u64 end)
{
    struct place place = find(pt, at);
    u64 leaf_end = skip(at, place.level);

    return is_present(*place.entry) && (leaf_end - level_size(place.level) < first || leaf_end > end);
}

status_t page_table_unmap(struct page_table *pt, u64 at, u64 size)
{
    status_t status = check_range(at, size);

    if (status != OK)
        return status;
    if (sticks_out(pt, at, at, at + size) || sticks_out(pt, at + size - PAGE_SIZE, at, at + size))
        return ERR_INVALID;
    clear(pt, at, at + size);
    return OK;
}

status_t page_table_protect(struct page_table *pt, u64 at, u32 rights)
{
    status_t status = check_range(at, PAGE_SIZE);

    if (status != OK)
        return status;
    struct place place = find(pt, at);
    if (!is_present(*place.entry))
        return ERR_NOT_FOUND;
    u64 entry = make_leaf(pt->format, *place.entry & ADDRESS_BITS, rights, 0);
    if (place.level > 0 || !is_present(entry))
        return ERR_INVALID;
    set_entry(pt, place.entry, entry);
    return OK;
}
