/* Any bytes give an error with a text, or segments that lie in the file, do not wrap and do not overlap. */
#include <stdlib.h>

#include "shared/lib/checked.h"
#include "shared/lib/elf.h"

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            abort();                                                                                                   \
    } while (0)

static void check_image(const struct elf_image *image, u64 size)
{
    CHECK(image->count >= 1 && image->count <= ELF_MAX_SEGMENTS);
    for (u32 i = 0; i < image->count; i++) {
        const struct elf_segment *a = &image->segment[i];
        u64 end;
        CHECK(a->mem_size > 0 && a->file_size <= a->mem_size);
        CHECK(range_inside(a->offset, a->file_size, 0, size));
        CHECK(add_u64(a->vaddr, a->mem_size, &end) && add_u64(a->paddr, a->mem_size, &end));
        for (u32 j = 0; j < i; j++)
            CHECK(!ranges_overlap(a->paddr, a->mem_size, image->segment[j].paddr, image->segment[j].mem_size));
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct elf_image image;
    const char *why = NULL;

    status_t status = elf_parse(data, size, &image, &why);
    CHECK(why != NULL && (status == OK) == (why[0] == '\0'));
    if (status == OK)
        check_image(&image, size);
    return 0;
}
