/* VM exits: the one dispatch. */
#include "hv/exit/dispatch.h"

#include "hv/platform/platform.h"

void exit_dispatch(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    const exit_handler *table = vcpu->vm->driver ? exit_driver_handlers : exit_guest_handlers;

    if (!vcpu->vm->driver)
        platform_after_exit(vcpu->vm);
    if (exit->kind == EXIT_INTERRUPT || exit->kind == EXIT_WINDOW)
        return; /* the run loop takes what came, and finds the window open before the next entry */
    if (table[exit->kind])
        table[exit->kind](vcpu, exit);
    else
        vm_fail(vcpu->vm, exit->kind == EXIT_INVALID ? "CPU state that no CPU enters" : "unexpected exit", exit->code);
}
