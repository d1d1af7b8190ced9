/* Events of the main guest: what an exit cut short, what an exception displaces, when an interrupt may go in; an exit
 * that comes too late. */
/* SOURCES: hv/core/vcpu.c hv/exit/dispatch.c hv/exit/exit_guest.c hv/exit/decode.c */
#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "hv/core/cpu.h"
#include "hv/exit/decode.h"
#include "hv/exit/dispatch.h"
#include "hv/platform/platform.h"
#include "shared/lib/string.h"
#include "tests/unit/unit.h"

#define INTERRUPT(vector) (EVENT_VALID | EVENT_TYPE_INTERRUPT | (vector))
#define EXCEPTION(vector) (EVENT_VALID | EVENT_TYPE_EXCEPTION | (vector))
#define NMI (EVENT_VALID | EVENT_TYPE_NMI | 2)

static struct vm vm;
static struct vcpu *const vcpu = &vm.vcpu;
static u8 code[INSTRUCTION_MAX]; /* at RIP */
static bool shadow, traced, nmi_waits;
static int request; /* of the platform: a vector, or -1 */
static u32 windows; /* asked for, by type; bit 31: for an interrupt, so that it is not 0 */
static u32 device_accesses;
static const char *failed;

/* ---- the vendor ---- */

static bool can_take(const struct vcpu *v, u32 type)
{
    return !shadow && (type == EVENT_TYPE_NMI || v->rflags & RFLAGS_IF);
}
static void request_window(struct vcpu *v, u32 type)
{
    windows |= type | 1u << 31;
}
static void end_instruction(struct vcpu *v, bool trap)
{
    shadow = false;
    traced |= trap;
}
static u64 read_register(struct vcpu *v, enum guest_register reg)
{
    return reg == GUEST_CR0 ? CR0_PE | CR0_PG : reg == GUEST_EFER ? EFER_LMA : 0;
}
static const struct vcpu_vendor fake = {
    .can_take = can_take, .request_window = request_window, .end_instruction = end_instruction, .read = read_register};
const struct vcpu_vendor *vendor = &fake;
struct cpu cpus[CPU_MAX];
const exit_handler exit_driver_handlers[EXIT_KINDS];

void apic_send(u32 destination, u8 vector)
{
    fail();
}

/* ---- the platform ---- */

int platform_pending_vector(struct vm *v)
{
    return request;
}
void platform_accept_vector(struct vm *v, u8 vector)
{
    assert_int_equal(vector, request);
    request = -1;
}
bool platform_nmi_pending(const struct vm *v)
{
    return nmi_waits;
}
void platform_accept_nmi(struct vm *v)
{
    nmi_waits = false;
}
bool platform_memory(struct vm *v, gpa_t address, u8 width, bool write, u64 *value)
{
    device_accesses++;
    return true;
}
void platform_port(struct vm *v, u16 port, u8 width, bool write, u32 *value)
{
}
void platform_after_exit(struct vm *v)
{
}
bool platform_msr(struct vm *v, u32 index, bool write, u64 *value)
{
    return false;
}
void platform_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    memset(out, 0, 4 * sizeof(*out));
}
bool vcpu_msr(struct vcpu *v, u32 index, bool write, u64 *value, bool *known)
{
    return *known = false;
}
bool vcpu_cr4_write(struct vcpu *v, u64 value)
{
    return false;
}
u32 vcpu_fetch(struct vcpu *v, u64 va, void *out, u32 len)
{
    memcpy(out, code, len);
    return len;
}
void vm_fail(struct vm *v, const char *reason, u64 detail)
{
    failed = reason;
}

static int fresh(void **state)
{
    vm = (struct vm){.vcpu = {.vm = &vm, .rip = 0x1000, .rflags = RFLAGS_FIXED | RFLAGS_IF, .state = VCPU_RUNNABLE}};
    shadow = traced = nmi_waits = false;
    request = -1;
    windows = device_accesses = 0;
    failed = NULL;
    return 0;
}

static void exits(enum exit_kind kind, u32 length)
{
    const struct vcpu_exit exit = {.kind = kind, .instruction_length = length};
    exit_guest_handlers[kind](vcpu, &exit);
}

