#include "drivervm/runtime/exception.h"
#include "drivervm/runtime/hypercall.h"
#include "shared/x86/descriptors.h"

#define VECTORS 32u
#define CODE_SELECTOR 0x08u

extern const u64 exception_stubs[VECTORS]; /* start.S */
void exception_load(const struct descriptor_pointer *gdt, const struct descriptor_pointer *idt);

static const u64 gdt[] = {0, DESCRIPTOR_CODE_64, DESCRIPTOR_DATA};
static struct gate idt[VECTORS];

/* Called by the stubs. */
void exception_report(const struct exception_frame *frame);

void exception_report(const struct exception_frame *frame)
{
    hypercall(HYPERCALL_FAULT, DRIVER_FAULT_EXCEPTION, frame->vector << 56 | (frame->rip & 0x00ffffffffffffffull),
              (u64)frame);
    for (;;) /* as in driver_fault() */
        asm volatile("pause");
}

void exception_enable(void)
{
    const struct descriptor_pointer gdt_register = {sizeof(gdt) - 1, (u64)gdt};
    const struct descriptor_pointer idt_register = {sizeof(idt) - 1, (u64)idt};

    exception_load(&gdt_register, &idt_register);
}

void exception_setup(void)
{
    for (u32 v = 0; v < VECTORS; v++)
        idt[v] = gate_create(exception_stubs[v], CODE_SELECTOR, 0);
    exception_enable();
}
