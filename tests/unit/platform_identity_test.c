/* What the guest reads about its machine: ACPI tables parsed back, CPUID filter, MSRs, kvm-clock. */
/*
 * SOURCES: hv/platform/acpi.c hv/platform/clock.c hv/platform/cpuid.c hv/platform/ioapic.c hv/platform/lapic.c
 * hv/platform/msr.c hv/platform/pci_bus.c hv/platform/platform.c hv/platform/pv_eoi.c
 * hv/platform/pvh.c hv/platform/uart.c
 */
/* INCLUDE_FAKES */
#include "shared/lib/checked.h"
#include "tests/unit/platform_machine.h"

static u64 at(u64 gpa, u32 width)
{
    u64 value = 0;
    assert_int_equal(vm_read(&machine.vm, GPA(gpa), &value, width), OK);
    return value;
}
static u8 sum(u64 gpa, u64 length)
{
    u8 total = 0;
    for (u64 i = 0; i < length; i++)
        total += (u8)at(gpa + i, 1);
    return total;
}
static bool signed_as(u64 gpa, const char *signature)
{
    return memcmp(machine.ram + gpa, signature, strlen(signature)) == 0;
}
/* A table as a guest checks it: inside the reserved area, its length too, its bytes adding up to zero. */
static u64 check_table(u64 gpa, const char *signature)
{
    assert_true(range_inside(gpa, 36, ACPI_AREA, LOW_RESERVED_END - ACPI_AREA));
    u64 length = at(gpa + 4, 4);
    assert_true(length >= 36 && range_inside(gpa, length, ACPI_AREA, LOW_RESERVED_END - ACPI_AREA));
    assert_int_equal(sum(gpa, length), 0);
    assert_true(signed_as(gpa, signature));
    assert_memory_equal(machine.ram + gpa + 10, "BLKHD BULKHEAD", 14);
    return length;
}

/* From the start info to every table, as a guest walks. */
static u64 find_table(const char *signature)
{
    u64 rsdp = at(machine.vm.vcpu.regs.rbx + 32, 8);
    assert_true(signed_as(rsdp, "RSD PTR "));
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    assert_int_equal(at(rsdp + 15, 1), 2);
    assert_int_equal(at(rsdp + 20, 4), 36);
    u64 xsdt = at(rsdp + 24, 8);
    u64 length = check_table(xsdt, "XSDT");
    assert_int_equal((length - 36) % 8, 0);
    for (u64 entry = xsdt + 36; entry < xsdt + length; entry += 8) {
        if (signed_as(at(entry, 8), signature))
            return at(entry, 8);
    }
    fail_msg("no table %s", signature);
    return 0;
}

static void fadt_is_hardware_reduced(void **state)
{
    u64 fadt = find_table("FACP");
    assert_int_equal(check_table(fadt, "FACP"), 276);
    assert_int_equal(at(fadt + 8, 1), 6);
    u32 flags = (u32)at(fadt + 112, 4);
    assert_int_equal(flags, 1 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20);
    assert_int_equal(at(fadt + 109, 2), 1 << 2 | 1 << 5);
    assert_int_equal(at(fadt + 116, 4), 0x01000801); /* generic addresses: I/O, 8 bits, byte access */
    assert_int_equal(at(fadt + 120, 8), PLATFORM_RESET_PORT);
    assert_int_equal(at(fadt + 128, 1), 1);
    assert_int_equal(at(fadt + 244, 4), 0x01000801);
    assert_int_equal(at(fadt + 248, 8), PLATFORM_SLEEP_PORT);
    assert_int_equal(at(fadt + 260, 8), PLATFORM_SLEEP_STATUS_PORT);
    assert_memory_equal(machine.ram + fadt + 268, "BULKHEAD", 8);
}

