/* VMX exits as the neutral record tells them, and what an exit leaves to be done at the next entry. */
/* SOURCES: hv/arch/x86/vmx/exit.c hv/core/vcpu.c */
#include "hv/arch/x86/vmx/vmx.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/core/cpu.h"
#include "shared/lib/string.h"
#include "tests/unit/unit.h"

static u64 vmcs[0x8000]; /* by encoding */
static struct vm vm;
static struct vcpu vcpu;
static struct vmx_vcpu vmx;
static struct vcpu_exit out;
static u64 debug_qualification;

u64 vmcs_read(enum vmcs_field field)
{
    return vmcs[field];
}
void vmcs_write(enum vmcs_field field, u64 value)
{
    vmcs[field] = value;
}
void vmx_debug_exception(struct vcpu *v, u64 qualification)
{
    debug_qualification = qualification;
}

const struct vcpu_vendor *vendor;
struct cpu cpus[CPU_MAX];
void apic_send(u32 destination, u8 vector)
{
    fail();
}

static int fresh(void **state)
{
    memset(vmcs, 0, sizeof(vmcs));
    vm = (struct vm){0};
    vmx = (struct vmx_vcpu){0};
    vcpu = (struct vcpu){.vm = &vm, .arch = &vmx};
    debug_qualification = 0;
    return 0;
}

static void exit_with(u32 reason, u64 qualification, u32 length)
{
    vmcs[VMCS_EXIT_REASON] = reason;
    vmcs[VMCS_EXIT_QUALIFICATION] = qualification;
    vmcs[VMCS_EXIT_INSTRUCTION_LENGTH] = length;
    vmx_decode_exit(&vcpu, &out);
}

static void kinds(void **state)
{
    static const struct {
        u32 reason;
        enum exit_kind kind;
    } cases[] = {
        {1, EXIT_INTERRUPT},
        {2, EXIT_SHUTDOWN},
        {7, EXIT_WINDOW},
        {8, EXIT_WINDOW},
        {9, EXIT_TASK_SWITCH},
        {10, EXIT_CPUID},
        {11, EXIT_UNDEFINED},
        {12, EXIT_HLT},
        {13, EXIT_CACHE},
        {15, EXIT_UNDEFINED},
        {18, EXIT_HYPERCALL},
        {19, EXIT_UNDEFINED},
        {27, EXIT_UNDEFINED},
        {36, EXIT_UNDEFINED},
        {39, EXIT_UNDEFINED},
        {49, EXIT_INVALID},
        {50, EXIT_UNDEFINED},
        {52, EXIT_INTERRUPT},
        {53, EXIT_UNDEFINED},
        {54, EXIT_CACHE},
        {55, EXIT_UNDEFINED},
        {14, EXIT_UNKNOWN},
        {29, EXIT_UNKNOWN},
        {37, EXIT_UNKNOWN},
        {56, EXIT_UNKNOWN},
        {0xffff, EXIT_UNKNOWN},
        {1u << 31 | 33, EXIT_INVALID},
        {1u << 31, EXIT_INVALID},
        {1u << 31 | 41, EXIT_INVALID},
    };

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        exit_with(cases[i].reason, 0, 3);
        assert_int_equal(out.kind, cases[i].kind);
        if (out.kind == EXIT_UNKNOWN || out.kind == EXIT_INVALID)
            assert_int_equal(out.code, cases[i].reason);
    }
    exit_with(10, 0, 4); /* with prefixes */
    assert_int_equal(out.instruction_length, 4);
}

static void ports(void **state)
{
    exit_with(30, 0x3f8ull << 16 | 0, 2); /* OUT, one byte */
    assert_int_equal(out.kind, EXIT_PIO);
    assert_int_equal(out.pio.port, 0x3f8);
    assert_int_equal(out.pio.width, 1);
    assert_true(out.pio.write);
    assert_false(out.pio.string);
    exit_with(30, 0xcfcull << 16 | 1 << 3 | 3, 1); /* IN, four */
    assert_int_equal(out.pio.port, 0xcfc);
    assert_int_equal(out.pio.width, 4);
    assert_false(out.pio.write);
    exit_with(30, 0xffffull << 16 | 1 << 5 | 1 << 4 | 1, 2); /* REP OUTSW */
    assert_true(out.pio.string);
    assert_int_equal(out.pio.width, 2);
}

