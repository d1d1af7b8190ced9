/* SOURCES: hv/arch/x86/vmx/capabilities.c hv/arch/x86/vmx/check.c */
/* What the VMX back end makes of a CPU's capability MSRs: controls that the CPU accepts, or what it lacks, by name. */
#include "hv/arch/x86/vmx/vmx.h"

#include "tests/unit/random.h"
#include "tests/unit/vmx_world.h"

#define BASIC_TRUE_CONTROLS (1ull << 55)
#define EPT_2M (1ull << 16)
#define EPT_1G (1ull << 17)
#define EPT_ACCESSED_DIRTY (1ull << 21)

/* The start state of start_state() with the controls that were computed, as state.c writes them. */
static struct world with_controls(const struct vmx_capabilities *caps, const struct vmx_controls *out, bool long_mode)
{
    struct world w = start_state(&recorded_skylake, long_mode);

    w.caps = *caps;
    V(PIN_CONTROLS) = out->pin;
    V(PRIMARY_CONTROLS) = out->primary;
    V(SECONDARY_CONTROLS) = out->secondary;
    V(EXIT_CONTROLS) = out->exit;
    V(ENTRY_CONTROLS) = out->entry | (long_mode ? ENTRY_CONTROL_GUEST_64 : 0);
    V(EPT_POINTER) = 0x20000 | out->ept_pointer;
    V(GUEST_CR0) |= out->cr0_set;
    V(GUEST_CR4) = (V(GUEST_CR4) & out->cr4_allowed) | out->cr4_set;
    return w;
}

/* These controls are what the back end is built on: each is set, and the CPU takes them all. */
static void expect_usable(const struct vmx_capabilities *caps, const char *name)
{
    const u32 later = PRIMARY_INTERRUPT_WINDOW | PRIMARY_NMI_WINDOW | PRIMARY_CR3_LOAD | PRIMARY_MOV_DR;
    struct vmx_controls out;
    const char *absent = vmx_controls_compute(caps, &out);

    if (absent)
        fail_msg("%s: %s", name, absent);
    assert_int_equal(~out.pin & (PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI), 0);
    assert_int_equal(~out.primary & (PRIMARY_HLT | PRIMARY_IO_BITMAPS | PRIMARY_MSR_BITMAPS | PRIMARY_SECONDARY), 0);
    assert_int_equal(~out.secondary & (SECONDARY_EPT | SECONDARY_VPID | SECONDARY_UNRESTRICTED | SECONDARY_WBINVD), 0);
    assert_int_equal(~out.exit & (EXIT_CONTROL_HOST_64 | EXIT_CONTROL_LOAD_EFER | EXIT_CONTROL_LOAD_PAT), 0);
    assert_int_equal(~out.entry & (ENTRY_CONTROL_LOAD_EFER | ENTRY_CONTROL_LOAD_PAT), 0);
    assert_int_equal(out.primary & later, 0);
    assert_int_equal(out.entry & ENTRY_CONTROL_GUEST_64, 0);
    assert_int_equal(out.cr0_set & (CR0_PE | CR0_PG), 0);
    assert_int_equal(!!(out.pin & PIN_PREEMPTION_TIMER), out.preemption_timer);
    for (u32 i = 0; i < 4; i++) { /* in both modes, with what comes and goes and without */
        struct world w = with_controls(caps, &out, i & 1);
        V(PRIMARY_CONTROLS) |= i & 2 ? later : 0;
        expect(&w, NULL, name);
    }
}

static void recorded_sets_are_usable(void **state)
{
    for (u32 i = 0; i < ARRAY_SIZE(recorded); i++)
        expect_usable(recorded[i].caps, recorded[i].name);
}

static void what_recorded_sets_offer(void **state)
{
    struct vmx_controls out;

    for (u32 i = 0; i < ARRAY_SIZE(recorded); i++) {
        assert_null(vmx_controls_compute(recorded[i].caps, &out));
        assert_int_equal(out.ept_superpages, 1 << 1 | 1 << 2);
        assert_true(out.preemption_timer);
        assert_int_equal(out.timer_shift, recorded[i].caps->msr[CAP_MISC] & 31);
        assert_int_equal(out.ept_pointer & 0x3f, 3 << 3 | 6);
        assert_int_equal(out.cr0_set, CR0_NE);
        assert_int_equal(out.cr4_set, CR4_VMXE);
        assert_int_equal(out.cr4_allowed, recorded[i].caps->msr[CAP_CR4_FIXED1]);
    }
    assert_null(vmx_controls_compute(&recorded_kvm, &out));
    assert_int_equal(out.timer_shift, 5); /* KVM's emulated rate */
}

/* Neither of the two MSRs of a control allows that bit (and no longer demands it). */
static void forbid(struct vmx_capabilities *caps, enum vmx_capability which, u32 bit)
{
    caps->msr[which] &= ~(1ull << 32 << bit | 1ull << bit);
    if (which >= CAP_PIN && which <= CAP_ENTRY)
        caps->msr[which - CAP_PIN + CAP_TRUE_PIN] &= ~(1ull << 32 << bit | 1ull << bit);
}