static void madt_lists_one_cpu_and_one_ioapic(void **state)
{
    u64 madt = find_table("APIC");
    u64 length = check_table(madt, "APIC");
    u32 cpus = 0, ioapics = 0;
    assert_int_equal(at(madt + 36, 4), PLATFORM_LAPIC_BASE);
    assert_int_equal(at(madt + 40, 4), 0);
    for (u64 entry = madt + 44; entry < madt + length; entry += at(entry + 1, 1)) {
        assert_true(at(entry + 1, 1) >= 2 && entry + at(entry + 1, 1) <= madt + length);
        if (at(entry, 1) == 0) {
            cpus++;
            assert_int_equal(at(entry + 3, 1), 0);
            assert_int_equal(at(entry + 4, 4), 1);
        } else {
            ioapics++;
            assert_int_equal(at(entry, 1), 1);
            assert_int_equal(at(entry + 4, 4), PLATFORM_IOAPIC_BASE);
            assert_int_equal(at(entry + 8, 4), 0);
        }
    }
    assert_int_equal(cpus, 1);
    assert_int_equal(ioapics, 1);
}

/* A package length (ACPI 6.4 20.2.4): returns the end of what it covers, moves *gpa behind it. */
static u64 package_end(u64 *gpa)
{
    u64 start = *gpa, lead = at(start, 1), length = lead & 0x3f;
    u32 more = (u32)(lead >> 6);
    if (more)
        length = lead & 0xf;
    for (u32 i = 0; i < more; i++)
        length |= at(start + 1 + i, 1) << (4 + 8 * i);
    *gpa = start + 1 + more;
    return start + length;
}

/* One resource template: each descriptor's length leads to the next, the end tag to the buffer's end. */
static void check_resources(u64 gpa, u64 end)
{
    while (at(gpa, 1) != 0x79) {
        u64 tag = at(gpa, 1);
        gpa += tag & 0x80 ? 3 + at(gpa + 1, 2) : 1 + (tag & 7);
        assert_true(gpa < end);
        if (tag == 0x87) { /* memory window: minimum, maximum, length */
            assert_int_equal(at(gpa - 16, 4), PLATFORM_MMIO_BASE);
            assert_int_equal(at(gpa - 12, 4), 0xfebfffff);
            assert_int_equal(at(gpa - 4, 4), 0xfec00000 - PLATFORM_MMIO_BASE);
        }
    }
    assert_int_equal(gpa + 2, end);
}

/* Names in one scope: all that the DSDT has is NameOp with an integer, a package or a buffer, and Device. */
static u32 walk_names(u64 gpa, u64 end)
{
    u32 objects = 0;
    while (gpa < end) {
        objects++;
        if (at(gpa, 2) == 0x825b) { /* Device with a dual name path */
            gpa += 2;
            u64 device_end = package_end(&gpa);
            assert_true(device_end <= end);
            assert_int_equal(at(gpa, 1), 0x2e);
            objects += walk_names(gpa + 9, device_end);
            gpa = device_end;
            continue;
        }
        assert_int_equal(at(gpa, 1), 0x08);
        gpa += 5;
        u64 op = at(gpa++, 1);
        if (op == 0x0c) {
            gpa += 4;
        } else if (op == 0x11 || op == 0x12) {
            u64 value_end = package_end(&gpa);
            if (op == 0x11) {
                assert_int_equal(at(gpa, 1), 0x0a);
                assert_int_equal(at(gpa + 1, 1), value_end - gpa - 2);
                check_resources(gpa + 2, value_end);
            }
            gpa = value_end;
        } else {
            assert_int_equal(op, 0);
        }
    }
    assert_int_equal(gpa, end);
    return objects;
}

static void dsdt_parses_to_its_end(void **state)
{
    u64 fadt = find_table("FACP");
    u64 dsdt = at(fadt + 140, 8);
    u64 length = check_table(dsdt, "DSDT");
    assert_int_equal(at(dsdt + 8, 1), 2);
    assert_int_equal(walk_names(dsdt + 36, dsdt + length), 9); /* _S5, two devices with three names each */
    assert_memory_equal(machine.ram + dsdt + 36, "\x08_S5_\x12\x05\x02\x0a\x05", 10);
    const char *path = getenv("BULKHEAD_DSDT"); /* for a look with iasl -d */
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (file) {
        assert_int_equal(fwrite(machine.ram + dsdt, length, 1, file), 1);
        fclose(file);
    }
}

