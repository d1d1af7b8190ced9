/*
 * What a driver VM asks (shared/abi/hypercall.h says what each call means). Every argument is hostile.
 *
 * wait() blocks the vCPU; its result is made when it runs again: whoever re-enters a vCPU whose driver->waiting is set
 * calls hypercall_wait_return() right before. Context: hv lock held, home CPU of the VM.
 */
#pragma once

#include "shared/lib/types.h"

struct driver;
struct vcpu;

/* Number and arguments from vcpu->regs, result into regs.rax. The caller has stepped over the instruction. Driver VMs
 * only. */
void hypercall_dispatch(struct vcpu *vcpu);

/* End of a blocking wait(): takes the event bits and sets regs.rax. */
void hypercall_wait_return(struct driver *driver);

/* Blocked in wait() beyond its time-out? Then driver_signal(DRIVER_EVENT_TIMEOUT) ends it: recovery_tick() does so each
 * millisecond. */
bool driver_wait_expired(const struct driver *driver, u64 now);
