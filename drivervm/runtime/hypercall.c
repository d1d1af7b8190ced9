#include "drivervm/runtime/hypercall.h"

static bool use_vmcall;

void hypercall_select(u32 vendor_call)
{
    use_vmcall = vendor_call == DRIVER_VMCALL;
}

i64 hypercall(enum hypercall call, u64 a, u64 b, u64 c)
{
    i64 result = call;
    register u64 fourth asm("r10") = 0;

    /* The memory clobber: the call reads and writes buffers, rings and the events page behind the compiler's back. */
    if (use_vmcall)
        asm volatile("vmcall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(fourth) : "memory", "cc");
    else
        asm volatile("vmmcall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(fourth) : "memory", "cc");
    return result;
}

void driver_fault(enum driver_fault_code code, u64 detail)
{
    hypercall(HYPERCALL_FAULT, code, detail, 0);
    for (;;) /* it does not return; should it, stand still until the heartbeat is missed */
        asm volatile("pause");
}
