/* The hypercalls of a driver VM, with arguments as a hostile one gives them. */
/* SOURCES: hv/recovery/detect.c hv/recovery/detect_progress.c hv/recovery/restart.c hv/recovery/replay.c
   hv/recovery/inject.c hv/control/events.c hv/exit/hypercall.c hv/core/vm.c */
/* INCLUDE_FAKES */
#include "tests/unit/random.h"
#include "tests/unit/recovery_fakes.h"

static i64 call(u64 number, u64 a, u64 b, u64 c)
{
    struct vcpu_registers *regs = &fake_vm.vcpu.regs;

    *regs = (struct vcpu_registers){.rax = number, .rdi = a, .rsi = b, .rdx = c, .r10 = 0x10, .rbx = 0xb, .r15 = 0xf};
    struct vcpu_registers before = *regs;
    hypercall_dispatch(&fake_vm.vcpu);
    before.rax = regs->rax;
    assert_memory_equal(&before, regs, sizeof(before)); /* all other registers survive */
    return (i64)regs->rax;
}

static struct driver_events *events(void)
{
    return hpa_to_ptr(fake_driver.events_page);
}

static u8 *ram(void)
{
    return hpa_to_ptr(fake_vm.ram);
}

static const u64 bad_numbers[] = {0, 11, 12, 0xffffffff, 0x100000001, 0x8000000000000000, ~0ull};

static void unknown_numbers_are_refused(void **state)
{
    for (u32 i = 0; i < ARRAY_SIZE(bad_numbers); i++)
        assert_int_equal(call(bad_numbers[i], 0, 0, 0), -ERR_INVALID);
    assert_int_equal(fake_driver.hypercalls, ARRAY_SIZE(bad_numbers));
    assert_int_equal(fake_driver.state, DRIVER_RUNNING);
    assert_false(fake_driver.recovery.pending);
}

static void wait_returns_pending_events_at_once(void **state)
{
    events()->pending = DRIVER_EVENT_INTERRUPT;
    assert_int_equal(call(HYPERCALL_WAIT, ~0ull, 0, 0), DRIVER_EVENT_INTERRUPT);
    assert_int_equal(events()->pending, 0);
    assert_int_equal(fake_complete_calls, 1);
    assert_string_equal(fake_calls, "forward");
    fake_has_work = true;
    assert_int_equal(call(HYPERCALL_WAIT, ~0ull, 0, 0), DRIVER_EVENT_REQUEST);
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
    assert_false(fake_driver.waiting);
}

static void wait_zero_is_a_poll(void **state)
{
    assert_int_equal(call(HYPERCALL_WAIT, 0, 0, 0), 0);
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
    assert_string_equal(fake_calls, "forward");
}

/* A masked line is opened by the first `wait` after the one that told the driver, and by that one only. */
static void wait_rearms_a_line(void **state)
{
    call(HYPERCALL_WAIT, 0, 0, 0);
    assert_int_equal(fake_rearmed, 0); /* messages need no such thing */
    fake_driver.interrupt = DRIVER_INTX;
    events()->pending = DRIVER_EVENT_INTERRUPT;
    assert_int_equal(call(HYPERCALL_WAIT, 0, 0, 0), DRIVER_EVENT_INTERRUPT);
    assert_int_equal(fake_rearmed, 0);
    assert_int_equal(call(HYPERCALL_WAIT, 0, 0, 0), 0);
    assert_int_equal(fake_rearmed, 1);
    events()->pending = DRIVER_EVENT_TIMEOUT;
    assert_int_equal(call(HYPERCALL_WAIT, ~0ull, 0, 0), DRIVER_EVENT_TIMEOUT);
    assert_int_equal(fake_rearmed, 2);
    fake_complete_reports = true; /* it is about to be stopped */
    call(HYPERCALL_WAIT, 0, 0, 0);
    assert_int_equal(fake_rearmed, 2);
}