static void msrs(void **state)
{
    vcpu.regs.rcx = 0xffffffffc0000080ull;
    exit_with(31, 0, 2);
    assert_int_equal(out.kind, EXIT_MSR);
    assert_int_equal(out.msr.index, 0xc0000080);
    assert_false(out.msr.write);
    exit_with(32, 0, 2);
    assert_true(out.msr.write);
}

static void nested_faults(void **state)
{
    vmcs[VMCS_GUEST_PHYSICAL_ADDRESS] = 0xfec00010;
    exit_with(48, 1 << 8 | 1 << 7 | 2, 9);
    assert_int_equal(out.kind, EXIT_NESTED_FAULT);
    assert_int_equal(out.nested.address.v, 0xfec00010);
    assert_true(out.nested.write && !out.nested.fetch && !out.nested.table_walk);
    assert_int_equal(out.instruction_length, 0); /* the field means nothing here */
    exit_with(48, 1 << 8 | 1 << 7 | 4, 0);
    assert_true(!out.nested.write && out.nested.fetch && !out.nested.table_walk);
    exit_with(48, 1 << 7 | 1, 0); /* the guest's own table */
    assert_true(out.nested.table_walk);
    exit_with(48, 1, 0); /* PDPTEs: no linear address at all */
    assert_true(out.nested.table_walk);
}

static void control_registers(void **state)
{
    vcpu.regs.r13 = 7;
    exit_with(28, 13 << 8 | 8, 4); /* MOV CR8, R13 */
    assert_int_equal(out.kind, EXIT_CR);
    assert_int_equal(out.cr.cr, 8);
    assert_int_equal(out.cr.reg, 13);
    assert_true(out.cr.write);
    exit_with(28, 4 << 8 | 1 << 4 | 8, 3); /* MOV RSP, CR8 */
    assert_int_equal(out.cr.reg, 4);
    assert_false(out.cr.write);
    exit_with(28, 4, 3);
    assert_int_equal(out.kind, EXIT_CR);
    exit_with(28, 2 << 4, 2); /* CLTS, LMSW: not without a mask over their bits */
    assert_int_equal(out.kind, EXIT_UNKNOWN);
    exit_with(28, 3 << 4, 3);
    assert_int_equal(out.kind, EXIT_UNKNOWN);
}

/* The shadow takes what the guest writes, so that the instruction does not exit again; or it is #GP. */
static void cr0_of_the_guest(void **state)
{
    static const struct {
        u64 value;
        bool good;
    } cases[] = {
        {CR0_PE | CR0_PG, true}, {CR0_CD, true}, {CR0_CD | CR0_NW, true}, {CR0_NW, false}, {1ull << 32 | CR0_NE, false},
    };

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        vmcs[VMCS_CR0_SHADOW] = 0x55;
        vcpu.regs.rbx = cases[i].value;
        exit_with(28, 3 << 8, 3);
        assert_int_equal(out.kind, cases[i].good ? EXIT_INTERRUPT : EXIT_CR);
        assert_true(vmcs[VMCS_CR0_SHADOW] == (cases[i].good ? cases[i].value : 0x55));
    }
    vm.driver = (struct driver *)&vm; /* a driver VM has no business with it */
    vmcs[VMCS_CR0_SHADOW] = 0x55;
    vcpu.regs.rbx = CR0_PE;
    exit_with(28, 3 << 8, 3);
    assert_int_equal(out.kind, EXIT_CR);
    assert_int_equal(vmcs[VMCS_CR0_SHADOW], 0x55);
}

