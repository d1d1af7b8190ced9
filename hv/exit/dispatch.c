/* VM exits: the one dispatch. */
#include "hv/exit/dispatch.h"

#include "hv/platform/platform.h"

void exit_dispatch(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    const exit_handler *table = vcpu->vm->driver ? exit_driver_handlers : exit_guest_handlers;

    if (!vcpu->vm->driver)
        platform_after_exit(vcpu->vm);
    if (exit->kind < EXIT_KINDS && table[exit->kind])
        table[exit->kind](vcpu, exit);
    else
        vm_fail(vcpu->vm, "unexpected exit", exit->code);
}