/* ---- CPUID ---- */

static u32 filtered[4];
static const u32 *filter(u32 leaf, u32 subleaf, u32 host)
{
    for (u32 i = 0; i < 4; i++)
        filtered[i] = host;
    cpuid_filter(leaf, subleaf, filtered);
    return filtered;
}

static void features_that_never_pass(void **state)
{
    static const struct {
        u32 leaf, reg, bit;
    } hidden[] = {
        {1, 2, 3},           {1, 2, 5},           {1, 2, 12},          {1, 2, 13},
        {1, 2, 15},          {1, 2, 17},          {1, 2, 26}, /* MONITOR VMX FMA CX16 PDCM PCID XSAVE */
        {1, 2, 27},          {1, 2, 28},          {1, 2, 29},          {1, 3, 7},
        {1, 3, 14},          {1, 3, 21},          {1, 3, 22},          {1, 3, 28},
        {7, 1, 1},           {7, 1, 4},           {7, 1, 5},           {7, 1, 10},
        {7, 1, 11},          {7, 1, 14},          {7, 1, 16}, /* TSC_ADJUST HLE AVX2 INVPCID .. */
        {7, 2, 3},           {7, 2, 16},          {7, 2, 22},          {7, 3, 26},
        {7, 3, 27},          {7, 3, 29},          {7, 3, 31},          {0x80000001, 2, 1},
        {0x80000001, 2, 2},  {0x80000001, 2, 10}, {0x80000001, 2, 11}, {0x80000001, 2, 22},
        {0x80000001, 2, 29}, {0x80000001, 3, 27}, {0x80000001, 3, 31}, {6, 0, 0},
        {6, 2, 0},
    };
    for (u32 i = 0; i < ARRAY_SIZE(hidden); i++)
        assert_int_equal(filter(hidden[i].leaf, 0, ~0u)[hidden[i].reg] >> hidden[i].bit & 1, 0);
}

static void features_that_always_show(void **state)
{
    const u32 *leaf = filter(1, 0, 0);
    assert_int_equal(leaf[2], 1u << 21 | 1u << 24 | 1u << 31); /* x2APIC, TSC-deadline, hypervisor */
    assert_int_equal(leaf[3], 1u << 9 | 1u << 12);
    assert_int_equal(leaf[1], 1u << 16);
    assert_int_equal(filter(6, 0, 0)[0], 4); /* ARAT */
    assert_int_equal(filter(0x80000007, 0, 0)[3], 0x100);
    assert_int_equal(filter(0, 0, ~0u)[0], 7);
    assert_int_equal(filter(0x80000000, 0, ~0u)[0], 0x80000008);
}

static void features_that_pass_as_the_host_has_them(void **state)
{
    /* Linux demands these: FPU PSE MSR PAE CX8 PGE CMOV FXSR SSE SSE2, SYSCALL NX LM */
    u32 needed = 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 24 | 1 << 25 | 1 << 26;
    assert_int_equal(filter(1, 0, ~0u)[3] & needed, needed);
    assert_int_equal(filter(1, 0, 0)[3] & needed, 0);
    assert_int_equal(filter(0x80000001, 0, ~0u)[3] & 0x20100800u, 0x20100800u);
    assert_int_equal(filter(0x80000001, 0, 0)[3], 0);
    assert_int_equal(filter(0x80000003, 0, 0x41424344)[2], 0x41424344); /* brand string */
    assert_int_equal(filter(0, 0, 0x41424344)[1], 0x41424344);
    assert_int_equal(filter(7, 0, 1)[1], 1);
}

static void one_cpu_in_the_topology(void **state)
{
    assert_int_equal(filter(4, 1, ~0u)[0] >> 14, 0);
    assert_int_equal(filter(1, 0, ~0u)[1] >> 16, 1);
    assert_int_equal(filter(0x80000008, 0, ~0u)[2], 0);
}

