/*
 * For Eva: elf_parse() on a file of any content and any size up to a gigabyte. What read_at() copies is anything,
 * wherever it comes from: that it comes from inside the file is WP's matter.
 */
#include "tests/proof/world.h"

#include "shared/lib/string.h"

#define memcpy(to, from, n) Frama_C_make_unknown((char *)(to), n)

#include "shared/lib/elf.c"

static u8 file[1 << 30];

int main(void)
{
    struct elf_image image;
    const char *why;
    //@ widen_hints global:"all", 15, 16;
    if (elf_parse(file, Frama_C_unsigned_long_interval(0, sizeof(file)), &image, &why) == OK) {
        //@ assert image.count <= ELF_MAX_SEGMENTS;
    }
    return 0;
}
