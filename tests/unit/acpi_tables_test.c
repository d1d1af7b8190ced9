/* The reader of ACPI tables: on those that the loader makes, and on ones that lie. */
/* SOURCES: hv/arch/x86/boot/acpi_tables.c firmware/uefi/acpi_build.c */
/* INCLUDE_FAKES */
#include "firmware/uefi/acpi_build.h"
#include "hv/arch/x86/boot/acpi_tables.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include <string.h>

#define BASE MIB(1)
#define FADT_AT 128u /* acpi_build.c */
#define MADT_AT 384u
#define ENTRIES (MADT_AT + 44)

static const struct acpi_machine machine = {
    .cpu_count = 3, .cpu_apic_id = {0, 2, 4}, .pm_timer_port = 0xb008, .ioapic_address = 0xfec00000, .ioapic_id = 3};
static struct acpi_info info;
static const char *why;
static u8 *memory;

static int setup(void **state)
{
    fake_memory_create(BASE, MIB(2)); /* a table may claim to be 1 MiB long */
    memory = hpa_to_ptr(HPA(BASE));
    memset(memory, 0, MIB(2));
    acpi_build(memory, BASE, &machine);
    return 0;
}

static int teardown(void **state)
{
    fake_memory_destroy();
    return 0;
}

static void made_tables_are_read(void **state)
{
    assert_int_equal(acpi_read(BASE, &info, &why), OK);
    assert_int_equal(info.cpu_count, 3);
    assert_int_equal(info.cpu_apic_id[1], 2);
    assert_int_equal(info.cpu_apic_id[2], 4);
    assert_int_equal(info.pm_timer_port, 0xb008);
    assert_int_equal(info.ioapic_count, 1);
    assert_int_equal(info.ioapic[0].address, 0xfec00000);
    assert_int_equal(info.ioapic[0].gsi, 0);
    assert_int_equal(info.ioapic[0].id, 3);
    assert_int_equal(info.isa[0].gsi, 2);
    assert_int_equal(info.isa[0].flags, 0);
    assert_int_equal(info.isa[14].gsi, 14);
    assert_int_equal(info.ecam, 0);
    assert_int_equal(info.ecam_last_bus, 0xff);
    assert_null(info.dmar);
}

static void made_tables_of_a_poor_machine(void **state)
{
    const struct acpi_machine poor = {.cpu_count = 1};

    memset(memory, 0, ACPI_BUILD_SIZE);
    acpi_build(memory, BASE, &poor);
    assert_int_equal(acpi_read(BASE, &info, &why), OK);
    assert_int_equal(info.cpu_count, 1);
    assert_int_equal(info.pm_timer_port, 0); /* the hypervisor names it and stops */
    assert_int_equal(info.ioapic_count, 0);
}

static void made_tables_of_many_cpus(void **state)
{
    struct acpi_machine many = {.cpu_count = ACPI_BUILD_CPUS, .ioapic_address = 0xfec00000};

    for (u32 i = 0; i < ACPI_BUILD_CPUS; i++)
        many.cpu_apic_id[i] = (u8)i;
    memset(memory, 0, PAGE_SIZE * 2);
    acpi_build(memory, BASE, &many);
    assert_int_equal(memory[ACPI_BUILD_SIZE], 0);
    assert_int_equal(acpi_read(BASE, &info, &why), OK);
    assert_int_equal(info.cpu_count, CPU_MAX);
    assert_int_equal(info.ioapic_count, 1); /* what comes behind the CPUs that we leave out counts, too */
}

static void damage_is_named(void **state)
{
    assert_int_equal(acpi_read(BASE + 64, &info, &why), ERR_NOT_FOUND);
    memory[MADT_AT + 50] ^= 1;
    assert_int_equal(acpi_read(BASE, &info, &why), ERR_NOT_FOUND);
    assert_string_equal(why, "MADT");
    memory[64 + 40] ^= 1;
    assert_int_equal(acpi_read(BASE, &info, &why), ERR_FORMAT);
    assert_string_equal(why, "XSDT");
    memory[20] ^= 1; /* behind the first 20 bytes: the old checksum holds */
    memory[10] ^= 1;
    assert_int_equal(acpi_read(BASE, &info, &why), ERR_FORMAT);
    assert_string_equal(why, "RSDP");
}

/* MADT with these entries behind its header. */
static status_t read_entries(const u8 *entries, u32 size)
{
    u32 length = 44 + size;
    u8 sum = 0;

    memcpy(memory + ENTRIES, entries, size);
    memcpy(memory + MADT_AT + 4, &length, 4);
    memory[MADT_AT + 9] = 0;
    for (u32 i = 0; i < length; i++)
        sum = (u8)(sum + memory[MADT_AT + i]);
    memory[MADT_AT + 9] = (u8)-sum;
    return acpi_read(BASE, &info, &why);
}

static void overrides(void **state)
{
    static const u8 entries[] = {0, 8,  0, 1,  1,  0,  0,    0,             /* a CPU */
                                 2, 10, 0, 10, 11, 0,  0,    0,    0x0d, 0, /* IRQ 10 at 11, high, level */
                                 2, 10, 0, 9,  20, 0,  0,    0,    0x07, 0, /* IRQ 9 at 20, low, edge */
                                 2, 10, 0, 16, 99, 0,  0,    0,    0x0f, 0, /* no ISA interrupt */
                                 1, 12, 7, 0,  0,  0,  0xc0, 0xfe, 24,   0, 0,
                                 0, 2,  9, 0,  3,  99, 0,    0,    0,    0 /* too short */};

    assert_int_equal(read_entries(entries, sizeof(entries)), OK);
    assert_int_equal(info.isa[10].gsi, 11);
    assert_int_equal(info.isa[10].flags, 0x0d);
    assert_int_equal(info.isa[9].gsi, 20);
    assert_int_equal(info.isa[9].flags, 0x07);
    assert_int_equal(info.isa[3].gsi, 3);
    assert_int_equal(info.ioapic[0].gsi, 24);
    assert_int_equal(info.ioapic[0].id, 7);
}

static void random_entries(void **state)
{
    struct random random = random_start("random_entries");
    u8 entries[256];

    for (u32 round = 0; round < 20000; round++) {
        for (u32 i = 0; i < sizeof(entries); i++)
            entries[i] = (u8)(random_u64(&random) % (round % 2 ? 16 : 256));
        (void)read_entries(entries, (u32)(random_u64(&random) % sizeof(entries)));
        assert_true(info.cpu_count <= CPU_MAX && info.ioapic_count <= ACPI_IOAPICS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(made_tables_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(made_tables_of_a_poor_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(made_tables_of_many_cpus, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(overrides, setup, teardown),
        cmocka_unit_test_setup_teardown(random_entries, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
