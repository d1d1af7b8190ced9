/* PCI configuration and BARs, power, start of images that fit and that do not, restart, and a random sweep over all of
 * it. */
/*
 * SOURCES: hv/platform/acpi.c hv/platform/clock.c hv/platform/cpuid.c hv/platform/ioapic.c hv/platform/lapic.c
 * hv/platform/msr.c hv/platform/pci_bus.c hv/platform/platform.c hv/platform/pv_eoi.c
 * hv/platform/pvh.c hv/platform/uart.c
 */
/* INCLUDE_FAKES */
#include "tests/unit/platform_machine.h"

#define ADDRESS 0xcf8u
#define DATA 0xcfcu

static u32 config(u32 device, u32 offset, u8 width)
{
    out(ADDRESS, 4, 0x80000000u | device << 11 | (offset & 0xfc));
    return in((u16)(DATA + offset % 4), width);
}

static void configuration_address(void **state)
{
    out(ADDRESS, 4, 0xffffffff);
    assert_int_equal(in(ADDRESS, 4), 0x80fffffc);
    out(ADDRESS, 1, 0);
    out(ADDRESS + 1, 1, 0x0e); /* the reset register of PCs is not there */
    out(ADDRESS, 2, 0);
    assert_int_equal(in(ADDRESS, 4), 0x80fffffc);
    assert_int_equal(in(ADDRESS, 1), 0xff);
    assert_int_equal(in(ADDRESS + 2, 2), 0xffff);
    out(ADDRESS, 4, 0x80000000);
    assert_int_equal(in(ADDRESS, 4), 0x80000000);
    out(ADDRESS, 4, 0); /* not enabled */
    assert_int_equal(in(DATA, 4), 0xffffffff);
}

static void host_bridge(void **state)
{
    assert_int_equal(config(0, 0, 4), 0x0d578086);
    assert_int_equal(config(0, 0, 2), 0x8086);
    assert_int_equal(config(0, 2, 2), 0x0d57);
    assert_int_equal(config(0, 8, 4), 0x06000000);
    assert_int_equal(config(0, 0xb, 1), 6);
    assert_int_equal(config(0, 0xe, 1), 0); /* header type 0, one function */
    assert_int_equal(config(0, 0xfc, 4), 0);
    out(DATA, 4, 0xffffffff);
    assert_int_equal(config(0, 0, 4), 0x0d578086);
}

static void what_is_not_there_reads_ones(void **state)
{
    for (u32 device = 1; device < 32; device++) {
        if (device == 1 || device == 3)
            continue;
        assert_int_equal(config(device, 0, 4), 0xffffffff);
        assert_int_equal(config(device, 1, 1), 0xff);
        out(DATA, 4, 0);
    }
    machine_relay[0].value = 0x12345678;
    out(ADDRESS, 4, 0x80010800); /* bus 1 */
    assert_int_equal(in(DATA, 4), 0xffffffff);
    out(ADDRESS, 4, 0x80000900); /* function 1 */
    assert_int_equal(in(DATA, 4), 0xffffffff);
    out(DATA, 4, 1);
    assert_false(machine_relay[0].write);
}

static void relays_devices(void **state)
{
    machine_relay[0].value = 0x10421af4;
    assert_int_equal(config(1, 0x40, 4), 0x10421af4);
    assert_int_equal(machine_relay[0].offset, 0x40);
    assert_int_equal(config(1, 0x42, 2), 0x1af4); /* no more than the width */
    assert_int_equal(machine_relay[0].offset, 0x42);
    assert_int_equal(machine_relay[0].width, 2);
    (void)config(3, 0, 4);
    out(DATA + 3, 1, 0xabcdef77);
    assert_true(machine_relay[1].write);
    assert_int_equal(machine_relay[1].offset, 3);
    assert_int_equal(machine_relay[1].value, 0x77);
    machine_relay[1].write = false;
    /* unaligned, or over the register's end */
    assert_int_equal(in(DATA + 1, 2), 0xffff);
    assert_int_equal(in(DATA + 3, 2), 0xffff);
    assert_int_equal(in(DATA + 1, 4), 0xffffffff);
    out(DATA + 2, 4, 0);
    assert_false(machine_relay[1].write);
}

