/* VM exits: one table a kind of VM, one handler an exit. An exit that the table does not name fails that VM, never the
 * machine. */
#pragma once

#include "hv/core/vm.h"

/* Handle the exit. Lock held, on the vCPU's CPU. */
void exit_dispatch(struct vcpu *vcpu, const struct vcpu_exit *exit);

/* Before an entry of the main guest: give it the interrupt that is due, or ask for a window. */
void exit_guest_prepare(struct vcpu *vcpu);

typedef void (*exit_handler)(struct vcpu *vcpu, const struct vcpu_exit *exit);
extern const exit_handler exit_guest_handlers[EXIT_KINDS];
extern const exit_handler exit_driver_handlers[EXIT_KINDS];
