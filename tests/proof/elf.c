/*
 * For Eva: elf_parse() on a file of any content and any size up to a gigabyte. read_at() alone touches the file: WP proves
 * it, and here its contract stands in for it and fills every header with anything.
 */
#include "shared/lib/elf.c"

#include "tests/proof/world.h"

static u8 file[1 << 30];

int main(void)
{
    struct elf_image image;
    const char *why;
    if (elf_parse(file, Frama_C_unsigned_long_interval(0, sizeof(file)), &image, &why) == OK) {
        //@ assert 1 <= image.count <= ELF_MAX_SEGMENTS;
    }
    return 0;
}