static void bars_are_routed(void **state)
{
    u64 value = 0x55;
    machine_relay[1].port = 0xc100;
    machine_relay[1].memory = 0xe0001000;
    out(0xc110, 2, 0xffff0003);
    assert_int_equal(machine_relay[1].offset, 0x10);
    assert_int_equal(machine_relay[1].value, 3);
    machine_relay[1].value = 0x12345678;
    assert_int_equal(in(0xc104, 1), 0x78);
    assert_int_equal(in(0xc200, 4), 0xffffffff);
    assert_true(platform_memory(&machine.vm, GPA(0xe0001010), 4, true, &value));
    assert_int_equal(machine_relay[1].value, 0x55);
    assert_true(platform_memory(&machine.vm, GPA(0xe0001ff8), 8, false, &value));
    assert_int_equal(machine_relay[1].offset, 0xff8);
    assert_false(platform_memory(&machine.vm, GPA(0xe0002000), 4, false, &value));
    assert_false(platform_memory(&machine.vm, GPA(~0ull), 4, false, &value));
    /* A BAR that the guest lays over the machine's own ports does not hide them. */
    machine_relay[1].port = 0x3f0;
    assert_int_equal(in(0x3fd, 1), 0x60);
}

static void power_off(void **state)
{
    out(PLATFORM_SLEEP_PORT, 1, 0x14);          /* S5 without SLP_EN */
    out(PLATFORM_SLEEP_PORT, 1, 0x20 | 3 << 2); /* S3 is not there */
    out(PLATFORM_SLEEP_PORT, 2, 0x34);          /* a byte register */
    out(PLATFORM_SLEEP_STATUS_PORT, 1, 0x34);
    assert_int_equal(in(PLATFORM_SLEEP_STATUS_PORT, 1), 0);
    assert_true(PANICS(out(PLATFORM_SLEEP_PORT, 1, 0x20 | 5 << 2)));
    assert_string_equal(fake_panic_text, "machine_end(0x20)");
}

/* ---- start ---- */

static void start_info(void **state)
{
    const u64 at = machine.vm.vcpu.regs.rbx;
    const u8 *info = machine.ram + at;
    struct {
        u64 address, size;
        u32 type, reserved;
    } map[3];
    u64 pointer;
    u32 count;
    assert_int_equal(machine.entry, MIB(1) + 16);
    assert_true(at + PAGE_SIZE <= LOW_RESERVED_END);
    assert_memory_equal(info, "\x78\xc5\x6e\x33\x01\0\0\0\0\0\0\0\0\0\0\0", 16);
    memcpy(&pointer, info + 24, 8);
    assert_string_equal(machine.ram + pointer, "console=ttyS0 quiet");
    memcpy(&pointer, info + 40, 8);
    memcpy(&count, info + 48, 4);
    assert_int_equal(count, 3);
    memcpy(map, machine.ram + pointer, sizeof(map));
    u64 end = 0;
    for (u32 i = 0; i < 3; i++) { /* gapless, and all that the guest was given so far lies in what is reserved */
        assert_int_equal(map[i].address, end);
        assert_int_equal(map[i].type, i == 1 ? 2 : 1);
        end += map[i].size;
    }
    assert_int_equal(end, MACHINE_RAM);
    assert_true(map[1].address <= at && map[1].address + map[1].size == LOW_RESERVED_END);
    assert_int_equal(machine.ram[0], 0); /* wiped */
    assert_int_equal(machine.ram[MIB(1)], 1);
    assert_int_equal(machine.ram[MIB(1) + 63], 64);
    assert_int_equal(machine.ram[MIB(1) + 64], 0); /* the rest of the segment */
    assert_int_equal(machine.ram[MACHINE_RAM - 1], 0);
}

static status_t try_image(struct machine_image image, u64 size, const char *expected)
{
    const char *why = "";
    machine_make(MIB(4));
    status_t status = platform_create(&machine.vm, &image, size, &why);
    if (!strstr(why, expected) || !why[0])
        fail_msg("'%s' instead of '%s'", why, expected);
    free(machine.ram);
    return status;
}

