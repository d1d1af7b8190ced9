#include "hv/core/page_table.h"
#include "hv/core/hypervisor.h"

#define TABLE_ENTRIES 512u
#define ADDRESS_BITS 0x000ffffffffff000ull /* 51:12, in all formats */
#define ADDRESS_END (1ull << 52)

/* APM 2 5.4.1, SDM 3A 4.5.4 tables 4-15 to 4-20 */
#define X86_PRESENT (1ull << 0)
#define X86_WRITE (1ull << 1)
#define X86_USER (1ull << 2)
#define X86_WRITE_THROUGH (1ull << 3)
#define X86_CACHE_DISABLE (1ull << 4)
#define X86_SUPERPAGE (1ull << 7)
#define X86_NO_EXECUTE (1ull << 63)

/* VT-d 9.8 */
#define VTD_READ (1ull << 0)
#define VTD_WRITE (1ull << 1)
#define VTD_SUPERPAGE (1ull << 7)

/* ---- formats ---- */

static u64 x86_leaf(hpa_t hpa, u32 rights, u32 level)
{
    u64 entry = hpa.v;

    if (rights & (PAGE_READ | PAGE_WRITE | PAGE_EXECUTE))
        entry |= X86_PRESENT;
    if (rights & PAGE_WRITE)
        entry |= X86_WRITE;
    if (rights & PAGE_USER)
        entry |= X86_USER;
    if (!(rights & PAGE_EXECUTE))
        entry |= X86_NO_EXECUTE;
    if (rights & PAGE_UNCACHED) /* PAT index 3: uncacheable in the PAT's reset value, which nobody changes */
        entry |= X86_WRITE_THROUGH | X86_CACHE_DISABLE;
    return entry | (level > 0 ? X86_SUPERPAGE : 0);
}

static u64 npt_leaf(hpa_t hpa, u32 rights, u32 level)
{
    return x86_leaf(hpa, rights | PAGE_USER, level);
}

/* Upper levels grant everything: the leaf alone decides. */
static u64 x86_table(hpa_t hpa)
{
    return hpa.v | X86_PRESENT | X86_WRITE | X86_USER;
}

static bool x86_present(u64 entry)
{
    return (entry & X86_PRESENT) != 0;
}

static bool x86_is_leaf(u64 entry, u32 level)
{
    return level == 0 || (entry & X86_SUPERPAGE) != 0;
}

static u32 x86_rights(u64 entry)
{
    u32 rights = PAGE_READ;

    if (entry & X86_WRITE)
        rights |= PAGE_WRITE;
    if (entry & X86_USER)
        rights |= PAGE_USER;
    if (!(entry & X86_NO_EXECUTE))
        rights |= PAGE_EXECUTE;
    if (entry & X86_CACHE_DISABLE)
        rights |= PAGE_UNCACHED;
    return rights;
}

static hpa_t entry_address(u64 entry)
{
    return HPA(entry & ADDRESS_BITS);
}

static u64 vtd_leaf(hpa_t hpa, u32 rights, u32 level)
{
    return hpa.v | (rights & PAGE_READ ? VTD_READ : 0) | (rights & PAGE_WRITE ? VTD_WRITE : 0) |
           (level > 0 ? VTD_SUPERPAGE : 0);
}

static u64 vtd_table(hpa_t hpa)
{
    return hpa.v | VTD_READ | VTD_WRITE;
}

/* There is no present bit: an entry that allows neither access is not present (VT-d 3.7). */
static bool vtd_present(u64 entry)
{
    return (entry & (VTD_READ | VTD_WRITE)) != 0;
}

static bool vtd_is_leaf(u64 entry, u32 level)
{
    return level == 0 || (entry & VTD_SUPERPAGE) != 0;
}

static u32 vtd_rights(u64 entry)
{
    return (entry & VTD_READ ? PAGE_READ : 0) | (entry & VTD_WRITE ? PAGE_WRITE : 0);
}

const struct page_format page_format_x86 = {
    .name = "x86",
    .superpages = 1u << 1 | 1u << 2,
    .canonical = true,
    .leaf = x86_leaf,
    .table = x86_table,
    .present = x86_present,
    .is_leaf = x86_is_leaf,
    .rights = x86_rights,
    .address = entry_address,
};

const struct page_format page_format_npt = {
    .name = "npt",
    .superpages = 1u << 1 | 1u << 2,
    .leaf = npt_leaf,
    .table = x86_table,
    .present = x86_present,
    .is_leaf = x86_is_leaf,
    .rights = x86_rights,
    .address = entry_address,
};

