/* IOAPIC: register file, masking, edges. UART: register semantics, interrupt identification,
 * both together. */
/*
 * SOURCES: hv/platform/acpi.c hv/platform/clock.c hv/platform/cpuid.c hv/platform/ioapic.c hv/platform/lapic.c
 * hv/platform/msr.c hv/platform/pci_bus.c hv/platform/platform.c hv/platform/pv_eoi.c
 * hv/platform/pvh.c hv/platform/uart.c
 */
/* INCLUDE_FAKES */
#include "tests/unit/platform_machine.h"

#define BASE 0x3f8u
#define IER (BASE + 1)
#define IIR (BASE + 2)
#define FCR (BASE + 2)
#define LCR (BASE + 3)
#define LSR (BASE + 5)
#define MSR (BASE + 6)
#define SCRATCH (BASE + 7)
#define EOI 0x80bu

static void entry(u32 pin, u32 low, u32 high)
{
    ioapic_write(0x11 + 2 * pin, high);
    ioapic_write(0x10 + 2 * pin, low);
}

static void ioapic_registers(void **state)
{
    assert_int_equal(ioapic_read(1), 0x170011);
    assert_int_equal(ioapic_read(0x10), 0x10000);
    assert_int_equal(ioapic_read(0x3e), 0x10000); /* the last pin */
    assert_int_equal(ioapic_read(0x40), 0);
    ioapic_write(0, 0xffffffff);
    assert_int_equal(ioapic_read(0), 0); /* its ID */
    ioapic_write(1, 0);
    assert_int_equal(ioapic_read(1), 0x170011);
    for (u32 pin = 0; pin < 24; pin++) {
        entry(pin, 0xffffffff, 0xffffffff);
        assert_int_equal(ioapic_read(0x10 + 2 * pin), 0x12fff); /* not status, remote IRR, trigger mode */
        assert_int_equal(ioapic_read(0x11 + 2 * pin), 0xff000000);
    }
}

static void ioapic_ignores_other_accesses(void **state)
{
    static const u8 widths[] = {1, 2, 8};
    u64 value = 0x12;
    ioapic_write(0x10, 0x10031);
    for (u32 i = 0; i < ARRAY_SIZE(widths); i++) {
        for (u32 offset = 0; offset < 0x1000; offset += 8) {
            value = 0x77;
            assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE + offset), widths[i], true, &value));
            assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE + offset), widths[i], false, &value));
            assert_int_equal(value, 0);
        }
    }
    assert_int_equal(ioapic_read(0x10), 0x10031);
    assert_false(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE + 0x1000), 4, false, &value));
    assert_false(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE - 4), 4, false, &value));
    assert_false(platform_memory(&machine.vm, GPA(PLATFORM_LAPIC_BASE + 0x20), 4, false, &value)); /* x2APIC mode */
}

static void edge_pin(void **state)
{
    entry(5, 0x10045, 0);
    ioapic_set_pin(&machine.vm, 5, true); /* masked: lost */
    entry(5, 0x45, 0);
    assert_int_equal(take_interrupt(), -1);
    ioapic_set_pin(&machine.vm, 5, true); /* no edge */
    assert_int_equal(take_interrupt(), -1);
    ioapic_set_pin(&machine.vm, 5, false);
    ioapic_set_pin(&machine.vm, 5, true);
    assert_int_equal(take_interrupt(), 0x45);
    assert_true(wrmsr(EOI, 0));
    assert_int_equal(take_interrupt(), -1);
    assert_int_equal(ioapic_read(0x1a), 0x45);
}

/* A guest that asks for level all the same gets each edge, and owes no end to the IOAPIC. */
static void level_entries_are_edges(void **state)
{
    entry(6, 0x8046, 0);
    for (u32 i = 0; i < 3; i++) {
        ioapic_set_pin(&machine.vm, 6, true);
        assert_int_equal(take_interrupt(), 0x46);
        assert_true(wrmsr(EOI, 0));
        assert_int_equal(take_interrupt(), -1);
        ioapic_set_pin(&machine.vm, 6, false);
    }
    assert_int_equal(ioapic_read(0x1c), 0x46);
}

static void only_fixed_messages_to_this_cpu(void **state)
{
    static const struct {
        u32 low, high;
        bool arrives;
    } cases[] = {
        {0x47, 0, true},
        {0x47, 0x01000000, false},
        {0x47, 0xff000000, true},
        {0x847, 0x01000000, true},
        {0x847, 0x02000000, false},
        {0x147, 0, true},
        {0x247, 0, false},
        {0x447, 0, false},
        {0x547, 0, false},
        {0x747, 0, false},
        {0x5, 0, false},
    };
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        entry(23, cases[i].low, cases[i].high);
        ioapic_set_pin(&machine.vm, 23, true);
        ioapic_set_pin(&machine.vm, 23, false);
        assert_int_equal(take_interrupt(), cases[i].arrives ? 0x47 : -1);
        assert_true(wrmsr(EOI, 0));
    }
}

