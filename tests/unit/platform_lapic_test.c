/* The local APIC: priorities, EOI order, IPIs, messages, the timer, paravirtual EOI. */
/*
 * SOURCES: hv/platform/acpi.c hv/platform/clock.c hv/platform/cpuid.c hv/platform/ioapic.c hv/platform/lapic.c
 * hv/platform/msr.c hv/platform/pci_bus.c hv/platform/platform.c hv/platform/pv_eoi.c
 * hv/platform/pvh.c hv/platform/uart.c
 */
/* INCLUDE_FAKES */
#include "tests/unit/platform_machine.h"

#define TPR 0x808u
#define PPR 0x80au
#define EOI 0x80bu
#define SVR 0x80fu
#define ISR 0x810u
#define IRR 0x820u
#define ESR 0x828u
#define ICR 0x830u
#define LVT_TIMER 0x832u
#define LVT_ERROR 0x837u
#define INITIAL 0x838u
#define CURRENT 0x839u
#define DIVIDE 0x83eu
#define SELF_IPI 0x83fu
#define DEADLINE 0x6e0u
#define PV_EOI 0x4b564d04u

static void message(u8 vector)
{
    platform_message(&machine.vm, 0xfee00000, vector);
}
static void advance_us(u64 us)
{
    fake_time_us += us;
    platform_timer_expire(&machine.vm, tsc_now());
}
static struct platform_stats stats(void)
{
    return platform_stats(&machine.vm);
}

static void start_state(void **state)
{
    assert_int_equal(rdmsr(0x1b), 0xfee00d00);
    assert_int_equal(rdmsr(0x802), 0);
    assert_int_equal(rdmsr(0x803), 0x50014);
    assert_int_equal(rdmsr(0x80d), 1);
    assert_int_equal(rdmsr(LVT_TIMER), 0x10000);
    assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
    assert_int_equal(platform_pending_vector(&machine.vm), -1);
    /* x2APIC mode is for good */
    assert_true(wrmsr(0x1b, 0xfee00d00));
    assert_false(wrmsr(0x1b, 0xfee00900));
    assert_false(wrmsr(0x1b, 0xfee00500));
    assert_false(wrmsr(0x1b, 0xfed00d00));
}

static void the_highest_class_goes_first(void **state)
{
    message(0x31);
    message(0x52);
    message(0x51);
    assert_int_equal(machine.wakes, 3);
    assert_int_equal(rdmsr(IRR + 1), 1u << 0x11);
    assert_int_equal(rdmsr(IRR + 2), 1u << 0x12 | 1u << 0x11);
    assert_int_equal(take_interrupt(), 0x52);
    assert_int_equal(rdmsr(PPR), 0x50);
    assert_int_equal(rdmsr(ISR + 2), 1u << 0x12);
    assert_int_equal(take_interrupt(), -1); /* 0x51 is of the same class */
    message(0x61);
    assert_int_equal(take_interrupt(), 0x61); /* nested */
    assert_true(wrmsr(EOI, 0));               /* ends 0x61, not 0x52 */
    assert_int_equal(rdmsr(ISR + 3), 0);
    assert_int_equal(rdmsr(ISR + 2), 1u << 0x12);
    assert_int_equal(take_interrupt(), -1);
    assert_true(wrmsr(EOI, 0));
    assert_int_equal(take_interrupt(), 0x51);
    assert_true(wrmsr(EOI, 0));
    assert_int_equal(take_interrupt(), 0x31);
    assert_true(wrmsr(EOI, 0));
    assert_true(wrmsr(EOI, 0)); /* one too many is harmless */
    assert_int_equal(rdmsr(PPR), 0);
    assert_int_equal(stats().interrupts, 4);
    assert_int_equal(stats().eoi_exits, 5);
}