static void images_that_do_not_fit(void **state)
{
    struct machine_image image = machine_image_at(MIB(1), 4096);
    assert_int_equal(try_image(machine_image_at(MIB(4) - 4096, 4097), sizeof(image), "does not fit"), ERR_INVALID);
    assert_int_equal(try_image(machine_image_at(MIB(1), MIB(3) + 1), sizeof(image), "does not fit"), ERR_INVALID);
    assert_int_equal(try_image(machine_image_at(GIB(4), 4096), sizeof(image), "does not fit"), ERR_INVALID);
    assert_int_equal(try_image(machine_image_at(0x9f000 - 64, 65), sizeof(image), "overlaps"), ERR_INVALID);
    assert_int_equal(try_image(machine_image_at(0xfffff, 64), sizeof(image), "overlaps"), ERR_INVALID);
    assert_int_equal(try_image(machine_image_at(0x1000, MIB(2)), sizeof(image), "overlaps"), ERR_INVALID);
    image.note.entry = MIB(1) + 4096;
    assert_int_equal(try_image(image, sizeof(image), "outside its segments"), ERR_INVALID);
    image.header.phnum = 1; /* without the note */
    assert_int_equal(try_image(image, sizeof(image), "no PVH entry"), ERR_INVALID);
}

static void images_that_fit_exactly(void **state)
{
    static const struct {
        u64 paddr, memory;
    } fits[] = {{MIB(1), MIB(3)}, {MIB(4) - 64, 64}, {0x9f000 - 64, 64}, {0, 0x9f000}};
    for (u32 i = 0; i < ARRAY_SIZE(fits); i++) {
        const char *why = "";
        struct machine_image image = machine_image_at(fits[i].paddr, fits[i].memory);
        machine_make(MIB(4));
        assert_int_equal(platform_create(&machine.vm, &image, sizeof(image), &why), OK);
        assert_int_equal(machine.ram[fits[i].paddr + 63], 64);
        free(machine.ram);
    }
}

/* Each shorter file is refused, at the heap's end so that the sanitizer sees a read beyond. */
static void truncated_images(void **state)
{
    struct machine_image image = machine_image_at(MIB(1), 4096);
    for (u64 size = 0; size < sizeof(image); size++) {
        const char *why = "";
        u8 *copy = malloc(size ? size : 1);
        memcpy(copy, &image, size);
        machine_make(MIB(4));
        assert_int_not_equal(platform_create(&machine.vm, copy, size, &why), OK);
        assert_true(why[0]);
        free(machine.ram);
        free(copy);
    }
}

static void memory_sizes(void **state)
{
    static const u64 sizes[] = {0, 4096, MIB(1), MIB(2) - 4096};
    struct machine_image image = machine_image_at(MIB(1), 4096);
    for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
        const char *why = "";
        machine_make(MIB(4));
        machine.vm.ram_size = sizes[i];
        assert_int_equal(platform_create(&machine.vm, &image, sizeof(image), &why), ERR_RANGE);
        assert_non_null(strstr(why, "3 GiB"));
        machine.vm.ram_size = GIB(3) + MIB(2); /* refused before it is touched */
        assert_int_equal(platform_create(&machine.vm, &image, sizeof(image), &why), ERR_RANGE);
        free(machine.ram);
    }
}

/* ---- restart ---- */

static void restart_waits_for_requests(void **state)
{
    struct vcpu *vcpu = &machine.vm.vcpu;
    machine.in_flight = 2;
    machine.ram[0x5000] = 0x77;
    machine.ram[MACHINE_RAM - 1] = 0x77;
    machine.ram[MIB(1)] = 0x77;
    ioapic_write(0x18, 0x44);
    vcpu->regs.rax = 5;
    vcpu->regs.rbx = 5;
    machine.entry = 0;
    out(PLATFORM_RESET_PORT, 1, 2); /* not the value */
    assert_int_equal(machine.stops, 0);
    out(PLATFORM_RESET_PORT, 1, 1);
    assert_int_equal(vcpu->state, VCPU_STOPPED);
    assert_int_equal(machine.relay_resets, 2);
    out(PLATFORM_RESET_PORT, 1, 1); /* again: nothing more */
    assert_int_equal(machine.relay_resets, 2);
    for (u32 i = 0; i < 10; i++)
        platform_tick(&machine.vm);
    assert_int_equal(machine.ram[0x5000], 0x77); /* still the old guest's memory */
    assert_int_equal(machine.entry, 0);
    platform_message(&machine.vm, 0xfee00000, 0x41); /* a device's late message is lost */
    machine.in_flight = 0;
    for (u32 i = 0; i < MACHINE_RAM / MIB(2) - 1; i++)
        platform_tick(&machine.vm);
    assert_int_equal(vcpu->state, VCPU_STOPPED); /* the last step is missing */
    platform_tick(&machine.vm);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
    assert_int_equal(machine.entry, MIB(1) + 16);
    assert_int_equal(vcpu->regs.rax, 0);
    assert_int_equal(vcpu->regs.rbx, PVH_AREA);
    assert_int_equal(machine.ram[0x5000], 0);
    assert_int_equal(machine.ram[MACHINE_RAM - 1], 0);
    assert_int_equal(machine.ram[MIB(1)], 1);
    assert_int_equal(ioapic_read(0x18), 0x10000);
    assert_int_equal(rdmsr(0x80f), 0xff);
    assert_int_equal(platform_pending_vector(&machine.vm), -1);
    machine.entry = 0;
    platform_tick(&machine.vm); /* done */
    assert_int_equal(machine.entry, 0);
    assert_null(machine.failed);
    out(PLATFORM_RESET_PORT, 1, 1); /* and it can do so again */
    for (u32 i = 0; i < MACHINE_RAM / MIB(2); i++)
        platform_tick(&machine.vm);
    assert_int_equal(machine.entry, MIB(1) + 16);
    machine.vm.failed = "triple fault"; /* an operator may want it back */
    platform_restart(&machine.vm);
    assert_null(machine.vm.failed);
}

