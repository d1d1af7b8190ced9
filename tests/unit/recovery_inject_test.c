/* The injector: what each fault changes, when, and that nothing but a detector tells recovery. */
/* SOURCES: hv/recovery/detect.c hv/recovery/detect_progress.c hv/recovery/decide.c hv/recovery/quiesce.c
   hv/recovery/reset_device.c hv/recovery/restart.c hv/recovery/crash.c
   hv/recovery/recovery.c hv/recovery/replay.c hv/recovery/detect_dma.c
   hv/recovery/inject.c hv/control/events.c hv/exit/hypercall.c hv/core/vm.c */
/* INCLUDE_FAKES */
#include "tests/unit/recovery_fakes.h"

#define CODE 0x10040u

static int machine_with_canary(void **state)
{
    fake_machine(state);
    inject_canary_init();
    memset((u8 *)hpa_to_ptr(fake_vm.ram) + CODE, 0x90, 64);
    return 0;
}

static void arm(const char *name)
{
    assert_int_equal(inject_arm(&fake_driver, name), OK);
    assert_true(fake_driver.recovery.inject_armed != NULL);
}

/* The VM has made a hypercall and is about to be entered again. */
static void enter_after_call(void)
{
    fake_driver.hypercalls++;
    inject_apply(&fake_driver);
}

static void assert_code(const u8 *expected, u32 length)
{
    const u8 *code = (const u8 *)hpa_to_ptr(fake_vm.ram) + CODE;

    assert_memory_equal(code, expected, length);
    assert_int_equal(code[length], 0x90);
    assert_int_equal(code[-1], 0xa5);
    assert_false(fake_driver.recovery.pending); /* that is for a detector */
    assert_null(fake_driver.recovery.inject_armed);
    assert_true(fake_driver.recovery.inject_time != 0);
}

static void crash_is_an_undefined_instruction(void **state)
{
    arm("crash");
    inject_apply(&fake_driver);
    assert_code((const u8[]){0x0f, 0x0b}, 2);
}

static void hang_is_a_jump_to_itself(void **state)
{
    arm("hang");
    inject_apply(&fake_driver);
    assert_code((const u8[]){0xeb, 0xfe}, 2);
}

static void wild_write_aims_at_the_canary(void **state)
{
    arm("wild-write");
    inject_apply(&fake_driver);
    assert_code((const u8[]){0xa2, 0, 0, 0, 4, 0, 0, 0, 0, 0xeb, 0xfe}, 11);
    assert_true(FAKE_CANARY >= fake_vm.ram_size);
    assert_true(inject_canary_intact());
    ((u8 *)hpa_to_ptr(HPA(FAKE_CANARY)))[4095] ^= 1;
    assert_false(inject_canary_intact());
}

static void code_outside_ram_stays_armed(void **state)
{
    static const u64 bad[] = {0xffff800000000000, FAKE_RAM_SIZE, FAKE_RAM_SIZE - 1, DRIVER_EVENTS_ADDRESS};

    arm("crash");
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        fake_vm.vcpu.rip = bad[i];
        inject_apply(&fake_driver);
        assert_true(fake_driver.recovery.inject_armed != NULL);
        assert_int_equal(fake_driver.recovery.inject_time, 0);
    }
}

/* Put a request into queue q's ring, the first `readable` segments for the device to read; its header cell's index. */
static u32 add_request(u32 q, const u32 *lengths, u32 count, u32 readable)
{
    u32 at = fake_request_rings[q].page.produced;

    fake_request_rings[q].cell[at % RING_CELLS].header =
        (struct ring_header_cell){.tag = 3, .segments = (u16)count, .readable = readable};
    for (u32 i = 0; i < count; i++)
        fake_request_rings[q].cell[(at + 1 + i) % RING_CELLS].segment =
            (struct ring_segment_cell){.address = DRIVER_WINDOW_BASE + 0x100000 + i * 0x1000,
                                       .length = lengths[i],
                                       .flags = i < readable ? 0 : RING_SEGMENT_WRITABLE};
    fake_request_rings[q].page.produced += count + 1;
    return at;
}