static void task_priority_holds_back(void **state)
{
    assert_true(wrmsr(TPR, 0x4f));
    message(0x41);
    assert_int_equal(machine.wakes, 0); /* a halted vCPU sleeps on */
    assert_int_equal(platform_pending_vector(&machine.vm), -1);
    assert_int_equal(rdmsr(PPR), 0x4f);
    message(0x50);
    assert_int_equal(take_interrupt(), 0x50);
    assert_int_equal(rdmsr(PPR), 0x50);
    assert_true(wrmsr(EOI, 0));
    assert_true(wrmsr(TPR, 0x3f));
    assert_int_equal(take_interrupt(), 0x41);
    assert_false(wrmsr(TPR, 0x100));
}

/* Against a model: at any moment the accepted vector is the one that a plain search finds. */
static void priorities_match_a_search(void **state)
{
    struct random random = random_start("lapic");
    bool requested[256] = {0}, serviced[256] = {0};
    u32 tpr = 0;
    for (u32 step = 0; step < 20000; step++) {
        u32 vector = (u32)random_between(&random, 16, 255);
        int request = 255, service = 255;
        switch (random_below(&random, 4)) {
        case 0:
            message((u8)vector);
            requested[vector] = true;
            break;
        case 1:
            tpr = random_one_in(&random, 2) ? 0 : (u32)random_below(&random, 256);
            assert_true(wrmsr(TPR, tpr));
            break;
        case 2:
            assert_true(wrmsr(EOI, 0));
            for (service = 255; service >= 0 && !serviced[service]; service--)
                ;
            if (service >= 0)
                serviced[service] = false;
            break;
        default:
            for (request = 255; request >= 0 && !requested[request]; request--)
                ;
            for (service = 255; service >= 0 && !serviced[service]; service--)
                ;
            u32 floor =
                tpr >> 4 > (u32)(service < 0 ? 0 : service) >> 4 ? tpr >> 4 : (service < 0 ? 0u : (u32)service) >> 4;
            int expected = request >= 0 && (u32)request >> 4 > floor ? request : -1;
            assert_int_equal(take_interrupt(), expected);
            if (expected >= 0) {
                requested[expected] = false;
                serviced[expected] = true;
            }
        }
    }
}

static void switched_off_it_takes_nothing(void **state)
{
    assert_true(wrmsr(LVT_TIMER, 0x40030));
    assert_true(wrmsr(SVR, 0xff));
    message(0x40);
    assert_true(wrmsr(SELF_IPI, 0x41));
    assert_true(wrmsr(DEADLINE, 1));
    advance_us(0);
    assert_int_equal(take_interrupt(), -1);
    assert_true(wrmsr(SVR, 0x1ff));
    assert_int_equal(take_interrupt(), -1); /* lost, not late */
}

static void illegal_vectors_are_lost(void **state)
{
    assert_true(wrmsr(LVT_ERROR, 0xe0));
    message(15);
    assert_true(wrmsr(ICR, 1ull << 18 | 3));
    assert_true(wrmsr(SELF_IPI, 0));
    assert_true(wrmsr(LVT_TIMER, 0x40001));
    assert_true(wrmsr(DEADLINE, 1));
    advance_us(0);
    assert_int_equal(take_interrupt(), -1);
    assert_int_equal(rdmsr(IRR), 0);
    assert_true(wrmsr(ESR, 0));
    assert_int_equal(rdmsr(ESR), 0); /* and not reported */
    assert_false(wrmsr(ESR, 1));
}

static void ipis_reach_only_this_cpu(void **state)
{
    static const struct {
        u64 icr;
        bool accepted, arrives;
    } cases[] = {
        {0x40, true, true},               /* physical, to 0 */
        {1ull << 32 | 0x40, true, false}, /* to CPU 1 */
        {0xffffffffull << 32 | 0x40, true, true} /* everyone */,
        {1ull << 32 | 0x840, true, true},        /* logical, bit 0 of cluster 0 */
        {0x10001ull << 32 | 0x840, true, false}, /* of cluster 1 */
        {2ull << 32 | 0x840, true, false},       /* bit 1 */
        {5ull << 32 | 0x40040, true, true},      /* self, whatever the destination */
        {5ull << 32 | 0x80040, true, true},      /* all */
        {0xc0040, true, false},                  /* all but self */
        {0x40140, true, true},                   /* lowest priority */
        {0x40440, true, false},                  /* NMI */
        {0x1ull << 32 | 0xc500, true, false},    /* INIT to CPU 1 */
        {0x40500, true, false},                  /* INIT */
        {0x1ull << 32 | 0xc608, true, false},    /* SIPI */
        {0x1040, false, false},                  /* reserved bits */
        {0x100040, false, false},
    };
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(wrmsr(ICR, cases[i].icr), cases[i].accepted);
        assert_int_equal(take_interrupt(), cases[i].arrives ? 0x40 : -1);
        if (cases[i].accepted)
            assert_true(rdmsr(ICR) == cases[i].icr);
        assert_true(wrmsr(EOI, 0));
    }
    assert_true(wrmsr(SELF_IPI, 0x77));
    assert_int_equal(take_interrupt(), 0x77);
    assert_false(wrmsr(SELF_IPI, 0x100));
    assert_false(rdmsr_ok(SELF_IPI));
}