/* ---- everything at random ---- */

static void random_sweep(void **state)
{
    static const u8 widths[] = {1, 2, 4};
    struct random random = random_start("sweep");
    machine_relay[0].port = 0xc000;
    machine_relay[1].memory = 0xe0000000;
    for (u32 port = 0; port <= 0xffff; port++) {
        for (u32 w = 0; w < 3; w++) {
            u32 value = in((u16)port, widths[w]);
            assert_true(widths[w] == 4 || value >> widths[w] * 8 == 0);
            /* SLP_EN alone ends the machine, which is what it is for */
            u32 written = (u32)random_bits(&random);
            if (port != PLATFORM_SLEEP_PORT)
                out((u16)port, widths[w], written);
        }
    }
    for (u32 i = 0; i < 300000; i++) {
        static const u16 near[] = {0x3f8, 0x600, 0xcf8, 0xc000};
        u16 port = (u16)(near[random_below(&random, 4)] + random_below(&random, 16));
        u64 value = random_bits(&random), address = PLATFORM_IOAPIC_BASE + random_below(&random, 0x20);
        bool write = random_one_in(&random, 2);
        u32 small = (u32)value;
        switch (random_below(&random, 6)) {
        case 0:
            if (port != PLATFORM_SLEEP_PORT)
                platform_port(&machine.vm, port, (u8)random_below(&random, 9), write, &small);
            break;
        case 1:
            (void)platform_memory(&machine.vm, GPA(address), (u8)(1u << random_below(&random, 4)), write, &value);
            break;
        case 2:
            (void)platform_msr(&machine.vm, 0x800 + (u32)random_below(&random, 0x40), write, &value);
            break;
        case 3:
            ioapic_set_pin(&machine.vm, (u32)random_below(&random, 24), write);
            (void)platform_console_input(&machine.vm, (u8)value);
            break;
        case 4:
            platform_message(&machine.vm, 0xfee00000 | (value & 0xfffff), (u32)random_u64(&random));
            platform_timer_expire(&machine.vm, tsc_now());
            break;
        default:
            (void)take_interrupt();
            platform_after_exit(&machine.vm);
            platform_tick(&machine.vm);
            fake_time_us += random_below(&random, 100);
        }
    }
    /* Whatever that was, a restart brings the guest back. */
    for (u32 i = 0; i < 10; i++)
        platform_tick(&machine.vm);
    out(PLATFORM_RESET_PORT, 1, 1);
    for (u32 i = 0; i < 10; i++)
        platform_tick(&machine.vm);
    assert_int_equal(machine.vm.vcpu.state, VCPU_RUNNABLE);
    assert_int_equal(in(0x3fd, 1), 0x60);
    assert_int_equal(rdmsr(0x80a), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(configuration_address),
        TEST(host_bridge),
        TEST(what_is_not_there_reads_ones),
        TEST(relays_devices),
        TEST(bars_are_routed),
        TEST(power_off),
        TEST(start_info),
        cmocka_unit_test(images_that_do_not_fit),
        cmocka_unit_test(images_that_fit_exactly),
        cmocka_unit_test(truncated_images),
        cmocka_unit_test(memory_sizes),
        TEST(restart_waits_for_requests),
        TEST(random_sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