static bool is_changed(u32 q, u32 at, u32 segment)
{
    return fake_request_rings[q].cell[(at + 1 + segment) % RING_CELLS].segment.address !=
           DRIVER_WINDOW_BASE + 0x100000 + segment * 0x1000;
}

static bool inside_window(u64 address)
{
    return address >= DRIVER_WINDOW_BASE && address < DRIVER_WINDOW_BASE + FAKE_GUEST_SIZE;
}

static void wild_dma_takes_the_longest_data_segment(void **state)
{
    bool beyond = false, ungranted = false, canary = false;

    fake_granted_low = true;
    for (u32 i = 0; i < 60; i++) {
        fake_driver.recovery.inject_time = 0;
        fake_request_rings[1].page.produced = fake_completion_pages[1].consumed = RING_CELLS - 2 + i; /* wraps */
        u32 at = add_request(1, (const u32[]){16, 600, 8192, 4096, 1}, 5, i % 2 ? 1 : 4); /* from or to a disk */
        fake_time_us += 1;
        arm("wild-dma");
        enter_after_call();
        assert_null(fake_driver.recovery.inject_armed);
        for (u32 s = 0; s < 5; s++) {
            struct ring_segment_cell *segment = &fake_request_rings[1].cell[(at + 1 + s) % RING_CELLS].segment;
            if (s != 2) {
                assert_int_equal(segment->address, DRIVER_WINDOW_BASE + 0x100000 + s * 0x1000);
                continue;
            }
            assert_int_equal(segment->length, 8192);
            u64 address = segment->address;
            /* Not one byte of it may lie where the device may reach. */
            assert_true(address >= FAKE_RAM_SIZE);
            if (inside_window(address)) {
                assert_true(address - DRIVER_WINDOW_BASE >= 16 * PAGE_SIZE);
                assert_true(inside_window(address + 8191));
                ungranted = true;
            } else if (address == FAKE_CANARY) {
                canary = true;
            } else {
                assert_true(address >= DRIVER_WINDOW_BASE + FAKE_GUEST_SIZE);
                beyond = true;
            }
        }
    }
    assert_true(beyond && ungranted && canary);
}

static void wild_dma_waits_for_a_request_that_fits(void **state)
{
    arm("wild-dma");
    enter_after_call(); /* nothing there */
    assert_true(fake_driver.recovery.inject_armed != NULL);
    add_request(0, (const u32[]){4096, 1}, 2, 1);        /* header and status only */
    add_request(0, (const u32[]){16, 511, 1}, 3, 1);     /* too short */
    add_request(0, (const u32[]){66, 1448, 1448}, 3, 3); /* out into the world: never to be had back */
    add_request(1, (const u32[]){1526}, 1, 1);
    enter_after_call();
    assert_true(fake_driver.recovery.inject_armed != NULL);
    assert_int_equal(fake_driver.recovery.inject_time, 0);
    add_request(0, (const u32[]){16, 512, 1}, 3, 1);
    fake_completion_pages[0].consumed = fake_request_rings[0].page.produced; /* too late: it was read */
    enter_after_call();
    assert_true(fake_driver.recovery.inject_armed != NULL);
    u32 at = add_request(0, (const u32[]){16, 512, 1}, 3, 2);
    inject_apply(&fake_driver); /* a tick interrupted it: it may hold the cells already */
    assert_true(fake_driver.recovery.inject_armed != NULL);
    enter_after_call();
    assert_null(fake_driver.recovery.inject_armed);
    assert_true(is_changed(0, at, 1) && !is_changed(0, at, 0) && !is_changed(0, at, 2));
}

/* Receive buffers: of one segment, which nobody reads before the device has written it; or with a place for the header.
 */
