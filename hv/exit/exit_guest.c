/* Exits of the main guest. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "hv/exit/decode.h"
#include "hv/exit/dispatch.h"
#include "hv/platform/platform.h"

#define VECTOR_UNDEFINED 6
#define VECTOR_GENERAL_PROTECTION 13

/* True: the next entry delivers it. Else there is an exit as soon as the guest can take it. */
static bool give(struct vcpu *vcpu, u32 type, u32 vector)
{
    if (!vcpu->event && vendor->can_take(vcpu, type)) {
        vcpu->event = EVENT_VALID | type | vector;
        return true;
    }
    vendor->request_window(vcpu, type);
    return false;
}

void exit_guest_prepare(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;

    if (vcpu->held) {
        if (give(vcpu, vcpu->held & EVENT_TYPE, vcpu->held & EVENT_VECTOR))
            vcpu->held = 0;
        return;
    }
    if (platform_nmi_pending(vm) && give(vcpu, EVENT_TYPE_NMI, VECTOR_NMI)) {
        platform_accept_nmi(vm);
        return;
    }
    int vector = platform_pending_vector(vm);
    if (vector >= 0 && give(vcpu, EVENT_TYPE_INTERRUPT, (u32)vector))
        platform_accept_vector(vm, (u8)vector);
}

static void on_hlt(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vcpu_skip(vcpu, exit->instruction_length);
    bool interrupt = (vcpu->held || platform_pending_vector(vcpu->vm) >= 0) && vcpu->rflags & RFLAGS_IF;
    if (!vcpu->event /* a single step's trap ends it at once */ && !interrupt && !platform_nmi_pending(vcpu->vm))
        vcpu_block(vcpu);
}

static void on_cpuid(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    u32 out[4];

    platform_cpuid((u32)vcpu->regs.rax, (u32)vcpu->regs.rcx, out);
    vcpu->regs.rax = out[0];
    vcpu->regs.rbx = out[1];
    vcpu->regs.rcx = out[2];
    vcpu->regs.rdx = out[3];
    vcpu_skip(vcpu, exit->instruction_length);
}

/* IN and OUT are moves between a port and the low bytes of RAX. */
static void on_port(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    const struct decoded_move move = {.width = exit->pio.width, .reg_width = exit->pio.width};
    u32 value = (u32)decode_register_read(&move, vcpu->regs.rax);

    if (exit->pio.string) {
        vcpu_inject_exception(vcpu, VECTOR_GENERAL_PROTECTION, 0); /* docs/PLATFORM.md: no string I/O */
        return;
    }
    vcpu_skip(vcpu, exit->instruction_length); /* first: a write may restart the guest and with it RIP */
    platform_port(vcpu->vm, exit->pio.port, exit->pio.width, exit->pio.write, &value);
    if (!exit->pio.write)
        decode_register_write(&move, &vcpu->regs.rax, value);
}

static void on_msr(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    u64 value = vcpu->regs.rdx << 32 | (u32)vcpu->regs.rax;
    bool known, ok = vcpu_msr(vcpu, exit->msr.index, exit->msr.write, &value, &known);

    if (!known)
        ok = platform_msr(vcpu->vm, exit->msr.index, exit->msr.write, &value);
    if (!ok) {
        vcpu_inject_exception(vcpu, VECTOR_GENERAL_PROTECTION, 0);
        return;
    }
    if (!exit->msr.write) {
        vcpu->regs.rax = (u32)value;
        vcpu->regs.rdx = value >> 32;
    }
    vcpu_skip(vcpu, exit->instruction_length);
}

/* Registers of a device of the platform, accessed by an aligned move. */
static void on_nested_fault(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct decoded_move move;
    u8 code[INSTRUCTION_MAX];
    u64 value = 0;

    if (exit->nested.fetch || exit->nested.table_walk) {
        vm_fail(vcpu->vm, "code or page tables outside memory", exit->nested.address.v);
        return;
    }
    u32 got = vcpu_fetch(vcpu, vcpu->rip, code, sizeof(code));
    /* With an event the access was of its delivery, whatever stands at RIP: a stack or an IDT in a device. */
    if (vcpu->event || decode_move(code, got, vendor->read(vcpu, GUEST_EFER) & EFER_LMA, &move) != OK ||
        move.write != exit->nested.write) {
        vm_fail(vcpu->vm,
                got ? "access to device memory by an instruction other than a move"
                    : "access to device memory by code that cannot be read: neither 64-bit paging nor none",
                exit->nested.address.v);
        return;
    }
    if (move.write)
        value = move.has_immediate ? move.immediate : decode_register_read(&move, *vcpu_register(vcpu, move.reg_base));
    /* What does not exist reads as ones and swallows writes, as on a bus. */
    if (!platform_memory(vcpu->vm, exit->nested.address, (u8)move.width, move.write, &value) && !move.write)
        value = ~0ull;
    if (!move.write)
        decode_register_write(&move, vcpu_register(vcpu, move.reg_base), value);
    vcpu_skip(vcpu, move.length);
}

/* CR8 is the task priority, bits 7:4 of the APIC's register (SDM 3A 10.8.6.1). */
static bool task_priority(struct vcpu *vcpu, u64 *reg, bool write)
{
    u64 value = *reg << 4;

    if ((write && *reg > 15) || !platform_msr(vcpu->vm, MSR_X2APIC_TPR, write, &value))
        return false;
    if (!write)
        *reg = value >> 4;
    return true;
}

static void on_cr(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    u64 *reg = vcpu_register(vcpu, exit->cr.reg);

    if (exit->cr.cr == 8 ? task_priority(vcpu, reg, exit->cr.write)
                         : exit->cr.cr == 4 && exit->cr.write && vcpu_cr4_write(vcpu, *reg))
        vcpu_skip(vcpu, exit->instruction_length);
    else
        vcpu_inject_exception(vcpu, VECTOR_GENERAL_PROTECTION, 0);
}

static void on_exception(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vcpu->rip += exit->instruction_length; /* of INT1, behind which no single step's trap comes */
    vcpu_inject_exception(vcpu, exit->exception.vector, exit->exception.error_code);
}

static void on_undefined(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    (void)exit;
    vcpu_inject_exception(vcpu, VECTOR_UNDEFINED, 0);
}

static void on_cache(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    vcpu_skip(vcpu, exit->instruction_length); /* memory is coherent, and INVD must never reach the hardware */
}

static void on_shutdown(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    (void)exit;
    vm_fail(vcpu->vm, "triple fault", 0);
}

const exit_handler exit_guest_handlers[EXIT_KINDS] = {
    [EXIT_HLT] = on_hlt,
    [EXIT_CPUID] = on_cpuid,
    [EXIT_PIO] = on_port,
    [EXIT_MSR] = on_msr,
    [EXIT_NESTED_FAULT] = on_nested_fault,
    [EXIT_HYPERCALL] = on_undefined,
    [EXIT_CR] = on_cr,
    [EXIT_EXCEPTION] = on_exception,
    [EXIT_UNDEFINED] = on_undefined,
    [EXIT_CACHE] = on_cache,
    [EXIT_SHUTDOWN] = on_shutdown,
};
