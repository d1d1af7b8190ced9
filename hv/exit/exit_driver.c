/* Exits of driver VMs. They have few reasons to exit; all others are faults, told apart by what was seen. */
#include "hv/core/driver.h"
#include "hv/exit/dispatch.h"
#include "hv/exit/hypercall.h"

static void on_hypercall(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vcpu_skip(vcpu, exit->instruction_length);
    hypercall_dispatch(vcpu);
}

/* CPUID tells a driver VM nothing: what it may know is in driver_info. */
static void on_cpuid(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vcpu->regs.rax = vcpu->regs.rbx = vcpu->regs.rcx = vcpu->regs.rdx = 0;
    vcpu_skip(vcpu, exit->instruction_length);
}

static void on_nested_fault(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    const char *what = exit->nested.fetch ? "fetch" : exit->nested.write ? "store" : "load";
    u64 at = exit->nested.address.v;

    recovery_report(vcpu->vm->driver, FAULT_NESTED_PAGE, vcpu->rip, at, "%s at %lx outside its memory, rip %lx", what,
                    at, vcpu->rip);
}

static void on_shutdown(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    (void)exit;
    recovery_report(vcpu->vm->driver, FAULT_EXCEPTION, 0, vcpu->rip, "triple fault, rip %lx", vcpu->rip);
}

static void on_exception(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    recovery_report(vcpu->vm->driver, FAULT_EXCEPTION, exit->exception.vector, vcpu->rip, "exception %u, rip %lx",
                    exit->exception.vector, vcpu->rip);
}

static void on_port(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vm_fail(vcpu->vm, "port outside its device", exit->pio.port);
}

static void on_msr(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vm_fail(vcpu->vm, exit->msr.write ? "MSR write" : "MSR read", exit->msr.index);
}

const exit_handler exit_driver_handlers[EXIT_KINDS] = {
    [EXIT_HYPERCALL] = on_hypercall,
    [EXIT_CPUID] = on_cpuid,
    [EXIT_NESTED_FAULT] = on_nested_fault,
    [EXIT_SHUTDOWN] = on_shutdown,
    [EXIT_EXCEPTION] = on_exception,
    [EXIT_PIO] = on_port,
    [EXIT_MSR] = on_msr,
};
