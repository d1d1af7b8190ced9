#include "drivervm/runtime/exception.h"
#include "drivervm/runtime/hypercall.h"

#define VECTORS 32u
#define CODE_SELECTOR 0x08u
#define GATE_INTERRUPT 0x8eu /* SDM 3A 6.14.1: present, DPL 0, 64-bit interrupt gate */

struct idt_gate { /* SDM 3A figure 6-8 */
    u16 offset_low;
    u16 selector;
    u8 ist;
    u8 type;
    u16 offset_middle;
    u32 offset_high;
    u32 reserved;
};
_Static_assert(sizeof(struct idt_gate) == 16, "SDM 3A 6.14.1");

struct table_register {
    u16 limit;
    u64 base;
} __attribute__((packed));

/* What the stubs of start.S leave on the stack, lowest address first. */
struct exception_frame {
    u64 vector;
    u64 error;
    u64 rip;
};

extern const u64 exception_stubs[VECTORS]; /* start.S */
void exception_load(const struct table_register *gdt, const struct table_register *idt);

static const u64 gdt[] = {0, 0x00af9b000000ffff /* 64-bit code */, 0x00cf93000000ffff /* data */};
static struct idt_gate idt[VECTORS];

/* Called by the stubs. */
void exception_report(const struct exception_frame *frame);

void exception_report(const struct exception_frame *frame)
{
    driver_fault(DRIVER_FAULT_EXCEPTION, frame->vector << 56 | (frame->rip & 0x00ffffffffffffffull));
}

void exception_setup(void)
{
    const struct table_register gdt_register = {sizeof(gdt) - 1, (u64)gdt};
    const struct table_register idt_register = {sizeof(idt) - 1, (u64)idt};

    for (u32 v = 0; v < VECTORS; v++) {
        u64 stub = exception_stubs[v];
        idt[v] = (struct idt_gate){.offset_low = (u16)stub,
                                   .selector = CODE_SELECTOR,
                                   .type = GATE_INTERRUPT,
                                   .offset_middle = (u16)(stub >> 16),
                                   .offset_high = (u32)(stub >> 32)};
    }
    exception_load(&gdt_register, &idt_register);
}