static void wait_blocks_with_kicks_armed(void **state)
{
    call(HYPERCALL_WAIT, 1500, 0, 0);
    assert_string_equal(fake_calls, "forward arm");
    assert_int_equal(fake_vm.vcpu.state, VCPU_BLOCKED);
    assert_true(fake_driver.waiting);
    assert_false(driver_wait_expired(&fake_driver, tsc_now() + tsc_from_us(1500) - 1));
    assert_true(driver_wait_expired(&fake_driver, tsc_now() + tsc_from_us(1500)));

    fake_calls[0] = '\0';
    driver_signal(&fake_driver, DRIVER_EVENT_INTERRUPT | DRIVER_EVENT_FEATURES);
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
    hypercall_wait_return(&fake_driver);
    assert_int_equal(fake_vm.vcpu.regs.rax, DRIVER_EVENT_INTERRUPT | DRIVER_EVENT_FEATURES);
    assert_int_equal(events()->pending, 0);
    assert_string_equal(fake_calls, "suppress forward");
    assert_false(fake_driver.waiting);
    assert_false(driver_wait_expired(&fake_driver, ~0ull));
}

static void wait_for_ever_never_expires(void **state)
{
    static const u64 timeouts[] = {~0ull, ~0ull - 1, 3600000001, 1ull << 63};

    for (u32 i = 0; i < ARRAY_SIZE(timeouts); i++) {
        call(HYPERCALL_WAIT, timeouts[i], 0, 0);
        assert_true(fake_driver.waiting);
        assert_false(driver_wait_expired(&fake_driver, ~0ull - 1));
        hypercall_wait_return(&fake_driver);
    }
}

static void wait_sees_what_came_while_kicks_were_off(void **state)
{
    fake_arm_finds_work = true;
    assert_int_equal(call(HYPERCALL_WAIT, ~0ull, 0, 0), DRIVER_EVENT_REQUEST);
    assert_string_equal(fake_calls, "forward arm suppress forward");
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
}

static void a_bad_completion_ends_the_wait_there(void **state)
{
    fake_complete_reports = true;
    call(HYPERCALL_WAIT, ~0ull, 0, 0);
    assert_true(fake_driver.recovery.pending);
    assert_string_equal(fake_calls, ""); /* nothing was forwarded to it any more */
    assert_false(fake_driver.waiting);
}

static void a_reported_vm_gets_nothing_done(void **state)
{
    recovery_report(&fake_driver, FAULT_OPERATOR, 0, 0, "elsewhere");
    fake_driver.state = DRIVER_STARTING;
    for (u64 number = HYPERCALL_WAIT; number <= HYPERCALL_READY; number++)
        call(number, 4, 2, 6);
    assert_string_equal(fake_calls, "");
    assert_int_equal(fake_complete_calls, 0);
    assert_false(fake_driver.waiting);
}

static const u64 bad_addresses[] = {FAKE_RAM_SIZE,        FAKE_RAM_SIZE - 1, FAKE_RAM_SIZE - 95, ~0ull,
                                    ~0ull - 50,           1ull << 63,        DRIVER_AREA,        DRIVER_WINDOW_BASE,
                                    DRIVER_STASH_ADDRESS, 1ull << 52,        0xffffffff00000000};

static void addresses_outside_ram_are_refused(void **state)
{
    u64 event = event_last();

    for (u32 i = 0; i < ARRAY_SIZE(bad_addresses); i++) {
        fake_driver.state = DRIVER_STARTING;
        assert_int_equal(call(HYPERCALL_OFFER, bad_addresses[i], 0, 0), -ERR_RANGE);
        fake_driver.state = DRIVER_RUNNING;
        assert_int_equal(call(HYPERCALL_CONFIG, bad_addresses[i], 96, 0), -ERR_RANGE);
        assert_int_equal(call(HYPERCALL_LOG, bad_addresses[i], 200, 0), -ERR_RANGE);
    }
    assert_string_equal(fake_calls, "");
    assert_int_equal(event_last(), event);
    fake_driver.state = DRIVER_STARTING;
    assert_int_equal(call(HYPERCALL_OFFER, FAKE_RAM_SIZE - sizeof(struct driver_offer) + 1, 0, 0), -ERR_RANGE);
    assert_int_equal(call(HYPERCALL_OFFER, FAKE_RAM_SIZE - sizeof(struct driver_offer), 0, 0), 0);
    assert_int_equal(fake_driver.state, DRIVER_RUNNING);
}

