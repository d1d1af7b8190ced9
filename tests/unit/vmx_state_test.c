/* DR6, which the CPU holds for the guest alone: whose #DB changes it. */
/* SOURCES: hv/arch/x86/vmx/state.c */
#include "hv/arch/x86/vmx/vmx.h"

#include "hv/arch/x86/cpu/interrupts.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/core/hypervisor.h"
#include "tests/unit/unit.h"

#include <setjmp.h>
#include <signal.h>

static u64 dr7;
static struct vmx_vcpu vmx;
struct vmx_controls vmx_controls;
hpa_t vmx_closed_map;
const char vmx_exit_entry[1];

u64 vmcs_read(enum vmcs_field field)
{
    return field == VMCS_GUEST_DR7 ? dr7 : 0;
}
void vmcs_write(enum vmcs_field field, u64 value)
{
    if (field == VMCS_GUEST_DR7)
        dr7 = value;
}
struct vmx_vcpu *vmx_use(struct vcpu *vcpu)
{
    return &vmx;
}
u64 vcpu_cr4_allowed(void)
{
    return 0;
}
u64 cpu_tss_base(const struct cpu *cpu)
{
    return 0;
}
void vcpu_reset(struct vcpu *vcpu, u64 entry)
{
}

hpa_t ptr_to_hpa(const void *p)
{
    return HPA((u64)p);
}

/* MOV DR6 is the hypervisor's to execute: here it is a signal. */
static sigjmp_buf privileged;

static void on_signal(int number)
{
    siglongjmp(privileged, number);
}

static bool touches_dr6(struct vcpu *vcpu, u64 qualification)
{
    const struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;
    volatile bool touched = true;

    assert_int_equal(sigaction(SIGSEGV, &action, &before), 0);
    if (sigsetjmp(privileged, 1) == 0) {
        vmx_debug_exception(vcpu, qualification);
        touched = false;
    }
    assert_int_equal(sigaction(SIGSEGV, &before, NULL), 0);
    return touched;
}

static void a_driver_vm_never_changes_the_guests_dr6(void **state)
{
    struct vm vm = {.driver = (struct driver *)&vm};
    struct vcpu vcpu = {.vm = &vm, .arch = &vmx, .rflags = RFLAGS_TF};

    dr7 = 0x2400;
    assert_false(touches_dr6(&vcpu, DR6_SINGLE_STEP)); /* what it has emulated, with TF */
    assert_false(touches_dr6(&vcpu, 0x4001));          /* its own #DB */
    assert_int_equal(dr7, 0x2400);
    vm.driver = NULL;
    assert_true(touches_dr6(&vcpu, DR6_SINGLE_STEP)); /* the guest's does: the test sees it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_driver_vm_never_changes_the_guests_dr6)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