static void works_with_less(void **state)
{
    for (u32 i = 0; i < ARRAY_SIZE(recorded); i++) {
        struct vmx_capabilities caps = *recorded[i].caps;
        struct vmx_controls out;

        caps.msr[CAP_EPT_VPID] &= ~EPT_1G;
        expect_usable(&caps, "no 1 GiB pages");
        assert_null(vmx_controls_compute(&caps, &out));
        assert_int_equal(out.ept_superpages, 1 << 1);
        caps.msr[CAP_EPT_VPID] &= ~EPT_2M;
        expect_usable(&caps, "no superpages");
        assert_null(vmx_controls_compute(&caps, &out));
        assert_int_equal(out.ept_superpages, 0);
        caps.msr[CAP_EPT_VPID] &= ~EPT_ACCESSED_DIRTY;
        expect_usable(&caps, "no accessed and dirty flags");
        forbid(&caps, CAP_PIN, 6);
        expect_usable(&caps, "no preemption timer");
        assert_null(vmx_controls_compute(&caps, &out));
        assert_false(out.preemption_timer);
    }
}

static void expect_refusal(const struct vmx_capabilities *caps, const char *what, const char *where)
{
    struct vmx_controls out;
    const char *absent = vmx_controls_compute(caps, &out);

    if (!absent || !strstr(absent, what) || !strstr(absent, where))
        fail_msg("says \"%s\", not \"%s\" and \"%s\"", absent ? absent : "nothing", what, where);
}

/* Required, and absent: what it is called, and where the CPU says so. */
static const struct {
    enum vmx_capability msr;
    u32 bit; /* of the control; of the EPT and VPID capabilities */
    const char *what, *where;
} required[] = {
    {CAP_PIN, 0, "external-interrupt exiting", "PINBASED_CTLS bit 32"},
    {CAP_PIN, 3, "NMI exiting", "PINBASED_CTLS bit 35"},
    {CAP_PIN, 5, "virtual NMIs", "PINBASED_CTLS bit 37"},
    {CAP_PRIMARY, 2, "interrupt-window exiting", "PROCBASED_CTLS bit 34"},
    {CAP_PRIMARY, 7, "HLT exiting", "PROCBASED_CTLS bit 39"},
    {CAP_PRIMARY, 22, "NMI-window exiting", "PROCBASED_CTLS bit 54"},
    {CAP_PRIMARY, 25, "I/O bitmaps", "PROCBASED_CTLS bit 57"},
    {CAP_PRIMARY, 28, "MSR bitmaps", "PROCBASED_CTLS bit 60"},
    {CAP_PRIMARY, 31, "secondary controls", "PROCBASED_CTLS bit 63"},
    {CAP_SECONDARY, 1, "extended page tables", "PROCBASED_CTLS2 bit 33"},
    {CAP_SECONDARY, 5, "VPIDs", "PROCBASED_CTLS2 bit 37"},
    {CAP_SECONDARY, 6, "WBINVD exiting", "PROCBASED_CTLS2 bit 38"},
    {CAP_SECONDARY, 7, "unrestricted guest", "PROCBASED_CTLS2 bit 39"},
    {CAP_EXIT, 9, "64-bit host", "EXIT_CTLS bit 41"},
    {CAP_EXIT, 21, "loading of IA32_EFER at exits", "EXIT_CTLS bit 53"},
    {CAP_ENTRY, 9, "64-bit guests", "ENTRY_CTLS bit 41"},
    {CAP_ENTRY, 15, "loading of IA32_EFER at entries", "ENTRY_CTLS bit 47"},
    {CAP_EPT_VPID, 6, "EPT of four levels", "EPT_VPID_CAP bit 6"},
    {CAP_EPT_VPID, 14, "write-back EPT", "EPT_VPID_CAP bit 14"},
    {CAP_EPT_VPID, 20, "INVEPT", "EPT_VPID_CAP bit 20"},
    {CAP_EPT_VPID, 25, "single-context INVEPT", "EPT_VPID_CAP bit 25"},
    {CAP_EPT_VPID, 26, "all-context INVEPT", "EPT_VPID_CAP bit 26"},
    {CAP_EPT_VPID, 32, "INVVPID", "EPT_VPID_CAP bit 32"},
    {CAP_EPT_VPID, 41, "single-context INVVPID", "EPT_VPID_CAP bit 41"},
    {CAP_EPT_VPID, 42, "all-context INVVPID", "EPT_VPID_CAP bit 42"},
};

static void what_is_required_and_absent_is_named(void **state)
{
    for (u32 cpu = 0; cpu < ARRAY_SIZE(recorded); cpu++) {
        for (u32 i = 0; i < ARRAY_SIZE(required); i++) {
            struct vmx_capabilities caps = *recorded[cpu].caps;
            if (required[i].msr == CAP_EPT_VPID)
                caps.msr[CAP_EPT_VPID] &= ~(1ull << required[i].bit);
            else
                forbid(&caps, required[i].msr, required[i].bit);
            expect_refusal(&caps, required[i].what, required[i].where);
        }
    }
}