static void lengths_are_bounded(void **state)
{
    static const u64 huge[] = {4097, 0xffffffff, 0x100000000, 0x100000001, ~0ull};

    for (u32 i = 0; i < ARRAY_SIZE(huge); i++) {
        assert_int_equal(call(HYPERCALL_STASH, huge[i], 0, 0), -ERR_RANGE);
        assert_int_equal(call(HYPERCALL_CONFIG, 0, huge[i], 0), -ERR_RANGE);
        assert_int_equal(call(HYPERCALL_LOG, 0, huge[i], 0), -ERR_RANGE);
    }
    assert_int_equal(call(HYPERCALL_CONFIG, 0, 97, 0), -ERR_RANGE);
    assert_int_equal(call(HYPERCALL_LOG, 0, 201, 0), -ERR_RANGE);
    assert_string_equal(fake_calls, "");
    assert_int_equal(fake_driver.stash_length, 0);
    assert_int_equal(call(HYPERCALL_STASH, 4096, 0, 0), 0);
    assert_int_equal(fake_driver.stash_length, 4096);
    assert_int_equal(fake_driver.stash_checksum, recovery_checksum(hpa_to_ptr(fake_driver.stash_page), 4096));
    assert_int_equal(call(HYPERCALL_CONFIG, 0, 96, 0), 0);
    assert_string_equal(fake_calls, "config");
}

static void calls_out_of_order(void **state)
{
    assert_int_equal(call(HYPERCALL_OFFER, 0x10000, 0, 0), -ERR_STATE); /* a second one */
    fake_driver.state = DRIVER_STARTING;
    assert_int_equal(call(HYPERCALL_CONFIG, 0x10000, 4, 0), -ERR_STATE); /* before the first */
}

static void log_lines_are_made_printable(void **state)
{
    u64 event = event_last();

    fake_time_us += 1000000;
    memset(ram() + 0x20000, 'x', 200);
    memcpy(ram() + 0x20000, "disk \x1b[2J\0\xff\n", 12);
    assert_int_equal(call(HYPERCALL_LOG, 0x20000, 200, 0), 0);
    assert_int_equal(event_last(), event + 3);
    assert_memory_equal(event_get(event + 1)->text, "disk ?[2J???xxx", 15);
    assert_int_equal(strlen(event_get(event + 1)->text) + strlen(event_get(event + 2)->text) +
                         strlen(event_get(event + 3)->text),
                     200);
    assert_int_equal(event_get(event + 1)->kind, EVENT_DRIVER_LOG);
    assert_int_equal(call(HYPERCALL_LOG, 0x20000, 0, 0), 0);
    assert_int_equal(event_last(), event + 3);
}

static void a_flood_of_lines_is_cut(void **state)
{
    u64 event = event_last();

    fake_time_us += 1000000;
    memset(ram(), 'x', 200);
    for (u32 i = 0; i < 5000; i++)
        call(HYPERCALL_LOG, 0, 20, 0);
    assert_int_equal(fake_vm.vcpu.regs.rax, (u64)-ERR_BUSY);
    assert_int_equal(event_last() - event, 50);
    fake_time_us += 100001;
    assert_int_equal(call(HYPERCALL_LOG, 0, 20, 0), 0);
}

static void time_is_the_machines(void **state)
{
    assert_int_equal(call(HYPERCALL_TIME, 0, 0, 0), 10000000);
}

static void declared(u64 code, u64 detail, enum fault_kind kind, const char *text)
{
    fake_driver.recovery.pending = false;
    fake_driver.state = DRIVER_RUNNING;
    call(HYPERCALL_FAULT, code, detail, 0);
    assert_true(fake_driver.recovery.pending);
    assert_int_equal(fake_driver.recovery.current.kind, kind);
    assert_string_equal(fake_driver.recovery.current.text, text);
}