static void exceptions(void **state)
{
    vmcs[VMCS_EXIT_EVENT] = EVENT_VALID | EVENT_TYPE_EXCEPTION | 1;
    exit_with(0, 0x4001, 7);
    assert_int_equal(out.kind, EXIT_EXCEPTION);
    assert_int_equal(out.exception.vector, 1);
    assert_int_equal(out.instruction_length, 0);
    assert_int_equal(debug_qualification, 0x4001);

    debug_qualification = 0;
    vmcs[VMCS_EXIT_EVENT] = EVENT_VALID | EVENT_TYPE_PRIVILEGED_SOFT | 1; /* INT1: DR6 stays, RIP moves on */
    exit_with(0, 0, 1);
    assert_int_equal(out.kind, EXIT_EXCEPTION);
    assert_int_equal(out.instruction_length, 1);
    assert_int_equal(debug_qualification, 0);

    vmcs[VMCS_EXIT_EVENT] = EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 17;
    vmcs[VMCS_EXIT_EVENT_ERROR] = 0x10;
    exit_with(0, 0, 0);
    assert_int_equal(out.exception.vector, 17);
    assert_int_equal(out.exception.error_code, 0x10);

    vmcs[VMCS_EXIT_EVENT] = EVENT_VALID | EVENT_TYPE_NMI | 2;
    exit_with(0, 0, 0);
    assert_int_equal(out.kind, EXIT_INTERRUPT);
}

static void events_cut_short_are_done_again(void **state)
{
    exit_with(48, 1 << 8 | 1 << 7, 0);
    assert_int_equal(vcpu.event, 0);

    vmcs[VMCS_VECTORING_EVENT] =
        EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 1 << 12 | 14; /* bit 12: undefined */
    vmcs[VMCS_VECTORING_EVENT_ERROR] = 2;
    exit_with(48, 1 << 8 | 1 << 7, 0);
    assert_int_equal(vcpu.event, EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 14);
    assert_int_equal(vcpu.event_error, 2);

    vmcs[VMCS_VECTORING_EVENT] = EVENT_VALID | EVENT_TYPE_SOFT_INTERRUPT | 0x80;
    exit_with(48, 1 << 8 | 1 << 7, 2);
    assert_int_equal(vcpu.event, 0); /* RIP is still at the instruction, which does it again */

    vmcs[VMCS_VECTORING_EVENT] = EVENT_VALID | EVENT_TYPE_NMI | 2;
    vmx.interruptibility = BLOCKED_BY_NMI;
    exit_with(48, 1 << 12 | 1 << 8 | 1 << 7, 0);
    assert_int_equal(vcpu.event, EVENT_VALID | EVENT_TYPE_NMI | 2);
    assert_int_equal(vmx.interruptibility, 0);
}

static void a_fault_of_iret_blocks_nmis_again(void **state)
{
    exit_with(48, 1 << 12 | 1 << 8 | 1 << 7, 0);
    assert_int_equal(vmx.interruptibility, BLOCKED_BY_NMI);

    vmx.interruptibility = 0;
    vmcs[VMCS_EXIT_EVENT] = EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_NMI_UNBLOCKED | EVENT_HAS_ERROR | 17;
    exit_with(0, 0, 0);
    assert_int_equal(vmx.interruptibility, BLOCKED_BY_NMI);

    vmx.interruptibility = 0;
    vmcs[VMCS_EXIT_EVENT] =
        EVENT_VALID | EVENT_TYPE_EXCEPTION | EVENT_NMI_UNBLOCKED | EVENT_HAS_ERROR | 8; /* undefined */
    exit_with(0, 0, 0);
    assert_int_equal(vmx.interruptibility, 0);
    exit_with(30, 1 << 12 | 0x10 << 16, 1); /* bit 12 means something else in other qualifications */
    assert_int_equal(vmx.interruptibility, 0);
}

static void a_refused_entry_leaves_nothing(void **state)
{
    vmcs[VMCS_VECTORING_EVENT] = EVENT_VALID | 0x40; /* of an exit before */
    exit_with(1u << 31 | 33, 0, 0);
    assert_int_equal(vcpu.event, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(kinds, fresh),
        cmocka_unit_test_setup(ports, fresh),
        cmocka_unit_test_setup(msrs, fresh),
        cmocka_unit_test_setup(nested_faults, fresh),
        cmocka_unit_test_setup(control_registers, fresh),
        cmocka_unit_test_setup(cr0_of_the_guest, fresh),
        cmocka_unit_test_setup(exceptions, fresh),
        cmocka_unit_test_setup(events_cut_short_are_done_again, fresh),
        cmocka_unit_test_setup(a_fault_of_iret_blocks_nmis_again, fresh),
        cmocka_unit_test_setup(a_refused_entry_leaves_nothing, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
