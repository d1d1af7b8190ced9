/* SOURCES: hv/core/driver.c hv/core/driver_image.c hv/core/frames.c hv/core/page_table.c hv/recovery/crash.c */
/* SOURCES: shared/lib/elf.c */
/* INCLUDE_FAKES */
/* The start of a driver VM: its memory from the pristine image each time, and what the generation before has left. */
#include "hv/arch/x86/vendor.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/recovery/recovery.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#define RAM_SIZE KIB(512)
#define TEXT 0x10000u
#define DATA 0x12000u
#define DATA_SIZE 0x1804u /* of the file: ends in the middle of a page */
#define LAST (RAM_SIZE - PAGE_SIZE)

static struct {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
    struct {
        u32 type, flags;
        u64 offset, vaddr, paddr, filesz, memsz, align;
    } ph[2];
    u8 text[PAGE_SIZE], data[DATA_SIZE];
} image = {.ident = {0x7f, 'E', 'L', 'F', 2, 1, 1},
           .type = 2,
           .machine = 62,
           .version = 1,
           .entry = TEXT + 8,
           .phoff = 64,
           .ehsize = 64,
           .phentsize = 56,
           .phnum = 2,
           .ph = {{1, 5, 176, TEXT, TEXT, PAGE_SIZE, PAGE_SIZE, 16},
                  {1, 6, 176 + PAGE_SIZE, DATA, DATA, DATA_SIZE, 0x8000, 16}}};

static struct manifest_vm config = {.dma = MANIFEST_DMA_ISOLATED};
static struct pci_device pci;
static struct iommu_domain domain;
static u64 flushed; /* pages of the domain, from 0 */
static u64 entry = TEXT + 8;
static struct vm vm, guest;
static struct driver driver;
struct vm *main_guest = &guest;

static void fake_reset(struct vcpu *vcpu, const struct vcpu_start *start)
{
    assert_true(start->long64);
    assert_int_equal(start->entry, entry);
    assert_int_equal(start->cr3, DRIVER_PML4_ADDRESS);
    assert_int_equal(start->gdt, DRIVER_GDT_ADDRESS);
    vcpu->regs = (struct vcpu_registers){0};
    vcpu->rip = entry;
}
static const struct vcpu_vendor fake_vendor = {.reset = fake_reset};
const struct vcpu_vendor *vendor = &fake_vendor;

void vcpu_wake(struct vcpu *vcpu)
{
    vcpu->state = VCPU_RUNNABLE;
}
void event_add(enum event_kind kind, u32 id, const char *fmt, ...)
{
    assert_int_equal(kind, EVENT_START);
}
u64 driver_bar_address(const struct pci_device *dev, u32 index)
{
    return 0;
}
void recovery_iommu_fault(const struct iommu_fault *fault)
{
}
bool iommu_is_blocked(u16 bdf)
{
    return false;
}
u32 iommu_drain_faults(void (*each)(const struct iommu_fault *fault), bool *overflow)
{
    return 0;
}
status_t iommu_attach(u16 bdf, struct iommu_domain *domain)
{
    return OK;
}
status_t iommu_map(struct iommu_domain *of, iova_t at, hpa_t hpa, u64 size, u32 rights)
{
    return page_table_map(&of->table, at.v, hpa, size, rights);
}
status_t iommu_unmap(struct iommu_domain *of, iova_t at, u64 size)
{
    return page_table_unmap(&of->table, at.v, size);
}
void iommu_flush_pages(struct iommu_domain *of, iova_t at, u64 pages)
{
    assert_int_equal(at.v, 0);
    flushed = pages;
}
void pci_set_bus_master(const struct pci_device *dev, bool on)
{
}

static u8 *ram(u64 at)
{
    return (u8 *)hpa_to_ptr(vm.ram) + at;
}

static const u8 *left(u64 at)
{
    return (const u8 *)crash_page(&driver, at);
}

static void load_image(void)
{
    const char *why;

    assert_int_equal(driver_load(&driver, &image, sizeof(image), "test", &why), OK);
}