/* An NMI waits until it is taken, whatever the priorities and the software's enable bit say. */
static void nmis_reach_this_cpu(void **state)
{
    assert_false(platform_nmi_pending(&machine.vm));
    assert_true(wrmsr(ICR, 1ull << 32 | 0x400)); /* to CPU 1 */
    assert_true(wrmsr(ICR, 0xc0400));            /* all but self */
    assert_false(platform_nmi_pending(&machine.vm));
    assert_true(wrmsr(0x808, 0xff));
    assert_true(wrmsr(SVR, 0xff));
    u32 wakes = machine.wakes;
    assert_true(wrmsr(ICR, 0x40400));
    assert_true(platform_nmi_pending(&machine.vm));
    assert_int_equal(machine.wakes, wakes + 1);
    assert_int_equal(platform_pending_vector(&machine.vm), -1);
    platform_accept_nmi(&machine.vm);
    assert_false(platform_nmi_pending(&machine.vm));
    machine.vm.vcpu.in_guest = true; /* then it must leave to be given one */
    u32 kicks = machine.kicks;
    assert_true(wrmsr(ICR, 0x400));
    assert_int_equal(machine.kicks, kicks + 1);
    machine.vm.vcpu.in_guest = false;
}

static void messages_are_checked(void **state)
{
    static const struct {
        u64 address;
        u32 data;
        int vector;
    } cases[] = {
        {0xfee00000, 0x41, 0x41},
        {0xfee01000, 0x41, -1},
        {0xfeeff000, 0x41, 0x41},
        {0xfee0100c, 0x41, 0x41},
        {0xfee0200c, 0x41, -1},
        {0xfee00000, 0x141, 0x41},
        {0xfee00000, 0x441, -1},
        {0xfee00000, 0x4041, 0x41},
        {0x1fee00000, 0x41, -1},
        {0xfed00000, 0x41, -1},
        {0, 0x41, -1},
        {0xfee00000, 0x5, -1},
        {0xfffffffffee00000, 0x41, -1},
    };
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        platform_message(&machine.vm, cases[i].address, cases[i].data);
        assert_int_equal(take_interrupt(), cases[i].vector);
        assert_true(wrmsr(EOI, 0));
    }
}

static void running_vcpu_is_kicked(void **state)
{
    machine.vm.vcpu.in_guest = true;
    message(0x41);
    assert_int_equal(machine.kicks, 1);
    assert_int_equal(machine.wakes, 0);
    machine.vm.vcpu.in_guest = false;
    assert_int_equal(take_interrupt(), 0x41);
    machine.vm.vcpu.in_guest = true;
    message(0x40); /* waits behind 0x41, whose end exits */
    assert_int_equal(machine.kicks, 1);
}

