/* VM exits: the one dispatch. */
#include "hv/exit/dispatch.h"

#include "hv/arch/x86/vendor.h"
#include "hv/platform/platform.h"

void exit_dispatch(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    const exit_handler *table = vcpu->vm->driver ? exit_driver_handlers : exit_guest_handlers;

    /*
     * Stopped meanwhile: what ended the trip is nobody's, and if the CPU had to wait for the lock, the registers may be
     * those of a fresh start by now.
     */
    if (vcpu->stops != vcpu->stops_at_entry)
        return;
    if (!vcpu->vm->driver)
        platform_after_exit(vcpu->vm);
    if (exit->kind == EXIT_INTERRUPT || exit->kind == EXIT_WINDOW)
        return; /* the run loop takes what came, and finds the window open before the next entry */
    if (exit->kind == EXIT_INVALID)
        vendor->explain(vcpu, exit->code);
    if (table[exit->kind])
        table[exit->kind](vcpu, exit);
    else
        vm_fail(vcpu->vm,
                exit->kind == EXIT_INVALID       ? "CPU state that no CPU enters"
                : exit->kind == EXIT_TASK_SWITCH ? "task switch by hardware"
                                                 : "unexpected exit",
                exit->code);
}
