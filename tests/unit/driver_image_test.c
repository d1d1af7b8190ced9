/* A driver VM's images: loaded whole or not at all, two of them in turn, and the VM's memory as the current one has it.
 */
/* SOURCES: hv/core/driver_image.c hv/core/frames.c */
/* INCLUDE_FAKES */
#include "hv/core/driver.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#define TEXT 0x10000u
#define RAM_SIZE KIB(512)

/* One segment, written down from System V gABI 4.1 chapters 4 and 5. */
struct file {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
    struct {
        u32 type, flags;
        u64 offset, vaddr, paddr, filesz, memsz, align;
    } ph;
    u8 text[40];
};

static struct vm vm;
static struct driver driver;
static struct manifest_vm config;
static const char *why;

static struct file make_file(u8 fill)
{
    struct file file = {.ident = {0x7f, 'E', 'L', 'F', 2, 1, 1},
                        .type = 2,
                        .machine = 62,
                        .version = 1,
                        .entry = TEXT + fill,
                        .phoff = 64,
                        .ehsize = 64,
                        .phentsize = 56,
                        .phnum = 1,
                        .ph = {1, 5, 120, TEXT, TEXT, 40, 0x3000, 0x1000}};
    memset(file.text, fill, sizeof(file.text));
    return file;
}

static status_t load(const struct file *file, u64 size, const char *origin)
{
    return driver_load(&driver, file, size, origin, &why);
}

static int setup(void **state)
{
    fake_frames_create(MIB(16), MIB(4));
    vm = (struct vm){.ram_size = RAM_SIZE};
    driver = (struct driver){.vm = &vm, .config = &config};
    if (frames_alloc(RAM_SIZE / PAGE_SIZE, MIB(2), &vm.ram) != OK || frame_alloc(&driver.info_page) != OK)
        return -1;
    driver.next_ram = vm.ram;
    driver_create_crash(&driver);
    return 0;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static void assert_memory_is(u8 fill)
{
    u8 *ram = hpa_to_ptr(vm.ram);
    u8 text[40];

    driver.running = driver.image; /* as driver_start() does */
    driver.next_clean = 0;
    driver_restore_memory(&driver, RAM_SIZE);
    memset(text, fill, sizeof(text));
    assert_memory_equal(ram, driver.image.memory, driver.image.size);
    for (u64 at = driver.image.size; at < RAM_SIZE; at++)
        assert_int_equal(ram[at], 0);
    assert_memory_equal(ram + TEXT, text, 40);
    assert_int_equal(ram[TEXT + 40], 0);
    assert_int_equal(driver.image.entry, TEXT + fill);
    assert_int_equal(driver.image.bytes, 40);
}

static void an_image_is_what_the_vm_starts_with(void **state)
{
    struct file file = make_file(0x11);

    assert_int_equal(load(&file, sizeof(file), "manifest"), OK);
    assert_memory_is(0x11);
    assert_string_equal(driver.image.origin, "manifest");
    memset(hpa_to_ptr(vm.ram), 0xee, RAM_SIZE); /* what a driver leaves behind */
    assert_memory_is(0x11);
    /* The start's page tables: identity, and a code segment of 64 bits (APM 2 5.3, 4.8). */
    const u64 *pml4 = (const u64 *)(driver.image.memory + DRIVER_PML4_ADDRESS);
    const u64 *pdpt = (const u64 *)(driver.image.memory + (pml4[0] & ~0xfffull));
    assert_int_equal(pml4[0] & 7, 7);
    assert_int_equal(pdpt[3], 3ull << 30 | 0x83);
}

/* Two of them in turn, in the memory of two: nothing is taken for the third. */
static void images_take_turns(void **state)
{
    u64 frames = frames_free_count;

    for (u8 fill = 1; fill <= 4; fill++) {
        struct file file = make_file(fill);
        assert_int_equal(load(&file, sizeof(file), "uploaded"), OK);
        assert_memory_is(fill);
    }
    assert_int_equal(frames - frames_free_count, 2 * (driver.image.size / PAGE_SIZE + 2));
    /* A larger one needs a place of its own; the next of its size has it then. */
    struct file large = make_file(5);
    large.ph.paddr = 0x40000;
    assert_int_equal(load(&large, sizeof(large), "uploaded"), OK);
    assert_int_equal(driver.image.size, 0x42000);
    driver_swap_images(&driver);
    assert_memory_is(4);
    assert_int_equal(driver.frames, frames - frames_free_count);
    assert_string_equal(driver.image.origin, "uploaded");
}

/* Each larger than all before: a slot takes memory anew once, however many come. */
static void images_that_grow_take_memory_once(void **state)
{
    struct file file = make_file(0x11);
    u64 first = (0x12000 + 0x16000) / PAGE_SIZE + 4, large = 2 * (RAM_SIZE / PAGE_SIZE + 2);
    u64 frames = frames_free_count;

    for (file.ph.paddr = TEXT; file.ph.paddr < 0x60000; file.ph.paddr += 0x4000)
        assert_int_equal(load(&file, sizeof(file), "uploaded"), OK);
    assert_int_equal(frames - frames_free_count, first + large);
}

static void what_is_refused_changes_nothing(void **state)
{
    struct file good = make_file(0x11), file;
    struct driver before;

    assert_int_equal(load(&good, sizeof(good), "manifest"), OK);
    before = driver;
    file = make_file(0x22);
    for (u64 size = 0; size < sizeof(file); size++)
        assert_int_not_equal(load(&file, size, "uploaded"), OK); /* cut off anywhere */
    file.ph.paddr = DRIVER_LOAD_ADDRESS - 1;
    assert_int_equal(load(&file, sizeof(file), "uploaded"), ERR_RANGE);
    file.ph.paddr = RAM_SIZE - DRIVER_STACK_MIN - 0x2fff;
    assert_int_equal(load(&file, sizeof(file), "uploaded"), ERR_RANGE);
    assert_string_equal(why, "it does not fit the VM's memory");
    file.ph.paddr--;
    hpa_t all;
    while (frames_alloc(1, PAGE_SIZE, &all) == OK)
        ;
    assert_int_equal(load(&file, sizeof(file), "uploaded"), ERR_NO_MEMORY);
    assert_memory_equal(&driver, &before, sizeof(driver));
    assert_memory_is(0x11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_image_is_what_the_vm_starts_with, setup, teardown),
        cmocka_unit_test_setup_teardown(images_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(images_that_grow_take_memory_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_refused_changes_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