static void wild_dma_takes_what_the_device_only_writes(void **state)
{
    u32 whole = add_request(0, (const u32[]){2048}, 1, 0);
    arm("wild-dma");
    enter_after_call();
    assert_null(fake_driver.recovery.inject_armed);
    assert_true(is_changed(0, whole, 0));

    fake_completion_pages[0].consumed = fake_request_rings[0].page.produced;
    fake_driver.recovery.inject_time = 0;
    u32 split = add_request(0, (const u32[]){12, 1514}, 2, 0);
    u32 behind = add_request(0, (const u32[]){2048}, 1, 0);
    arm("wild-dma");
    enter_after_call();
    assert_true(is_changed(0, split, 1) && !is_changed(0, split, 0) && !is_changed(0, behind, 0));
}

static void wild_dma_is_not_led_astray_by_the_driver(void **state)
{
    add_request(0, (const u32[]){16, 512, 1}, 3, 2);
    arm("wild-dma");
    fake_completion_pages[0].consumed = 0xfffffff0; /* behind: within a ring's length, the cells are nonsense */
    fake_request_rings[0].cell[RING_CELLS - 16].header.segments = 0xffff;
    enter_after_call();
    fake_completion_pages[0].consumed = 5; /* ahead of what was produced */
    enter_after_call();
    fake_completion_pages[0].consumed = 2; /* within a request: its cell has a length where the count would be */
    fake_request_rings[0].cell[2].header.segments = 50;
    enter_after_call();
    assert_true(fake_driver.recovery.inject_armed != NULL);
}

static void garbage_alternates(void **state)
{
    u32 entries = 0;

    fake_in_flight = 3;
    for (u32 i = 0; i < 4; i++) {
        fake_driver.recovery.inject_time = 0;
        arm("garbage");
        inject_apply(&fake_driver);
        assert_int_equal(fake_complete_calls, i + 1);
        u32 q = i % 2;
        const struct ring_completion *entry = &fake_completion_pages[q].entry[i / 2];
        assert_int_equal(fake_completion_pages[q].produced, i / 2 + 1);
        if (q == 0) {
            assert_true(entry->tag >= RING_TAGS);
        } else {
            assert_int_equal(entry->tag, 77);
            assert_int_equal(entry->length, fake_max_length + 1);
        }
        entries++;
    }
    assert_int_equal(entries, 4);
}

static void garbage_of_an_idle_driver_has_a_plausible_tag(void **state)
{
    arm("garbage");
    inject_apply(&fake_driver);
    assert_int_equal(fake_completion_pages[0].entry[0].tag, 0);
    fake_driver.recovery.inject_time = 0;
    arm("garbage"); /* the one with a wrong length needs a request */
    inject_apply(&fake_driver);
    assert_true(fake_driver.recovery.inject_armed != NULL);
    fake_in_flight = 1;
    inject_apply(&fake_driver);
    assert_null(fake_driver.recovery.inject_armed);
}

static void the_record_says_what_was_injected(void **state)
{
    fake_complete_reports = true;
    arm("garbage");
    fake_in_flight = 1;
    fake_time_us += 10;
    inject_apply(&fake_driver);
    assert_true(fake_driver.recovery.pending);
    assert_string_equal(fake_driver.recovery.current.injected, "garbage");
    assert_int_equal(fake_driver.recovery.current.t_injected, tsc_now());
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.recovery.inject_time, 0);
    assert_string_equal(fake_driver.recovery.inject_name, "");
    recovery_report(&fake_driver, FAULT_EXCEPTION, 0, 0, "its own");
    assert_string_equal(fake_driver.recovery.current.injected, "");
}

static void what_was_only_armed_is_not_the_cause(void **state)
{
    arm("wild-dma");
    recovery_report(&fake_driver, FAULT_EXCEPTION, 0, 0, "its own");
    assert_string_equal(fake_driver.recovery.current.injected, "");
    assert_int_equal(fake_driver.recovery.current.t_injected, 0);
    inject_apply(&fake_driver);
    recovery_run(&fake_driver);
    assert_null(fake_driver.recovery.inject_armed);
}

