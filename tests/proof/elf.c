/*
 * For Eva: elf_parse() on a file of any content and any size. Here memcpy() fills its target with anything, whatever its source;
 * that read_at() copies from inside the file is WP's matter.
 */
#include "shared/lib/elf.c"

#include "tests/proof/world.h"

void proof_copy(void *to, const void *from, size_t n)
{
    Frama_C_make_unknown(to, n);
}

int main(void)
{
    struct elf_image image;
    const char *why;
    //@ widen_hints global:"all", 15, 16;
    if (elf_parse(unknown(1), any_u64(), &image, &why) == OK) {
        //@ assert 1 <= image.count <= ELF_MAX_SEGMENTS;
    }
    return 0;
}
