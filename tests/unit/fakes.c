#include "tests/unit/fakes.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))

u64 fake_time_us;
char fake_log_line[256];
u32 fake_log_count;
jmp_buf *fake_panic_target;
char fake_panic_text[256];

static u8 *arena;
static u64 arena_base;
static u64 arena_size;

void fake_memory_create(u64 base, u64 size)
{
    fake_memory_destroy();
    arena = aligned_alloc(PAGE_SIZE, size);
    if (arena == NULL)
        abort();
    memset(arena, 0xa5, size);
    arena_base = base;
    arena_size = size;
}

void fake_memory_destroy(void)
{
    free(arena);
    arena = NULL;
    arena_size = 0;
}

WEAK void *hpa_to_ptr(hpa_t hpa)
{
    if (hpa.v < arena_base || hpa.v - arena_base >= arena_size) {
        fprintf(stderr, "hpa_to_ptr: 0x%llx is not in the machine's memory\n", (unsigned long long)hpa.v);
        abort();
    }
    return arena + (hpa.v - arena_base);
}

WEAK hpa_t ptr_to_hpa(const void *ptr)
{
    u64 offset = (u64)((const u8 *)ptr - arena);

    if (offset >= arena_size) {
        fprintf(stderr, "ptr_to_hpa: %p is not in the machine's memory\n", ptr);
        abort();
    }
    return HPA(arena_base + offset);
}

/* Resolved to nothing in tests that don't link hv/core/frames.c: they must not call fake_frames_create(). */
WEAK status_t frames_init(const struct boot_memory *map, u32 count);

void fake_frames_create(u64 base, u64 size)
{
    struct boot_memory map = {.base = base, .size = size, .kind = BOOT_MEMORY_FREE};

    fake_memory_create(base, size);
    if (frames_init(&map, 1) != OK)
        abort();
}

WEAK _Noreturn void panic(const char *fmt, ...)
{
    va_list args;
    jmp_buf *target = fake_panic_target;

    va_start(args, fmt);
    vsnprintf(fake_panic_text, sizeof(fake_panic_text), fmt, args);
    va_end(args);
    if (target == NULL) {
        fprintf(stderr, "panic: %s\n", fake_panic_text);
        abort();
    }
    fake_panic_target = NULL;
    longjmp(*target, 1);
}

WEAK _Noreturn void boot_fail(const char *fmt, ...)
{
    va_list args;
    char text[256];

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    panic("%s", text);
}

WEAK void hv_log(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(fake_log_line, sizeof(fake_log_line), fmt, args);
    va_end(args);
    fake_log_count++;
    if (getenv("BULKHEAD_LOG") != NULL)
        printf("hv: %s\n", fake_log_line);
}

WEAK _Noreturn void machine_end(enum machine_end how)
{
    panic("machine_end(0x%x)", how);
}

static bool locked;

WEAK void hv_lock(void)
{
    if (locked)
        panic("the lock is held already");
    locked = true;
}

WEAK void hv_unlock(void)
{
    if (!locked)
        panic("the lock is not held");
    locked = false;
}

WEAK u64 tsc_khz = 2000000;

WEAK u64 tsc_now(void)
{
    return tsc_from_us(fake_time_us);
}

WEAK u64 time_us(void)
{
    return fake_time_us;
}