static void uart_start_state(void **state)
{
    assert_int_equal(in(LSR, 1), 0x60);
    assert_int_equal(in(IIR, 1), 0x01);
    assert_int_equal(in(MSR, 1), 0xb0);
    assert_int_equal(in(BASE, 1), 0);
    out(SCRATCH, 1, 0xa7);
    assert_int_equal(in(SCRATCH, 1), 0xa7);
    out(LSR, 1, 0xff); /* read-only */
    out(MSR, 1, 0xff);
    assert_int_equal(in(LSR, 1), 0x60);
    assert_int_equal(in(MSR, 1), 0xb0);
    out(IER, 1, 0xff);
    assert_int_equal(in(IER, 1), 0x0f);
}

static void uart_divisor_latch(void **state)
{
    out(IER, 1, 1);
    out(LCR, 1, 0x83);
    out(BASE, 1, 0x0c);
    out(IER, 1, 0x34);
    assert_int_equal(in(BASE, 1), 0x0c);
    assert_int_equal(in(IER, 1), 0x34);
    out(LCR, 1, 3);
    assert_int_equal(in(IER, 1), 1);
    assert_int_equal(machine.output_length, 0);
}

static void uart_output(void **state)
{
    const char *text = "hello\n";
    for (const char *c = text; *c; c++)
        out(BASE, 1, (u8)*c);
    assert_int_equal(machine.output_length, 6);
    assert_memory_equal(machine.output, text, 6);
    out(BASE, 2, 0x4141); /* byte accesses only */
    out(BASE, 4, 0x41414141);
    assert_int_equal(machine.output_length, 6);
    assert_int_equal(in(BASE, 2), 0xffff);
    assert_int_equal(in(BASE, 4), 0xffffffff);
    struct platform_stats stats = platform_stats(&machine.vm);
    assert_int_equal(stats.console_out, 6);
}

static void uart_fifo(void **state)
{
    assert_true(platform_console_input(&machine.vm, 'a'));
    assert_int_equal(in(LSR, 1), 0x61);
    assert_int_equal(in(BASE, 1), 'a');
    assert_int_equal(in(LSR, 1), 0x60);
    assert_int_equal(in(BASE, 1), 0); /* empty */
    for (u32 round = 0; round < 3; round++) {
        for (u32 i = 0; i < 16; i++)
            assert_true(platform_console_input(&machine.vm, (u8)(round + i)));
        assert_false(platform_console_input(&machine.vm, 16));
        for (u32 i = 0; i < 16; i++)
            assert_int_equal(in(BASE, 1), round + i);
        assert_true(platform_console_input(&machine.vm, 1));
        assert_int_equal(in(BASE, 1), 1);
    }
    assert_true(platform_console_input(&machine.vm, 1));
    out(FCR, 1, 0x83); /* clears the receiver */
    assert_int_equal(in(LSR, 1), 0x60);
    assert_true(platform_console_input(&machine.vm, 7));
    assert_int_equal(in(BASE, 1), 7);
}

static void uart_identification_by_priority(void **state)
{
    out(FCR, 1, 0x41);
    out(IER, 1, 2);
    assert_int_equal(in(IIR, 1), 0xc2); /* empty, and read as the source: gone */
    assert_int_equal(in(IIR, 1), 0xc1);
    out(BASE, 1, 'x');
    assert_int_equal(in(IIR, 1), 0xc2);
    out(BASE, 1, 'x');
    out(IER, 1, 3);
    assert_true(platform_console_input(&machine.vm, 'a'));
    assert_int_equal(in(IIR, 1), 0xc4); /* from the first byte on */
    assert_int_equal(in(IIR, 1), 0xc4); /* until it is read */
    assert_int_equal(in(BASE, 1), 'a');
    assert_int_equal(in(IIR, 1), 0xc2); /* it waited behind the other */
    assert_int_equal(in(IIR, 1), 0xc1);
    out(FCR, 1, 0);
    assert_true(platform_console_input(&machine.vm, 'a'));
    assert_int_equal(in(IIR, 1), 0x04);
}

static void uart_interrupts_through_the_ioapic(void **state)
{
    entry(4, 0x44, 0);
    out(FCR, 1, 1);
    out(IER, 1, 1);
    assert_true(platform_console_input(&machine.vm, 'a'));
    assert_int_equal(take_interrupt(), 0x44);
    assert_int_equal(in(BASE, 1), 'a');
    assert_true(wrmsr(EOI, 0));
    assert_true(platform_console_input(&machine.vm, 'b'));
    assert_int_equal(take_interrupt(), 0x44);
    assert_int_equal(in(BASE, 1), 'b');
    assert_true(wrmsr(EOI, 0));
    /* Every byte written gives a transmitter edge, also when the last one was not identified. */
    out(IER, 1, 2);
    assert_int_equal(take_interrupt(), 0x44);
    assert_true(wrmsr(EOI, 0));
    for (u32 i = 0; i < 3; i++) {
        out(BASE, 1, 'x');
        assert_int_equal(take_interrupt(), 0x44);
        assert_true(wrmsr(EOI, 0));
    }
    assert_int_equal(in(IIR, 1), 0xc2);
    assert_int_equal(take_interrupt(), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ioapic_registers),
        TEST(ioapic_ignores_other_accesses),
        TEST(edge_pin),
        TEST(level_entries_are_edges),
        TEST(only_fixed_messages_to_this_cpu),
        TEST(uart_start_state),
        TEST(uart_divisor_latch),
        TEST(uart_output),
        TEST(uart_fifo),
        TEST(uart_identification_by_priority),
        TEST(uart_interrupts_through_the_ioapic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