static void raises(u8 vector, u32 error_code)
{
    const struct vcpu_exit exit = {.kind = EXIT_EXCEPTION, .exception = {vector, error_code}};
    exit_guest_handlers[EXIT_EXCEPTION](vcpu, &exit);
}

/* The next entry: what it delivers. Nothing is cut short. */
static u32 entry(void)
{
    exit_guest_prepare(vcpu);
    u32 event = vcpu->event;
    vcpu_keep_event(vcpu, 0, 0);
    return event;
}

static void what_is_cut_short_is_delivered_again(void **state)
{
    const u32 again[] = {INTERRUPT(0x40), NMI, EXCEPTION(1), EXCEPTION(6), EXCEPTION(14) | EVENT_HAS_ERROR};
    const u32 by_software[] = {EVENT_VALID | EVENT_TYPE_SOFT_INTERRUPT | 0x80, EVENT_VALID | 5 << 8 | 1,
                               EVENT_VALID | 6 << 8 | 3, EXCEPTION(3), EXCEPTION(4)};

    for (u32 i = 0; i < ARRAY_SIZE(again); i++) {
        vcpu_keep_event(vcpu, again[i] | 1 << 12, 0x1234 + i);
        assert_int_equal(vcpu->event, again[i]);
        assert_int_equal(vcpu->event_error, 0x1234 + i);
        assert_int_equal(entry(), again[i]);
        vcpu_keep_event(vcpu, again[i] & ~EVENT_VALID, 0);
        assert_int_equal(vcpu->event, 0);
    }
    for (u32 i = 0; i < ARRAY_SIZE(by_software); i++) {
        vcpu_keep_event(vcpu, by_software[i], 0);
        assert_int_equal(vcpu->event, 0);
    }
}

/* #AC of a delivery: first the exception, then, as soon as its handler lets it in, the interrupt. */
static void a_displaced_interrupt_is_not_lost(void **state)
{
    vcpu_keep_event(vcpu, INTERRUPT(0x40), 0);
    raises(17, 0);
    request = 0x60;
    assert_int_equal(entry(), EXCEPTION(17) | EVENT_HAS_ERROR);
    assert_true(windows);
    vcpu->rflags &= ~RFLAGS_IF; /* the handler */
    windows = 0;
    assert_int_equal(entry(), 0);
    assert_true(windows);
    vcpu->rflags |= RFLAGS_IF;
    shadow = true;
    assert_int_equal(entry(), 0);
    shadow = false;
    assert_int_equal(entry(), INTERRUPT(0x40)); /* older than what the platform has */
    assert_int_equal(request, 0x60);
    assert_int_equal(entry(), INTERRUPT(0x60));
    assert_int_equal(request, -1);
    assert_int_equal(entry(), 0);
}

static void a_displaced_nmi_is_not_lost(void **state)
{
    vcpu_keep_event(vcpu, NMI, 0);
    raises(1, 0);
    nmi_waits = true; /* and the one behind it */
    assert_int_equal(entry(), EXCEPTION(1));
    assert_int_equal(entry(), NMI);
    assert_true(nmi_waits);
    assert_int_equal(entry(), NMI);
    assert_false(nmi_waits);
}

/* Again and again: at most one is held, since nothing overtakes it. */
static void a_loop_of_exceptions_loses_nothing(void **state)
{
    request = 0x40;
    exit_guest_prepare(vcpu);
    for (u32 i = 0; i < 100; i++) {
        vcpu_keep_event(vcpu, vcpu->event, 0);
        request = 0x41;
        nmi_waits = true;
        raises(17, 0);
        assert_int_equal(entry(), EXCEPTION(17) | EVENT_HAS_ERROR);
        exit_guest_prepare(vcpu);
        assert_int_equal(vcpu->event, INTERRUPT(0x40));
        assert_true(nmi_waits && request == 0x41);
    }
}

static void what_an_instruction_raised_comes_again_with_it(void **state)
{
    vcpu_keep_event(vcpu, EXCEPTION(6), 0);
    raises(1, 0);
    assert_int_equal(entry(), EXCEPTION(1));
    assert_int_equal(entry(), 0);
}

static void a_reset_forgets_events(void **state)
{
    vcpu_keep_event(vcpu, NMI, 0);
    raises(1, 0);
    vcpu_reset(vcpu, 0);
    assert_int_equal(entry(), 0);
}