const struct page_format page_format_vtd = {
    .name = "vt-d",
    .superpages = 1u << 1 | 1u << 2,
    .leaf = vtd_leaf,
    .table = vtd_table,
    .present = vtd_present,
    .is_leaf = vtd_is_leaf,
    .rights = vtd_rights,
    .address = entry_address,
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

static u64 *entry_of(hpa_t table, u64 at, u32 level)
{
    return (u64 *)hpa_to_ptr(table) + at / level_size(level) % TABLE_ENTRIES;
}

static bool is_table(const struct page_table *pt, u64 entry, u32 level)
{
    return pt->format->present(entry) && !pt->format->is_leaf(entry, level);
}

static void publish(const struct page_table *pt, const u64 *first, u32 count)
{
    if (pt->format->wrote != NULL)
        pt->format->wrote(first, count);
}

/* Hardware may walk the table at this moment: one store an entry, and after what the entry refers to. */
static void set_entry(u64 *entry, u64 value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

/* How many entries from the one of `at` to the end of its table lie wholly inside [at, end). */
static u32 run_length(u64 at, u64 end, u32 level)
{
    u64 in_table = TABLE_ENTRIES - at / level_size(level) % TABLE_ENTRIES;
    u64 in_range = (end - at) / level_size(level);

    return (u32)(in_range < in_table ? in_range : in_table);
}

/* The leaf that maps `at`, or the empty entry that ends the walk. */
static struct place find(const struct page_table *pt, u64 at)
{
    struct place place = {.level = pt->levels - 1};

    place.entry = entry_of(pt->root, at, place.level);
    while (is_table(pt, *place.entry, place.level)) {
        hpa_t table = pt->format->address(*place.entry);
        place.level--;
        place.entry = entry_of(table, at, place.level);
    }
    return place;
}

/* The first address behind the entry that a walk to `at` ended in. */
static u64 skip(u64 at, u32 level)
{
    return (at | (level_size(level) - 1)) + 1;
}

static status_t add_table(struct page_table *pt, u64 *entry)
{
    hpa_t table;
    status_t status = frame_alloc(&table);

    if (status != OK)
        return status;
    publish(pt, hpa_to_ptr(table), TABLE_ENTRIES); /* its zeros, before anything refers to them */
    set_entry(entry, pt->format->table(table));
    publish(pt, entry, 1);
    pt->table_frames++;
    return OK;
}

/* Walk to the entry of `at` on `level`, adding tables; below it when a table stands there already. */
static status_t find_or_add(struct page_table *pt, u64 at, u32 level, struct place *out)
{
    *out = find(pt, at);
    while (out->level > level) {
        status_t status = add_table(pt, out->entry);
        if (status != OK)
            return status;
        out->level--;
        out->entry = entry_of(pt->format->address(*out->entry), at, out->level);
    }
    return OK;
}

/*
 * Check a range and cut a linear address down to the table's width. After it, sums of at and size cannot overflow.
 */
static status_t check_range(const struct page_table *pt, u64 *at, u64 size)
{
    u64 width_end = level_size(pt->levels);
    u64 half = width_end / 2;
    u64 offset = *at & (width_end - 1);

    if (size == 0 || (*at & PAGE_MASK) != 0 || (size & PAGE_MASK) != 0)
        return ERR_INVALID;
    if (size > width_end - offset)
        return ERR_RANGE;
    if (*at != offset && (!pt->format->canonical || *at != (offset | ~(width_end - 1)) || offset < half))
        return ERR_RANGE;
    /* A low linear address must not run into the hole between the halves. */
    if (pt->format->canonical && *at == offset && (offset >= half || size > half - offset))
        return ERR_RANGE;
    *at = offset;
    return OK;
}

/* ---- public ---- */

status_t page_table_create(struct page_table *pt, const struct page_format *format, u32 levels)
{
    *pt = (struct page_table){.format = format, .levels = levels};
    if (levels != 3 && levels != 4)
        return ERR_INVALID;
    status_t status = frame_alloc(&pt->root);
    if (status != OK)
        return status;
    pt->table_frames = 1;
    publish(pt, hpa_to_ptr(pt->root), TABLE_ENTRIES);
    return OK;
}

/* Recursion is bounded by the levels: at most four deep. */
static void free_tables(const struct page_table *pt, hpa_t table, u32 level)
{
    const u64 *entries = hpa_to_ptr(table);

    for (u32 i = 0; level > 0 && i < TABLE_ENTRIES; i++) {
        if (is_table(pt, entries[i], level))
            free_tables(pt, pt->format->address(entries[i]), level - 1);
    }
    frames_free(table, 1);
}

void page_table_destroy(struct page_table *pt)
{
    free_tables(pt, pt->root, pt->levels - 1);
    *pt = (struct page_table){0};
}

static u32 largest_level(const struct page_table *pt, u64 at, u64 hpa, u64 size)
{
    u32 level = pt->levels - 1;

    while (level > 0 && (!(pt->format->superpages & 1u << level) || ((at | hpa) & (level_size(level) - 1)) != 0 ||
                         size < level_size(level)))
        level--;
    return level;
}

static bool is_anything_mapped(const struct page_table *pt, u64 at, u64 end)
{
    while (at < end) {
        struct place place = find(pt, at);
        if (pt->format->present(*place.entry))
            return true;
        at = skip(at, place.level);
    }
    return false;
}

/* Remove what is mapped in [at, end), where no leaf sticks out. */
static void clear(struct page_table *pt, u64 at, u64 end)
{
    while (at < end) {
        struct place place = find(pt, at);
        if (!pt->format->present(*place.entry)) {
            at = skip(at, place.level);
            continue;
        }
        u32 run = run_length(at, end, place.level);
        u32 count = 0;
        while (count < run && pt->format->present(place.entry[count]) &&
               pt->format->is_leaf(place.entry[count], place.level))
            set_entry(&place.entry[count++], 0);
        publish(pt, place.entry, count);
        at += count * level_size(place.level);
    }
}

/* Fill neighbouring entries of one table. Returns how many bytes are mapped now. */
static u64 fill(struct page_table *pt, struct place place, u64 at, u64 end, hpa_t hpa, u32 rights)
{
    u64 step = level_size(place.level);
    u32 run = run_length(at, end, place.level);
    u32 count = 0;

    /* What is not empty in a range without mappings is a table of earlier ones: the caller goes on below it. */
    while (count < run && !pt->format->present(place.entry[count])) {
        set_entry(&place.entry[count], pt->format->leaf(HPA(hpa.v + count * step), rights, place.level));
        count++;
    }
    publish(pt, place.entry, count);
    return count * step;
}

status_t page_table_map(struct page_table *pt, u64 at, hpa_t hpa, u64 size, u32 rights)
{
    status_t status = check_range(pt, &at, size);

    if (status != OK)
        return status;
    if ((hpa.v & PAGE_MASK) != 0 || !pt->format->present(pt->format->leaf(hpa, rights, 0)))
        return ERR_INVALID;
    if (hpa.v >= ADDRESS_END || size > ADDRESS_END - hpa.v)
        return ERR_RANGE;
    if (is_anything_mapped(pt, at, at + size))
        return ERR_EXISTS;
    for (u64 done = 0; done < size;) {
        struct place place;
        u32 level = largest_level(pt, at + done, hpa.v + done, size - done);
        status = find_or_add(pt, at + done, level, &place);
        if (status != OK) {
            clear(pt, at, at + done);
            return status;
        }
        done += fill(pt, place, at + done, at + size, HPA(hpa.v + done), rights);
    }
    return OK;
}

/* Is there a leaf at `at` that reaches beyond [first, end)? */
static bool sticks_out(const struct page_table *pt, u64 at, u64 first, u64 end)
{
    struct place place = find(pt, at);
    u64 leaf_end = skip(at, place.level);

    return pt->format->present(*place.entry) && (leaf_end - level_size(place.level) < first || leaf_end > end);
}

status_t page_table_unmap(struct page_table *pt, u64 at, u64 size)
{
    status_t status = check_range(pt, &at, size);

    if (status != OK)
        return status;
    if (sticks_out(pt, at, at, at + size) || sticks_out(pt, at + size - PAGE_SIZE, at, at + size))
        return ERR_INVALID;
    clear(pt, at, at + size);
    return OK;
}

status_t page_table_protect(struct page_table *pt, u64 at, u32 rights)
{
    status_t status = check_range(pt, &at, PAGE_SIZE);

    if (status != OK)
        return status;
    struct place place = find(pt, at);
    if (!pt->format->present(*place.entry))
        return ERR_NOT_FOUND;
    u64 entry = pt->format->leaf(pt->format->address(*place.entry), rights, 0);
    if (place.level > 0 || !pt->format->present(entry))
        return ERR_INVALID;
    set_entry(place.entry, entry);
    publish(pt, place.entry, 1);
    return OK;
}

status_t page_table_lookup(const struct page_table *pt, u64 at, hpa_t *hpa, u32 *rights)
{
    u64 page = PAGE_DOWN(at);

    if (check_range(pt, &page, PAGE_SIZE) != OK)
        return ERR_NOT_FOUND;
    struct place place = find(pt, page);
    if (!pt->format->present(*place.entry))
        return ERR_NOT_FOUND;
    if (hpa != NULL)
        *hpa = HPA(pt->format->address(*place.entry).v + (at & (level_size(place.level) - 1)));
    if (rights != NULL)
        *rights = pt->format->rights(*place.entry);
    return OK;
}