static void refusals(void **state)
{
    assert_int_equal(inject_arm(&fake_driver, "cras"), ERR_NOT_FOUND);
    assert_int_equal(inject_arm(&fake_driver, ""), ERR_NOT_FOUND);
    fake_driver.state = DRIVER_STARTING;
    assert_int_equal(inject_arm(&fake_driver, "crash"), ERR_STATE);
    fake_driver.state = DRIVER_RUNNING;
    arm("hang");
    assert_int_equal(inject_arm(&fake_driver, "crash"), ERR_BUSY);
    inject_apply(&fake_driver);
    assert_int_equal(inject_arm(&fake_driver, "crash"), ERR_BUSY); /* done, but not noticed yet */
    fake_time_us += fake_config.deadline_us;
    arm("crash");
}

static void an_idle_driver_is_woken(void **state)
{
    fake_driver.waiting = true;
    fake_vm.vcpu.state = VCPU_BLOCKED;
    arm("crash");
    assert_int_equal(fake_vm.vcpu.state, VCPU_RUNNABLE);
}

/* ---- bits of memory and rings ---- */

static status_t flip(u64 address, u64 bytes, u64 mask, bool at_start, u64 *was)
{
    *was = 0x5555;
    return inject_flip(&fake_driver, &(struct inject_flip){address, bytes, mask}, at_start, was);
}

static void bits_of_ram_flip_while_the_vm_is_out(void **state)
{
    u8 *code = (u8 *)hpa_to_ptr(fake_vm.ram) + CODE;
    u64 was;

    code[3] = 0x12;
    assert_int_equal(flip(CODE + 3, 2, 0xffffffffffff8103, false, &was), OK); /* more than two bytes: cut */
    assert_int_equal(was, 0x9012);
    assert_int_equal(fake_shootdowns, 1);
    assert_memory_equal(code + 2, ((u8[]){0x90, 0x11, 0x11, 0x90}), 4);
    assert_int_equal(fake_driver.recovery.inject_time, tsc_now());
    assert_string_equal(fake_driver.recovery.inject_name, "flip");
    assert_int_equal(event_get(event_last())->kind, EVENT_INJECT);
    assert_false(fake_driver.recovery.pending); /* that is for a detector */
}

static void to_look_is_no_injection(void **state)
{
    u64 was, last = event_last();

    assert_int_equal(flip(CODE, 8, 0, false, &was), OK);
    assert_true(was == 0x9090909090909090);
    assert_int_equal(fake_driver.recovery.inject_time, 0);
    assert_int_equal(event_last(), last);
}

static void bits_of_rings_and_stash(void **state)
{
    const u64 ring3 = DRIVER_RINGS_ADDRESS + 3 * DRIVER_RING_STRIDE;
    u8 *stash = hpa_to_ptr(fake_driver.stash_page);
    u64 was;

    fake_request_rings[3].page.produced = 7;
    fake_request_rings[3].cell[4095].segment.flags = 1;
    fake_completion_pages[3].heartbeat = 9;
    assert_int_equal(flip(ring3, 4, 1, false, &was), OK);
    assert_int_equal(was, 7);
    assert_int_equal(fake_request_rings[3].page.produced, 6);
    assert_int_equal(flip(ring3 + RING_REQUEST_BYTES - 4, 4, 3, false, &was), OK);
    assert_int_equal(fake_request_rings[3].cell[4095].segment.flags, 2);
    assert_int_equal(flip(ring3 + DRIVER_RING_COMPLETION_OFFSET + 8, 4, 0x80000000, false, &was), OK);
    assert_int_equal(fake_completion_pages[3].heartbeat, 0x80000009);
    assert_int_equal(flip(DRIVER_STASH_ADDRESS + 4088, 8, 1ull << 63, false, &was), OK);
    assert_int_equal(stash[4095], 0x80);
    assert_int_equal(flip(DRIVER_INFO_ADDRESS + 4, 4, 1, false, &was), OK);
    assert_int_equal(((struct driver_info *)hpa_to_ptr(fake_driver.info_page))->vendor_call, 1);
}

