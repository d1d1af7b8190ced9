#include "guestos/kernel/mm/arena.h"

#include "guestos/kernel/mm/frames.h"

/* 32 requests of 1 MiB, each with room to start anywhere in a page, the virtqueues, and the network's buffers. */
#define ARENA_LARGEST MIB(40)
#define ARENA_SMALLEST MIB(1)

static u64 base, size, next;

status_t arena_init(void)
{
    size = frames_get_info().total / 6 & ~(MIB(1) - 1);
    if (size > ARENA_LARGEST)
        size = ARENA_LARGEST;
    for (; size >= ARENA_SMALLEST; size /= 2) {
        base = frames_alloc(size / PAGE_SIZE, MIB(2));
        if (base != 0) {
            next = base;
            return OK;
        }
    }
    size = 0;
    return ERR_NO_MEMORY;
}

void *arena_alloc(u64 bytes, u64 align)
{
    u64 at = (next + align - 1) & ~(align - 1);

    if (at > base + size || bytes > base + size - at)
        return NULL;
    next = at + bytes;
    return (void *)at;
}

const char *arena_status_text(status_t status)
{
    return status == ERR_NO_MEMORY ? "the I/O arena is too small" : status_text(status);
}

u64 arena_mark(void)
{
    return next;
}

void arena_release(u64 mark)
{
    next = mark;
}

u64 arena_base(void)
{
    return base;
}

u64 arena_size(void)
{
    return size;
}

u64 arena_free(void)
{
    return base + size - next;
}
