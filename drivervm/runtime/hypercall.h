/*
 * The calls into the hypervisor (shared/abi/hypercall.h). Host tests link their own hypercall() instead of hypercall.c.
 * Context: the VM's one thread of control; nothing interrupts it.
 */
#pragma once

#include "shared/abi/hypercall.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

/* Choose the instruction, enum driver_vendor_call. Once, before the first call. */
void hypercall_select(u32 vendor_call);

/* One call; unused arguments are 0. Returns what the hypervisor answers: >= 0, or a negative status_t. */
i64 hypercall(enum hypercall call, u64 a, u64 b, u64 c);

/* Give up on ourselves; the hypervisor resets the device and starts a successor. detail: see enum driver_fault_code. */
__attribute__((noreturn)) void driver_fault(enum driver_fault_code code, u64 detail);

/* For what only a bug of this VM (or of the hypervisor) can break, never for what a guest or a device said. */
#define DRIVER_CHECK(condition)                                                                                        \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            driver_fault(DRIVER_FAULT_ASSERT, __LINE__);                                                               \
    } while (0)