static void kvm_facade(void **state)
{
    const u32 *leaf = filter(0x40000000, 0, 7);
    assert_int_equal(leaf[0], 0x40000010);
    assert_memory_equal(&leaf[1], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(filter(0x40000001, 0, 7)[0], 1u << 1 | 1u << 3 | 1u << 6 | 1u << 24);
    assert_int_equal(filter(0x40000010, 0, 7)[0], (u32)tsc_khz);
    assert_int_equal(filter(0x40000002, 0, 7)[0], 0);
}

static void unknown_leaves_are_zero(void **state)
{
    static const u32 known[] = {0, 1, 2, 4, 6, 7};
    for (u32 leaf = 0; leaf < 0x100; leaf++) {
        bool expected = false;
        for (u32 i = 0; i < ARRAY_SIZE(known); i++)
            expected |= known[i] == leaf;
        const u32 *out = filter(leaf, 0, ~0u);
        assert_int_equal((out[0] | out[1] | out[2] | out[3]) != 0, expected);
        out = filter(leaf + 0x80000009, 0, ~0u);
        assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
    }
    const u32 *out = filter(7, 1, ~0u);
    assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
    /* and with this machine's real values */
    for (u32 leaf = 0x80000009; leaf < 0x80000040; leaf++) {
        platform_cpuid(leaf, 0, filtered);
        assert_int_equal(filtered[0] | filtered[1] | filtered[2] | filtered[3], 0);
    }
    platform_cpuid(1, 0, filtered);
    assert_int_equal(filtered[2] >> 31, 1);
    assert_int_equal(filtered[2] & (1u << 5 | 1u << 26), 0);
}

/* ---- MSRs ---- */

static void constants_and_refusals(void **state)
{
    assert_int_equal(rdmsr(0xfe), 0);
    assert_false(wrmsr(0xfe, 0));
    assert_int_equal(rdmsr(0x2ff), 0x806);
    assert_true(wrmsr(0x2ff, 0));
    assert_int_equal(rdmsr(0x2ff), 0x806); /* dropped */
    assert_int_equal(rdmsr(0x3a), 1);
    assert_int_equal(rdmsr(0x1a0), 1);
    assert_true(rdmsr(0x8b) == 0x100000000ull);
    assert_true(rdmsr(0x10) == tsc_now());
    assert_false(wrmsr(0x10, 0));
    assert_false(rdmsr_ok(0x12));
    assert_false(rdmsr_ok(0x480)); /* VMX */
    assert_false(rdmsr_ok(0xc0010114));
    assert_false(rdmsr_ok(0x4b564d02));
    assert_false(rdmsr_ok(0x4b564d03));
    assert_false(rdmsr_ok(0x900));
    assert_false(rdmsr_ok(0x840));
    assert_false(wrmsr(0x802, 0));
    assert_false(rdmsr_ok(0x80b)); /* EOI is write-only */
    assert_false(wrmsr(0x80b, 1));
    assert_false(wrmsr(0x80f, 1ull << 32));
}

/* Every index in the ranges that mean something, read and written with hostile values; then the machine still works. */
static void hostile_sweep(void **state)
{
    static const struct {
        u32 first, count;
    } ranges[] = {{0, 0x2001}, {0xc0000000, 0x200}, {0xc0010000, 0x2000}, {0x4b564d00, 0x100}, {0xffffff00, 0x100}};
    struct random random = random_start("msr");
    u32 readable = 0;
    for (u32 r = 0; r < ARRAY_SIZE(ranges); r++) {
        for (u32 i = 0; i < ranges[r].count; i++) {
            readable += rdmsr_ok(ranges[r].first + i);
            (void)wrmsr(ranges[r].first + i, 0);
            (void)wrmsr(ranges[r].first + i, ~0ull);
            for (u32 k = 0; k < 4; k++)
                (void)wrmsr(ranges[r].first + i, random_bits(&random));
            platform_timer_expire(&machine.vm, tsc_now());
            if (random_one_in(&random, 8))
                (void)take_interrupt();
            platform_after_exit(&machine.vm);
        }
    }
    /* 41 registers of the APIC (0x802 0x803 0x808 0x80a 0x80d 0x80f 0x810..0x827 0x828 0x830 0x832..0x839 0x83e), its
     * base and deadline, TSC, 13 constants */
    assert_int_equal(readable, 41 + 2 + 1 + 13);
    assert_int_equal(rdmsr(0x1b), 0xfee00d00);
    assert_true(wrmsr(0x80f, 0x1ff));
    assert_true(wrmsr(0x808, 0));
    while (rdmsr(0x80a)) /* whatever the sweep left in service */
        assert_true(wrmsr(0x80b, 0));
    while (take_interrupt() >= 0)
        assert_true(wrmsr(0x80b, 0));
    assert_true(wrmsr(0x83f, 0xf1));
    assert_int_equal(take_interrupt(), 0xf1);
}

/* ---- kvm-clock ---- */

/* pvclock as a guest computes it */
static u64 guest_ns(u64 gpa)
{
    u64 delta = tsc_now() - at(gpa + 8, 8);
    int shift = (signed char)at(gpa + 28, 1);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return at(gpa + 16, 8) + (u64)((unsigned __int128)delta * at(gpa + 24, 4) >> 32);
}

static void system_time_counts_from_the_start(void **state)
{
    static const u64 frequencies[] = {500000, 999999, 1000000, 1000001, 2000000, 2594123, 5800000};
    u64 usual = tsc_khz;
    for (u32 i = 0; i < ARRAY_SIZE(frequencies); i++) {
        tsc_khz = frequencies[i];
        fake_time_us = 1000000;
        machine.vm.platform->clock_start = tsc_now();
        fake_time_us += 7000;
        assert_true(wrmsr(0x4b564d01, 0x3000 | 1));
        assert_int_equal(at(0x3000, 4) & 1, 0);
        assert_int_equal(at(0x3000 + 29, 1), 1); /* stable */
        fake_time_us += 3600000000ull;
        u64 expected = 3600007000000ull, ns = guest_ns(0x3000);
        assert_true(ns <= expected + 10000 && ns + 10000 >= expected); /* 3 in 10^9 over an hour */
    }
    tsc_khz = usual;
}

static void clock_addresses_are_checked(void **state)
{
    assert_false(wrmsr(0x4b564d01, (MACHINE_RAM - 30) | 1));
    assert_false(wrmsr(0x4b564d01, MACHINE_RAM | 1));
    assert_false(wrmsr(0x4b564d01, ~0ull));
    assert_false(rdmsr_ok(0x4b564d01)); /* write-only */
    assert_true(wrmsr(0x4b564d01, (MACHINE_RAM - 32) | 1));
    assert_true(wrmsr(0x4b564d01, ~0ull << 1)); /* switched off: no address */
    /* The wall clock is taken, and nothing is written. */
    memset(machine.ram + 0x3000, 0x77, 12);
    assert_true(wrmsr(0x4b564d00, 0x3000));
    assert_true(wrmsr(0x4b564d00, ~0ull));
    assert_int_equal(at(0x3000, 8), 0x7777777777777777);
    assert_int_equal(rdmsr(0x4b564d00), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fadt_is_hardware_reduced),
        TEST(madt_lists_one_cpu_and_one_ioapic),
        TEST(dsdt_parses_to_its_end),
        TEST(features_that_never_pass),
        TEST(features_that_always_show),
        TEST(features_that_pass_as_the_host_has_them),
        TEST(one_cpu_in_the_topology),
        TEST(kvm_facade),
        TEST(unknown_leaves_are_zero),
        TEST(constants_and_refusals),
        TEST(hostile_sweep),
        TEST(system_time_counts_from_the_start),
        TEST(clock_addresses_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
