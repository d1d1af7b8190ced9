/*
 * The run loop of each CPU, and which vCPU it runs: driver VMs before the main guest, round robin among them. Where
 * they share a CPU with the guest, a driver VM that has kept the guest waiting for GUEST_PATIENCE gives it one slice.
 * With two or more CPUs the guest has the last one for itself.
 */
#pragma once

#include "hv/core/cpu.h"
#include "hv/core/vm.h"

#define TICK_US 1000u
/* While an image comes over the control port, whose FIFO holds 16 bytes. */
#define TICK_INPUT_US 200u
#define GUEST_PATIENCE_US 10000u

/* Which CPU a VM's vCPU lives on; boot, before any CPU runs VMs. */
u32 schedule_home(const struct vm *vm);

/* The run loop. Never returns. Lock not held. */
_Noreturn void schedule_run(void);