static int setup(void **state)
{
    hpa_t info;

    fake_frames_create(MIB(16), MIB(4));
    memset(image.text, 0x90, sizeof(image.text));
    memset(image.data, 0xda, sizeof(image.data));
    guest = (struct vm){.ram_size = MIB(16)};
    vm = (struct vm){.name = "blk0", .ram_size = RAM_SIZE, .driver = &driver};
    vm.vcpu.vm = &vm;
    config.spare = false;
    entry = TEXT + 8;
    driver = (struct driver){.vm = &vm, .config = &config, .pci = &pci, .domain = &domain};
    assert_int_equal(frames_alloc(RAM_SIZE / PAGE_SIZE, MIB(1), &vm.ram), OK);
    driver.next_ram = vm.ram;
    assert_int_equal(frame_alloc(&info), OK);
    driver.info_page = info;
    load_image();
    driver_create_crash(&driver);
    driver_start(&driver);
    return 0;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

/* RAM holds the image and tables that the CPU can start with, and nothing else. */
static void assert_pristine(void)
{
    for (u64 at = 0x4000; at < RAM_SIZE; at++) {
        u8 expected = at >= TEXT && at < TEXT + PAGE_SIZE ? 0x90 : at >= DATA && at < DATA + DATA_SIZE ? 0xda : 0;
        if (*ram(at) != expected)
            fail_msg("%#llx holds %#x", (unsigned long long)at, *ram(at));
    }
    assert_int_equal(*(u64 *)ram(0x1000), 0x2007);
    assert_int_equal(*(u64 *)ram(0x2008), 0x40000083);
    assert_int_equal(*(u64 *)ram(0x3008), 0x00af9b000000ffff);
}

static void fail_generation(u32 sequence)
{
    driver.recovery.current = (struct fault_record){.sequence = sequence, .generation = driver.generation};
    vm.vcpu.regs.rbx = 0xb0 + sequence;
    vm.vcpu.rip = TEXT + sequence;
    vm.vcpu.rflags = 0x46;
    driver.crash = driver.recovery.current; /* as run_stages() does */
    driver.crash_vcpu = vm.vcpu;
}

static void restart(void)
{
    driver.generation++;
    driver_start(&driver);
}

static void each_start_is_the_same(void **state)
{
    assert_pristine();
    memset(ram(0), 0xff, RAM_SIZE);
    restart();
    assert_pristine();
    *ram(DATA + DATA_SIZE) = 1; /* behind the file's part of a page */
    *ram(LAST + 4095) = 1;
    restart();
    assert_pristine();
    assert_int_equal(vm.vcpu.state, VCPU_RUNNABLE);
    assert_int_equal(vm.vcpu.regs.rsp, RAM_SIZE);
    assert_int_equal(vm.vcpu.regs.rdi, DRIVER_INFO_ADDRESS);
    assert_int_equal(((struct driver_info *)hpa_to_ptr(driver.info_page))->generation, 2);
}

static void a_crash_is_kept_over_the_restart(void **state)
{
    static u8 before[RAM_SIZE];

    *ram(TEXT + 5) = 0x0f;
    *ram(DATA + DATA_SIZE) = 0x5b;
    memset(ram(0x40000), 0x77, PAGE_SIZE);
    *ram(LAST + 4095) = 0x57;
    memcpy(before, ram(0), RAM_SIZE);
    fail_generation(1);

    /* Before and after the successor's start it is the same. */
    for (u32 turn = 0; turn < 2; turn++) {
        for (u64 at = 0; at < RAM_SIZE; at += PAGE_SIZE)
            assert_memory_equal(left(at), before + at, PAGE_SIZE);
        assert_int_equal(((const struct driver_info *)left(RAM_SIZE))->generation, 0);
        assert_int_equal(driver.crash_vcpu.regs.rbx, 0xb1);
        assert_int_equal(driver.crash_vcpu.rip, TEXT + 1);
        assert_int_equal(driver.crash_vcpu.rflags, 0x46);
        assert_int_equal(driver.crash.sequence, 1);
        if (turn == 0)
            restart();
        assert_pristine();
        *ram(LAST) = 1; /* the successor at work */
        *ram(LAST) = 0;
    }
    memset(ram(0), 0xee, RAM_SIZE); /* whatever it does, the crash is out of its reach */
    for (u64 at = 0; at < RAM_SIZE; at += PAGE_SIZE)
        assert_memory_equal(left(at), before + at, PAGE_SIZE);
}

static void the_next_crash_replaces_it(void **state)
{
    memset(ram(0x40000), 0x77, PAGE_SIZE);
    *ram(DATA) = 1;
    fail_generation(1);
    restart();
    *ram(0x50000) = 0x22;
    fail_generation(2);
    restart();
    assert_int_equal(driver.crash.sequence, 2);
    assert_int_equal(driver.crash.generation, 1);
    assert_int_equal(driver.crash_vcpu.regs.rbx, 0xb2);
    assert_int_equal(*left(0x50000), 0x22);
    assert_int_equal(*left(0x40000), 0);
    assert_int_equal(*left(DATA), 0xda);
    assert_int_equal(((const struct driver_info *)left(RAM_SIZE))->generation, 1);
}

/* ---- with a spare ---- */

static u64 page_at(struct page_table *pt, u64 at)
{
    const u64 *table = hpa_to_ptr(pt->root);

    for (u64 size = 1ull << 39; size > PAGE_SIZE; size /= 512)
        table = hpa_to_ptr(HPA(table[at / size % 512] & 0x000ffffffffff000ull));
    return table[at / PAGE_SIZE % 512] & 0x000ffffffffff000ull;
}

/* CPU and device find the same RAM, all of it. */
static void assert_mapped(void)
{
    for (u64 at = 0; at < RAM_SIZE; at += PAGE_SIZE) {
        assert_int_equal(page_at(&vm.npt, at), vm.ram.v + at);
        assert_int_equal(page_at(&domain.table, at), vm.ram.v + at);
    }
}

#define READY (TEXT + 0x123) /* where the VM stands behind its `ready` */

/* The first generation, and it has said `ready`: then its bss and its stack hold something. */
static int setup_spare(void **state)
{
    if (setup(state) != 0)
        return -1;
    config.spare = true;
    assert_int_equal(frames_alloc(RAM_SIZE / PAGE_SIZE, MIB(2), &driver.next_ram), OK);
    assert_int_equal(page_table_create(&vm.npt, &page_format_npt), OK);
    assert_int_equal(page_table_create(&domain.table, &page_format_vtd), OK);
    assert_int_equal(page_table_map(&vm.npt, 0, vm.ram, RAM_SIZE, PAGE_READ | PAGE_WRITE), OK);
    assert_int_equal(page_table_map(&domain.table, 0, vm.ram, RAM_SIZE, PAGE_READ | PAGE_WRITE), OK);
    load_image();
    driver.state = DRIVER_STOPPED;
    driver_start(&driver);
    assert_mapped();
    assert_pristine();
    return 0;
}

static void say_ready(void)
{
    *ram(0x20000) = 0xb5;
    *ram(LAST + 4088) = 0x57;
    vm.vcpu.regs = (struct vcpu_registers){.rax = HYPERCALL_READY, .rbx = 0xb, .rsp = LAST + 4000};
    vm.vcpu.rip = READY;
    driver_ready(&driver);
    driver.state = DRIVER_RUNNING;
    entry = READY;
}

static void prepare(void)
{
    for (u32 i = 0; i < RAM_SIZE / KIB(64); i++) {
        assert_string_equal(driver_spare_state(&driver), "preparing");
        driver_prepare_spare(&driver);
    }
    assert_string_equal(driver_spare_state(&driver), "ready");
    driver_prepare_spare(&driver);
}

static void assert_booted(void)
{
    assert_mapped();
    assert_int_equal(flushed, RAM_SIZE / PAGE_SIZE);
    assert_int_equal(vm.vcpu.rip, READY);
    assert_int_equal(vm.vcpu.regs.rax, 0);
    assert_int_equal(vm.vcpu.regs.rbx, 0xb);
    assert_int_equal(vm.vcpu.regs.rsp, LAST + 4000);
    assert_int_equal(*ram(0x20000), 0xb5);
    assert_int_equal(*ram(LAST + 4088), 0x57);
    *ram(0x20000) = *ram(LAST + 4088) = 0;
    assert_pristine();
    *ram(0x20000) = 0xb5;
    *ram(LAST + 4088) = 0x57;
}

static void a_spare_goes_on_behind_ready(void **state)
{
    assert_string_equal(driver_spare_state(&driver), "none");
    say_ready();
    for (u32 generation = 1; generation < 5; generation++) {
        hpa_t standing_by = driver.next_ram;
        if (generation % 2) /* else the fault comes before it is ready */
            prepare();
        else
            driver_prepare_spare(&driver);
        memset(ram(0), 0xee, RAM_SIZE);
        restart();
        assert_int_equal(vm.ram.v, standing_by.v);
        assert_booted();
        assert_int_equal(((struct driver_info *)hpa_to_ptr(driver.info_page))->generation, generation);
        driver.state = DRIVER_RUNNING;
    }
}

/* Only the first `ready` of an image counts, and only of one that has not offered yet. */
static void later_words_change_nothing(void **state)
{
    driver.state = DRIVER_RUNNING;
    driver_ready(&driver);
    assert_string_equal(driver_spare_state(&driver), "none");
    driver.state = DRIVER_STARTING;
    say_ready();
    memset(ram(0), 0xee, RAM_SIZE);
    driver.state = DRIVER_STARTING;
    vm.vcpu.rip = 0x666;
    driver_ready(&driver);
    restart();
    assert_booted();
}

static void a_crash_is_kept_while_the_spare_is_prepared(void **state)
{
    static u8 before[RAM_SIZE];

    say_ready();
    prepare();
    *ram(TEXT + 5) = 0x0f;
    *ram(0x20001) = 0x5b;
    *ram(LAST + 4095) = 0x57;
    memcpy(before, ram(0), RAM_SIZE);
    fail_generation(1);
    restart();
    driver.state = DRIVER_RUNNING;
    for (u32 turn = 0; turn <= RAM_SIZE / KIB(64); turn++) { /* with the successor at work, before, between and after */
        memset(ram(0), turn, RAM_SIZE);
        for (u64 at = 0; at < RAM_SIZE; at += PAGE_SIZE)
            assert_memory_equal(left(at), before + at, PAGE_SIZE);
        driver_prepare_spare(&driver);
    }
    assert_string_equal(driver_spare_state(&driver), "ready");
}

/* What was prepared of one image is nothing for another, which boots by itself, and the way back is open. */
static void another_image_begins_anew(void **state)
{
    say_ready();
    prepare();
    image.text[9] = 0x66;
    load_image();
    entry = TEXT + 8;
    restart();
    assert_int_equal(*ram(TEXT + 9), 0x66);
    assert_int_equal(*ram(0x20000), 0);
    assert_int_equal(vm.vcpu.regs.rdi, DRIVER_INFO_ADDRESS);
    assert_string_equal(driver_spare_state(&driver), "none");
    image.text[9] = 0x90;
    driver_swap_images(&driver);
    entry = READY;
    restart();
    assert_booted();
}

#define TEST_SPARE(name) cmocka_unit_test_setup_teardown(name, setup_spare, teardown)
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_start_is_the_same),           TEST(a_crash_is_kept_over_the_restart),
        TEST(the_next_crash_replaces_it),       TEST_SPARE(a_spare_goes_on_behind_ready),
        TEST_SPARE(later_words_change_nothing), TEST_SPARE(a_crash_is_kept_while_the_spare_is_prepared),
        TEST_SPARE(another_image_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
