/* Layouts and values: System V gABI 4.1 chapters 4 and 5, x86-64 psABI 4.1; the PVH note: Xen's public/elfnote.h. */
#include "shared/lib/elf.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

struct elf_header {
    u8 ident[16];
    u16 type;
    u16 machine;
    u32 version;
    u64 entry;
    u64 phoff;
    u64 shoff;
    u32 flags;
    u16 ehsize;
    u16 phentsize;
    u16 phnum;
    u16 shentsize;
    u16 shnum;
    u16 shstrndx;
};
_Static_assert(sizeof(struct elf_header) == 64, "Elf64_Ehdr");

struct elf_program_header {
    u32 type;
    u32 flags;
    u64 offset;
    u64 vaddr;
    u64 paddr;
    u64 filesz;
    u64 memsz;
    u64 align;
};
_Static_assert(sizeof(struct elf_program_header) == 56, "Elf64_Phdr");

struct elf_note {
    u32 name_size;
    u32 desc_size;
    u32 type;
};
_Static_assert(sizeof(struct elf_note) == 12, "Elf64_Nhdr");

enum { PT_LOAD = 1, PT_INTERP = 3, PT_NOTE = 4 };
enum { PF_X = 1, PF_W = 2 };
enum { ET_EXEC = 2, EM_X86_64 = 62, EV_CURRENT = 1 };
enum { XEN_ELFNOTE_PHYS32_ENTRY = 18 };

/* Magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT; the ABI bytes that follow differ between linkers and do not matter. */
static const u8 elf_ident[7] = {0x7f, 'E', 'L', 'F', 2, 1, 1};

struct reader {
    const u8 *image;
    u64 size;
    const char **why;
};

static status_t fail(const struct reader *reader, status_t status, const char *why)
{
    *reader->why = why;
    return status;
}

/* Headers are copied out: the image may stand at any address, so its fields may be misaligned. */
/*@ requires \valid_read(reader) && \valid_read(reader->image + (0 .. reader->size - 1)) && \valid((u8 *)out + (0 .. size - 1));
    assigns \result, ((u8 *)out)[0 .. size - 1] \from offset, size, *reader, reader->image[0 .. reader->size - 1];
    ensures \result ==> offset + size <= reader->size; */
static bool read_at(const struct reader *reader, u64 offset, void *out, size_t size)
{
    if (!range_inside(offset, size, 0, reader->size))
        return false;
    memcpy(out, reader->image + offset, size);
    return true;
}

static status_t check_header(const struct reader *reader, struct elf_header *header)
{
    if (!read_at(reader, 0, header, sizeof(*header)))
        return fail(reader, ERR_RANGE, "the file is shorter than an ELF header");
    if (memcmp(header->ident, elf_ident, sizeof(elf_ident)) != 0)
        return fail(reader, ERR_FORMAT, "e_ident: not a little-endian ELF64 file");
    if (header->type != ET_EXEC)
        return fail(reader, ERR_FORMAT, "e_type: not a static executable (ET_EXEC)");
    if (header->machine != EM_X86_64)
        return fail(reader, ERR_FORMAT, "e_machine: not x86-64");
    if (header->version != EV_CURRENT)
        return fail(reader, ERR_FORMAT, "e_version: not 1");
    if (header->ehsize != sizeof(struct elf_header))
        return fail(reader, ERR_FORMAT, "e_ehsize: not 64");
    if (header->phnum > 0 && header->phentsize != sizeof(struct elf_program_header))
        return fail(reader, ERR_FORMAT, "e_phentsize: not 56");
    /* phnum has 16 bits, so the product cannot overflow. */
    if (!range_inside(header->phoff, (u64)header->phnum * sizeof(struct elf_program_header), 0, reader->size))
        return fail(reader, ERR_RANGE, "e_phoff: the program headers reach beyond the file");
    return OK;
}

static status_t check_overlap(const struct reader *reader, const struct elf_image *out, u64 paddr, u64 size)
{
    for (u32 i = 0; i < out->count; i++) {
        if (ranges_overlap(paddr, size, out->segment[i].paddr, out->segment[i].mem_size))
            return fail(reader, ERR_INVALID, "p_paddr: segments overlap");
    }
    return OK;
}