/* A control that nothing here is made for, and that cannot be off. */
static void what_cannot_be_off_is_refused(void **state)
{
    static const struct {
        enum vmx_capability msr;
        u32 bit;
        const char *where;
    } forced[] = {
        {CAP_TRUE_PIN, 7, "TRUE_PINBASED_CTLS"},       {CAP_TRUE_PRIMARY, 12, "TRUE_PROCBASED_CTLS"},
        {CAP_TRUE_PRIMARY, 15, "TRUE_PROCBASED_CTLS"}, {CAP_TRUE_EXIT, 12, "TRUE_EXIT_CTLS"},
        {CAP_TRUE_ENTRY, 10, "TRUE_ENTRY_CTLS"},
    };

    for (u32 i = 0; i < ARRAY_SIZE(forced); i++) {
        struct vmx_capabilities caps = recorded_skylake;
        caps.msr[forced[i].msr] |= 1ull << forced[i].bit | 1ull << 32 << forced[i].bit;
        expect_refusal(&caps, "cannot be off", forced[i].where);
    }
}

/* CPUs older than the true controls cannot let a guest write CR3 without an exit (A.2): refused, never half used. */
static void without_true_controls(void **state)
{
    struct vmx_capabilities caps = recorded_skylake;

    caps.msr[CAP_BASIC] &= ~BASIC_TRUE_CONTROLS;
    for (u32 i = CAP_TRUE_PIN; i <= CAP_TRUE_ENTRY; i++)
        caps.msr[i] = 0;
    expect_refusal(&caps, "without controls that can be off", "IA32_VMX_BASIC bit 55");
}

static void the_region_must_be_a_page_of_write_back_memory(void **state)
{
    struct vmx_capabilities caps = recorded_skylake;

    caps.msr[CAP_BASIC] &= ~(15ull << 50);
    expect_refusal(&caps, "write-back memory", "IA32_VMX_BASIC");
    caps = recorded_skylake;
    caps.msr[CAP_BASIC] |= 0x1fffull << 32;
    expect_refusal(&caps, "one page", "IA32_VMX_BASIC");
}

/* Locked off is refused; locked on stays as it is, since a write would be #GP; unlocked is switched on and locked. */
static void what_firmware_left(void **state)
{
    static const struct {
        u64 left, wanted; /* 0: refused */
    } cases[] = {{0, 5}, {4, 5}, {5, 5}, {0x60000, 0x60005}, {0x100005, 0x100005}, {1, 0}, {3, 0}, {0x60001, 0}};

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        struct vmx_capabilities caps = recorded_skylake;
        struct vmx_controls out;

        caps.feature_control = cases[i].left;
        if (cases[i].wanted) {
            assert_null(vmx_controls_compute(&caps, &out));
            assert_int_equal(out.feature_control, cases[i].wanted);
        } else {
            expect_refusal(&caps, "switched off by firmware", "IA32_FEATURE_CONTROL");
        }
    }
}

/* A CPU that lacks or demands some bits more: either that is refused, or what is computed is what it takes. */
static void refused_or_accepted(void **state)
{
    struct random random = random_start("vmx_capabilities");
    u32 refused = 0, accepted = 0;

    for (u32 round = 0; round < 20000; round++) {
        struct vmx_capabilities caps = *recorded[random_below(&random, ARRAY_SIZE(recorded))].caps;
        struct vmx_controls out;

        for (u64 flips = random_below(&random, 4); flips > 0; flips--) {
            u64 msr = random_between(&random, CAP_PIN, CAP_TRUE_ENTRY), bit = random_below(&random, 32);
            if (msr >= CAP_MISC && msr <= CAP_VMCS_ENUM)
                continue;
            if (random_one_in(&random, 2))
                caps.msr[msr] &= ~(1ull << 32 << bit | 1ull << bit);
            else if (msr != CAP_EPT_VPID)
                caps.msr[msr] |= 1ull << 32 << bit | 1ull << bit;
        }
        if (vmx_controls_compute(&caps, &out)) {
            refused++;
            continue;
        }
        accepted++;
        struct world w = with_controls(&caps, &out, true);
        expect(&w, NULL, "a changed CPU");
    }
    assert_true(refused > 1000 && accepted > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_sets_are_usable),
        cmocka_unit_test(what_recorded_sets_offer),
        cmocka_unit_test(works_with_less),
        cmocka_unit_test(what_is_required_and_absent_is_named),
        cmocka_unit_test(what_cannot_be_off_is_refused),
        cmocka_unit_test(without_true_controls),
        cmocka_unit_test(the_region_must_be_a_page_of_write_back_memory),
        cmocka_unit_test(what_firmware_left),
        cmocka_unit_test(refused_or_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