static void a_driver_may_give_up_on_itself(void **state)
{
    declared(DRIVER_FAULT_EXCEPTION, 0x0600000000010040, FAULT_EXCEPTION, "exception 6 at 0x10040");
    assert_int_equal(fake_driver.recovery.current.address, 0x10040);
    declared(DRIVER_FAULT_ASSERT, 123, FAULT_DECLARED, "assertion in line 123");
    declared(DRIVER_FAULT_DEVICE, 0x50, FAULT_DECLARED, "its device fails, code 0x50");
    declared(~0ull, ~0ull, FAULT_DECLARED, "gave up on itself, code 0xffffffffffffffff detail 0xffffffffffffffff");
}

static void configuration_space_by_pci_filter(void **state)
{
    assert_int_equal(call(HYPERCALL_PCI_READ, 0x10, 4, 0), 0x108004);
    assert_int_equal(call(HYPERCALL_PCI_READ, 0xfff, 1, 0), 0xfff8001); /* 32 bits are not a negative result */
    assert_int_equal(call(HYPERCALL_PCI_READ, 0x1000, 4, 0), -ERR_INVALID);
    assert_int_equal(call(HYPERCALL_PCI_READ, 0x100000010, 4, 0), -ERR_INVALID); /* not 0x10 */
    assert_int_equal(call(HYPERCALL_PCI_READ, 0x10, 0x100000004, 0), -ERR_INVALID);
    assert_int_equal(call(HYPERCALL_PCI_WRITE, 0x10, 4, 0xfee00000), -ERR_DENIED);
    assert_int_equal(call(HYPERCALL_PCI_WRITE, 4, 2, 0x100000006), -ERR_INVALID);
    assert_int_equal(call(HYPERCALL_PCI_WRITE, 4, 2, 2), 0);
    assert_string_equal(fake_calls, "");
    assert_int_equal(call(HYPERCALL_PCI_WRITE, 4, 2, 6), 0);
    assert_string_equal(fake_calls, "enable-dma");
}

/* Any registers at all: no crash (the sanitizers watch), a result that is an event mask, a value or a status. */
static void random_calls(void **state)
{
    struct random random = random_start("hypercalls");

    for (u32 i = 0; i < 200000; i++) {
        fake_calls[0] = '\0';
        fake_driver.state = random_one_in(&random, 2) ? DRIVER_RUNNING : DRIVER_STARTING;
        fake_driver.recovery.pending = false;
        u64 number = random_one_in(&random, 10) ? random_bits(&random) : random_below(&random, 11);
        i64 result = call(number, random_bits(&random), random_bits(&random), random_bits(&random));
        if (!fake_driver.recovery.pending)
            assert_true(result > -STATUS_COUNT);
        if (fake_driver.waiting)
            hypercall_wait_return(&fake_driver);
        assert_true(fake_driver.stash_length <= DRIVER_STASH_SIZE);
        fake_time_us += 10;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_machine, fake_machine_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_numbers_are_refused),
        TEST(wait_returns_pending_events_at_once),
        TEST(wait_zero_is_a_poll),
        TEST(wait_rearms_a_line),
        TEST(wait_blocks_with_kicks_armed),
        TEST(wait_for_ever_never_expires),
        TEST(wait_sees_what_came_while_kicks_were_off),
        TEST(a_bad_completion_ends_the_wait_there),
        TEST(a_reported_vm_gets_nothing_done),
        TEST(addresses_outside_ram_are_refused),
        TEST(lengths_are_bounded),
        TEST(calls_out_of_order),
        TEST(log_lines_are_made_printable),
        TEST(a_flood_of_lines_is_cut),
        TEST(time_is_the_machines),
        TEST(a_driver_may_give_up_on_itself),
        TEST(configuration_space_by_pci_filter),
        TEST(random_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