static void deadline_mode(void **state)
{
    u64 now = tsc_now();
    assert_true(wrmsr(DEADLINE, now + 1000)); /* another mode: ignored */
    assert_int_equal(rdmsr(DEADLINE), 0);
    assert_true(wrmsr(LVT_TIMER, 0x400ec));
    assert_true(wrmsr(INITIAL, 1000)); /* ignored in this one */
    assert_int_equal(rdmsr(INITIAL), 0);
    assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
    assert_true(wrmsr(DEADLINE, now + tsc_from_us(50)));
    assert_true(platform_timer_deadline(&machine.vm) == now + tsc_from_us(50));
    advance_us(49);
    assert_int_equal(take_interrupt(), -1);
    assert_true(rdmsr(DEADLINE) == now + tsc_from_us(50));
    advance_us(1);
    assert_int_equal(take_interrupt(), 0xec);
    assert_int_equal(rdmsr(DEADLINE), 0); /* fires once */
    assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
    assert_true(wrmsr(EOI, 0));
    advance_us(100);
    assert_int_equal(take_interrupt(), -1);
    /* a time in the past fires at once, zero disarms */
    assert_true(wrmsr(DEADLINE, 1));
    advance_us(0);
    assert_int_equal(take_interrupt(), 0xec);
    assert_true(wrmsr(EOI, 0));
    assert_true(wrmsr(DEADLINE, tsc_now() + 100));
    assert_true(wrmsr(DEADLINE, 0));
    advance_us(100);
    assert_int_equal(take_interrupt(), -1);
    /* a masked timer runs out silently; a change of mode disarms */
    assert_true(wrmsr(LVT_TIMER, 0x500ec));
    assert_true(wrmsr(DEADLINE, tsc_now() + 100));
    advance_us(10);
    assert_int_equal(take_interrupt(), -1);
    assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
    assert_true(wrmsr(DEADLINE, tsc_now() + 100));
    assert_true(wrmsr(LVT_TIMER, 0xec));
    assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
    assert_int_equal(stats().timer_interrupts, 2);
}

static void count_modes_never_fire(void **state)
{
    static const u32 modes[] = {0x30, 0x20030};
    for (u32 i = 0; i < ARRAY_SIZE(modes); i++) {
        assert_true(wrmsr(LVT_TIMER, modes[i]));
        assert_true(wrmsr(DIVIDE, 0xb));
        assert_true(wrmsr(INITIAL, 1));
        assert_int_equal(rdmsr(DIVIDE) | rdmsr(INITIAL) | rdmsr(CURRENT), 0);
        assert_true(platform_timer_deadline(&machine.vm) == ~0ull);
        advance_us(1000000);
        assert_int_equal(take_interrupt(), -1);
    }
    assert_false(wrmsr(CURRENT, 1));
}

#define FLAG 0x2000u

static void pv_eoi_saves_the_exit(void **state)
{
    u8 *flag = machine.ram + FLAG;
    assert_true(wrmsr(PV_EOI, FLAG | 1));
    message(0x41);
    assert_int_equal(take_interrupt(), 0x41);
    assert_int_equal(*flag, 1);
    platform_after_exit(&machine.vm); /* an exit in the handler's middle changes nothing */
    assert_int_equal(*flag, 1);
    assert_int_equal(rdmsr(PPR), 0x40);
    *flag = 0; /* the guest ends it */
    platform_after_exit(&machine.vm);
    assert_int_equal(rdmsr(PPR), 0);
    assert_int_equal(stats().pv_eois, 1);
    assert_int_equal(stats().eoi_exits, 0);
    platform_after_exit(&machine.vm); /* only once */
    assert_int_equal(stats().pv_eois, 1);
}

static void pv_eoi_is_withdrawn_for_a_waiting_request(void **state)
{
    u8 *flag = machine.ram + FLAG;
    assert_true(wrmsr(PV_EOI, FLAG | 1));
    message(0x41);
    assert_int_equal(take_interrupt(), 0x41);
    /* It arrives while the guest runs elsewhere: kicked, although 0x31 has to wait, and the flag is taken back after
     * the exit. */
    machine.vm.vcpu.in_guest = true;
    message(0x31);
    assert_int_equal(machine.kicks, 1);
    assert_int_equal(*flag, 1);
    machine.vm.vcpu.in_guest = false;
    platform_after_exit(&machine.vm);
    assert_int_equal(*flag, 0);
    assert_int_equal(take_interrupt(), -1);
    platform_after_exit(&machine.vm); /* flag clear, but not offered: not an end */
    assert_int_equal(take_interrupt(), -1);
    assert_true(wrmsr(EOI, 0));
    /* The guest had ended it just before the kick: then the next one goes in at once. */
    assert_int_equal(take_interrupt(), 0x31);
    assert_int_equal(*flag, 1);
    machine.vm.vcpu.in_guest = true;
    *flag = 0;
    message(0x21);
    machine.vm.vcpu.in_guest = false;
    platform_after_exit(&machine.vm);
    assert_int_equal(take_interrupt(), 0x21);
    /* With something else requested there is no offer. */
    message(0x22);
    assert_int_equal(*flag, 0);
}