static void nothing_else_is_in_reach(void **state)
{
    static const struct {
        u64 address, bytes;
    } bad[] = {{FAKE_RAM_SIZE, 1},
               {FAKE_RAM_SIZE - 7, 8},
               {CODE, 0},
               {CODE, 9},
               {CODE, ~0ull},
               {~0ull, 1},
               {~0ull - 7, 8},
               {FAKE_CANARY, 1},
               {DRIVER_BARS_ADDRESS, 4},
               {DRIVER_INFO_ADDRESS + PAGE_SIZE - 1, 2},
               {DRIVER_EVENTS_ADDRESS, 4},
               {DRIVER_STASH_ADDRESS - 1, 2},
               {DRIVER_STASH_ADDRESS + DRIVER_STASH_SIZE, 1},
               {DRIVER_STASH_ADDRESS + DRIVER_STASH_SIZE - 1, 2},
               {DRIVER_RINGS_ADDRESS - 1, 2},
               {DRIVER_RINGS_ADDRESS + RING_REQUEST_BYTES, 1},
               {DRIVER_RINGS_ADDRESS + RING_REQUEST_BYTES - 7, 8},
               {DRIVER_RINGS_ADDRESS + DRIVER_RING_COMPLETION_OFFSET - 1, 2},
               {DRIVER_RINGS_ADDRESS + DRIVER_RING_COMPLETION_OFFSET + RING_COMPLETION_BYTES, 1},
               {DRIVER_RINGS_ADDRESS + DRIVER_RING_COMPLETION_OFFSET + RING_COMPLETION_BYTES - 1, 2},
               {DRIVER_RINGS_ADDRESS + RING_MAX_QUEUES * DRIVER_RING_STRIDE, 1},
               {DRIVER_WINDOW_BASE, 1},
               {DRIVER_WINDOW_BASE + FAKE_GUEST_SIZE - 8, 8}};
    u64 was;

    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(flip(bad[i].address, bad[i].bytes, ~0ull, false, &was), ERR_RANGE);
        assert_int_equal(flip(bad[i].address, bad[i].bytes, ~0ull, true, &was), ERR_RANGE);
    }
    assert_int_equal(fake_driver.recovery.at_start.bytes, 0);
    assert_int_equal(fake_driver.recovery.inject_time, 0);
    assert_int_equal(fake_shootdowns, 0);
    assert_true(inject_canary_intact());
}

static void nothing_flips_in_a_vm_that_does_not_run(void **state)
{
    static const enum driver_state idle[] = {DRIVER_STOPPED, DRIVER_RECOVERING, DRIVER_WAITING, DRIVER_FAILED};
    u64 was;

    for (u32 i = 0; i < ARRAY_SIZE(idle); i++) {
        fake_driver.state = idle[i];
        assert_int_equal(flip(CODE, 1, 1, false, &was), ERR_STATE);
    }
    fake_driver.state = DRIVER_RUNNING;
    fake_driver.recovery.pending = true;
    assert_int_equal(flip(CODE, 1, 1, false, &was), ERR_STATE);
    fake_driver.recovery.pending = false;
    fake_driver.state = DRIVER_STARTING;
    assert_int_equal(flip(CODE, 1, 1, false, &was), OK);
}

static void a_flip_waits_for_the_next_start(void **state)
{
    const u8 *code = (const u8 *)hpa_to_ptr(fake_vm.ram) + CODE;
    u64 was;

    assert_int_equal(flip(CODE, 2, 0x9b9f, true, &was), OK);
    assert_int_equal(was, 0);
    assert_int_equal(code[0], 0x90);
    recovery_report(&fake_driver, FAULT_EXCEPTION, 0, 0, "the first fault");
    assert_string_equal(fake_driver.recovery.current.injected, "");
    recovery_run(&fake_driver);
    assert_memory_equal(code, "\x0f\x0b\x90", 3); /* UD2 */
    recovery_report(&fake_driver, FAULT_EXCEPTION, 0, 0, "the second, during recovery");
    assert_string_equal(fake_driver.recovery.current.injected, "flip");
    assert_int_equal(fake_last_record()->outcome, FAULT_SUPERSEDED);
    recovery_run(&fake_driver);
    assert_memory_equal(code, "\x0f\x0b\x90", 3); /* once: the fake restart leaves memory as it was */
    assert_string_equal(fake_driver.recovery.inject_name, "");
}