static status_t add_load(const struct reader *reader, const struct elf_program_header *ph, struct elf_image *out)
{
    u64 end;

    if (ph->memsz < ph->filesz)
        return fail(reader, ERR_FORMAT, "p_memsz: smaller than p_filesz");
    if (!range_inside(ph->offset, ph->filesz, 0, reader->size))
        return fail(reader, ERR_RANGE, "p_filesz: a segment reaches beyond the file");
    if (!add_u64(ph->vaddr, ph->memsz, &end))
        return fail(reader, ERR_OVERFLOW, "p_vaddr: the segment wraps around the address space");
    if (!add_u64(ph->paddr, ph->memsz, &end))
        return fail(reader, ERR_OVERFLOW, "p_paddr: the segment wraps around the address space");
    if (ph->memsz == 0)
        return OK;
    status_t status = check_overlap(reader, out, ph->paddr, ph->memsz);
    if (status != OK)
        return status;
    if (out->count == ELF_MAX_SEGMENTS)
        return fail(reader, ERR_NO_SPACE, "e_phnum: more than 16 loadable segments");
    out->segment[out->count++] = (struct elf_segment){
        .offset = ph->offset,
        .file_size = ph->filesz,
        .mem_size = ph->memsz,
        .vaddr = ph->vaddr,
        .paddr = ph->paddr,
        .write = (ph->flags & PF_W) != 0,
        .execute = (ph->flags & PF_X) != 0,
    };
    return OK;
}

/* The note's payload, if it is the PVH entry: a 32-bit physical address, stored in 4 or 8 bytes (Linux: 8). */
static status_t take_note(const struct reader *reader, const struct elf_note *note, u64 name, u64 desc,
                          struct elf_image *out)
{
    char text[4];

    if (note->type != XEN_ELFNOTE_PHYS32_ENTRY || note->name_size != sizeof(text) ||
        !read_at(reader, name, text, sizeof(text)) || memcmp(text, "Xen", sizeof(text)) != 0)
        return OK;
    if ((note->desc_size != 4 && note->desc_size != 8) || !read_at(reader, desc, &out->pvh_entry, note->desc_size))
        return fail(reader, ERR_FORMAT, "the PVH note has not 4 or 8 bytes");
    return OK;
}

static status_t scan_notes(const struct reader *reader, const struct elf_program_header *ph, struct elf_image *out)
{
    u64 align = ph->align == 8 ? 8 : 4;
    u64 at = 0; /* relative to the segment, as the padding is */

    if (!range_inside(ph->offset, ph->filesz, 0, reader->size))
        return fail(reader, ERR_RANGE, "p_filesz: a note segment reaches beyond the file");
    /* No sum below overflows: the segment lies inside a file in memory, and the sizes in a note have 32 bits. */
    while (ph->filesz - at >= sizeof(struct elf_note)) {
        struct elf_note note;
        if (!read_at(reader, ph->offset + at, &note, sizeof(note)))
            return fail(reader, ERR_RANGE, "p_filesz: a note segment reaches beyond the file");
        u64 name = at + sizeof(note);
        u64 desc = (name + note.name_size + align - 1) & ~(align - 1);
        u64 end = desc + note.desc_size;
        if (end > ph->filesz)
            return fail(reader, ERR_FORMAT, "n_descsz: a note reaches beyond its segment");
        status_t status = take_note(reader, &note, ph->offset + name, ph->offset + desc, out);
        if (status != OK)
            return status;
        at = (end + align - 1) & ~(align - 1);
        if (at > ph->filesz) /* the padding after the last note may be missing */
            break;
    }
    return OK;
}

static status_t take_program_header(const struct reader *reader, const struct elf_program_header *ph,
                                    struct elf_image *out)
{
    switch (ph->type) {
    case PT_LOAD:
        return add_load(reader, ph, out);
    case PT_NOTE:
        return scan_notes(reader, ph, out);
    case PT_INTERP:
        return fail(reader, ERR_FORMAT, "p_type: PT_INTERP, not a static executable");
    default:
        return OK;
    }
}

status_t elf_parse(const void *image, u64 size, struct elf_image *out, const char **why)
{
    struct reader reader = {.image = image, .size = size, .why = why};
    struct elf_header header;

    memset(out, 0, sizeof(*out));
    *why = "";
    status_t status = check_header(&reader, &header);
    for (u32 i = 0; status == OK && i < header.phnum; i++) {
        struct elf_program_header ph;
        if (!read_at(&reader, header.phoff + i * sizeof(ph), &ph, sizeof(ph)))
            return fail(&reader, ERR_RANGE, "e_phoff: the program headers reach beyond the file");
        status = take_program_header(&reader, &ph, out);
    }
    if (status != OK)
        return status;
    if (out->count == 0)
        return fail(&reader, ERR_NOT_FOUND, "no loadable segment (PT_LOAD)");
    out->entry = header.entry;
    return OK;
}

const struct elf_segment *elf_misfit(const struct elf_image *elf, u64 first, u64 end)
{
    for (u32 i = 0; i < elf->count; i++)
        if (!range_inside(elf->segment[i].paddr, elf->segment[i].mem_size, first, end - first))
            return &elf->segment[i];
    return NULL;
}