static void pv_eoi_not_while_another_waits(void **state)
{
    assert_true(wrmsr(PV_EOI, FLAG | 1));
    machine.ram[FLAG] = 0;
    message(0x41);
    message(0x51);
    assert_int_equal(take_interrupt(), 0x51);
    assert_int_equal(machine.ram[FLAG], 0); /* 0x41 must not wait for a chance exit */
    assert_true(wrmsr(EOI, 0));
    assert_int_equal(take_interrupt(), 0x41);
    assert_int_equal(machine.ram[FLAG], 1);
}

static void pv_eoi_and_the_register_do_not_add_up(void **state)
{
    u8 *flag = machine.ram + FLAG;
    assert_true(wrmsr(PV_EOI, FLAG | 1));
    message(0x41);
    assert_int_equal(take_interrupt(), 0x41);
    message(0x51); /* nested: 0x41 must then be ended with an exit */
    assert_int_equal(take_interrupt(), 0x51);
    assert_int_equal(*flag, 1);
    assert_true(wrmsr(EOI, 0)); /* the guest ignores the flag */
    assert_int_equal(*flag, 0);
    platform_after_exit(&machine.vm);
    assert_int_equal(rdmsr(PPR), 0x40); /* 0x41 is still in service */
    assert_true(wrmsr(EOI, 0));
    assert_int_equal(rdmsr(PPR), 0);
}

static void pv_eoi_address_is_checked(void **state)
{
    assert_false(wrmsr(PV_EOI, MACHINE_RAM | 1));
    assert_false(wrmsr(PV_EOI, (MACHINE_RAM - 2) | 3));
    assert_false(wrmsr(PV_EOI, 0xfffffffffffffffdull));
    assert_false(wrmsr(PV_EOI, FLAG | 3));
    assert_false(rdmsr_ok(PV_EOI)); /* write-only */
    message(0x40);
    assert_int_equal(take_interrupt(), 0x40);
    platform_after_exit(&machine.vm);
    assert_int_equal(rdmsr(PPR), 0x40); /* what was refused offers nothing */
    assert_int_equal(machine.ram[FLAG], 0);
    assert_true(wrmsr(EOI, 0));
    assert_true(wrmsr(PV_EOI, (MACHINE_RAM - 4) | 1));
    message(0x41);
    assert_int_equal(take_interrupt(), 0x41);
    assert_int_equal(machine.ram[MACHINE_RAM - 4], 1);
    assert_true(wrmsr(PV_EOI, 0)); /* switched off in service: the flag goes, the interrupt stays */
    assert_int_equal(machine.ram[MACHINE_RAM - 4], 0);
    assert_int_equal(rdmsr(PPR), 0x40);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(start_state),
        TEST(the_highest_class_goes_first),
        TEST(task_priority_holds_back),
        TEST(priorities_match_a_search),
        TEST(switched_off_it_takes_nothing),
        TEST(illegal_vectors_are_lost),
        TEST(ipis_reach_only_this_cpu),
        TEST(nmis_reach_this_cpu),
        TEST(messages_are_checked),
        TEST(running_vcpu_is_kicked),
        TEST(deadline_mode),
        TEST(count_modes_never_fire),
        TEST(pv_eoi_saves_the_exit),
        TEST(pv_eoi_is_withdrawn_for_a_waiting_request),
        TEST(pv_eoi_not_while_another_waits),
        TEST(pv_eoi_and_the_register_do_not_add_up),
        TEST(pv_eoi_address_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