/* ---- interrupts ---- */

/* What the driver hears of: a letter each time round, capital when its device did interrupt. */
static void assert_hears(const char *rounds)
{
    for (const char *c = rounds; *c != '\0'; c++) {
        bool came = *c == 'Y' || *c == 'N';
        assert_int_equal(inject_interrupt(&fake_driver, came), *c == 'Y' || *c == 'y');
    }
}

static void an_honest_interrupt_passes(void **state)
{
    assert_hears("nYYnnY");
}

static void interrupts_get_lost(void **state)
{
    assert_int_equal(inject_interrupts(&fake_driver, "lose", 2), OK);
    assert_hears("nNnNnYnY");
    assert_string_equal(fake_driver.recovery.inject_name, "interrupts");
}

static void interrupts_are_forged(void **state)
{
    assert_int_equal(inject_interrupts(&fake_driver, "forge", 3), OK);
    assert_hears("yYynYn");
}

static void interrupts_are_held_back(void **state)
{
    assert_int_equal(inject_interrupts(&fake_driver, "hold", 1000), OK);
    assert_hears("NnN");
    fake_time_us += 999;
    assert_hears("n");
    fake_time_us += 1;
    assert_hears("ynY");
}

static void a_restart_ends_what_befalls_interrupts(void **state)
{
    assert_int_equal(inject_interrupts(&fake_driver, "lose", 10000000), OK);
    recovery_report(&fake_driver, FAULT_DEADLINE, 0, 0, "nothing came");
    assert_string_equal(fake_driver.recovery.current.injected, "interrupts");
    recovery_run(&fake_driver);
    assert_hears("YnY");
}

static void interrupts_refused(void **state)
{
    static const char *const names[] = {"", "los", "lose1", "l", "crash"};

    for (u32 i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(inject_interrupts(&fake_driver, names[i], 1), ERR_NOT_FOUND);
    assert_int_equal(inject_interrupts(&fake_driver, "lose", 0), ERR_RANGE);
    assert_int_equal(inject_interrupts(&fake_driver, "hold", 10000001), ERR_RANGE);
    assert_int_equal(inject_interrupts(&fake_driver, "forge", ~0ull), ERR_RANGE);
    assert_hears("nY");
    assert_int_equal(fake_driver.recovery.inject_time, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_with_canary, fake_machine_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(garbage_alternates), /* first: it knows that no garbage came before */
        TEST(garbage_of_an_idle_driver_has_a_plausible_tag),
        TEST(the_record_says_what_was_injected),
        TEST(crash_is_an_undefined_instruction),
        TEST(hang_is_a_jump_to_itself),
        TEST(wild_write_aims_at_the_canary),
        TEST(code_outside_ram_stays_armed),
        TEST(wild_dma_takes_the_longest_data_segment),
        TEST(wild_dma_waits_for_a_request_that_fits),
        TEST(wild_dma_takes_what_the_device_only_writes),
        TEST(wild_dma_is_not_led_astray_by_the_driver),
        TEST(what_was_only_armed_is_not_the_cause),
        TEST(refusals),
        TEST(an_idle_driver_is_woken),
        TEST(bits_of_ram_flip_while_the_vm_is_out),
        TEST(to_look_is_no_injection),
        TEST(bits_of_rings_and_stash),
        TEST(nothing_else_is_in_reach),
        TEST(nothing_flips_in_a_vm_that_does_not_run),
        TEST(a_flip_waits_for_the_next_start),
        TEST(an_honest_interrupt_passes),
        TEST(interrupts_get_lost),
        TEST(interrupts_are_forged),
        TEST(interrupts_are_held_back),
        TEST(a_restart_ends_what_befalls_interrupts),
        TEST(interrupts_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