static void hlt_waits_for_what_can_wake_it(void **state)
{
    exits(EXIT_HLT, 1);
    assert_int_equal(vcpu->state, VCPU_BLOCKED);
    assert_int_equal(vcpu->rip, 0x1001);
    fresh(state);
    request = 0x40;
    exits(EXIT_HLT, 1);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
    vcpu->rflags &= ~RFLAGS_IF;
    exits(EXIT_HLT, 1);
    assert_int_equal(vcpu->state, VCPU_BLOCKED);
    fresh(state);
    vcpu->held = INTERRUPT(0x40); /* STI, HLT in the handler of what displaced it */
    shadow = true;
    exits(EXIT_HLT, 1);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
    assert_int_equal(entry(), INTERRUPT(0x40));
    nmi_waits = true;
    vcpu->rflags &= ~RFLAGS_IF;
    exits(EXIT_HLT, 1);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
}

static void single_steps(void **state)
{
    vcpu->rflags |= RFLAGS_TF;
    exits(EXIT_HLT, 1);
    assert_true(traced);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
    assert_int_equal(entry(), EXCEPTION(1));
    traced = false;
    const struct vcpu_exit int1 = {.kind = EXIT_EXCEPTION, .instruction_length = 1, .exception = {.vector = 1}};
    exit_guest_handlers[EXIT_EXCEPTION](vcpu, &int1);
    assert_false(traced); /* INT1 clears TF before it would trap */
    assert_int_equal(vcpu->rip, 0x1002);
    assert_int_equal(entry(), EXCEPTION(1));
}

/* The interrupted instruction has nothing to do with an access of a delivery: it must not be emulated. */
static void a_delivery_into_a_device_is_not_a_move(void **state)
{
    const struct vcpu_exit store = {.kind = EXIT_NESTED_FAULT, .nested = {.address = GPA(0xfec00000), .write = true}};

    code[0] = 0x89; /* MOV [RAX], EAX */
    code[1] = 0x00;
    exit_guest_handlers[EXIT_NESTED_FAULT](vcpu, &store);
    assert_int_equal(device_accesses, 1);
    assert_null(failed);
    vcpu_keep_event(vcpu, INTERRUPT(0x40), 0);
    exit_guest_handlers[EXIT_NESTED_FAULT](vcpu, &store);
    assert_int_equal(device_accesses, 1);
    assert_non_null(failed);
}

/*
 * The vCPU's CPU has left guest mode, and waits for the lock; who holds it starts the VM anew meanwhile. (Seen: a guest
 * that was restarted ended at its first instruction.)
 */
static void an_exit_from_before_a_stop_is_nobodys(void **state)
{
    const struct vcpu_exit exit = {.kind = EXIT_HLT, .instruction_length = 1};

    vcpu->stops_at_entry = vcpu->stops; /* as the run loop does */
    vcpu_stop(vcpu);
    vcpu_reset(vcpu, 0x2000);
    vcpu->state = VCPU_RUNNABLE;
    exit_dispatch(vcpu, &exit);
    assert_int_equal(vcpu->rip, 0x2000);
    assert_int_equal(vcpu->state, VCPU_RUNNABLE);
    vcpu->stops_at_entry = vcpu->stops;
    exit_dispatch(vcpu, &exit);
    assert_int_equal(vcpu->rip, 0x2001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_is_cut_short_is_delivered_again, fresh),
        cmocka_unit_test_setup(a_displaced_interrupt_is_not_lost, fresh),
        cmocka_unit_test_setup(a_displaced_nmi_is_not_lost, fresh),
        cmocka_unit_test_setup(a_loop_of_exceptions_loses_nothing, fresh),
        cmocka_unit_test_setup(what_an_instruction_raised_comes_again_with_it, fresh),
        cmocka_unit_test_setup(a_reset_forgets_events, fresh),
        cmocka_unit_test_setup(hlt_waits_for_what_can_wake_it, fresh),
        cmocka_unit_test_setup(single_steps, fresh),
        cmocka_unit_test_setup(a_delivery_into_a_device_is_not_a_move, fresh),
        cmocka_unit_test_setup(an_exit_from_before_a_stop_is_nobodys, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
