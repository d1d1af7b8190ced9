/* VMX exits, decoded into the neutral record (SDM 3C 27.2, appendix C). */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vmx/vmx.h"

/* Basic exit reasons (appendix C) that are more than a line of the table */
#define REASON_CR 28u
#define REASON_PIO 30u
#define REASON_MSR_READ 31u
#define REASON_MSR_WRITE 32u

/* Exit qualifications (27.2.1, tables 27-3, 27-5, 27-7) */
#define CR_NUMBER(q) ((q)&15)
#define CR_ACCESS(q) ((q) >> 4 & 3) /* MOV to, MOV from, CLTS, LMSW */
#define CR_REGISTER(q) ((q) >> 8 & 15)
#define CR_MOV_TO 0u
#define CR_MOV_FROM 1u
#define PIO_IN (1u << 3)
#define PIO_STRING (1u << 4)
#define EPT_ACCESS_WRITE (1u << 1)
#define EPT_ACCESS_FETCH (1u << 2)
#define EPT_LINEAR_VALID (1u << 7)
#define EPT_TRANSLATED (1u << 8)

/* clang-format off */
static const u8 exits[] = {
    [REASON_EXCEPTION] = EXIT_EXCEPTION,
    [1] = EXIT_INTERRUPT,         /* external, not acknowledged: the run loop's window takes it */
    [2] = EXIT_SHUTDOWN,          /* triple fault */
    [3] = EXIT_INTERRUPT,         /* INIT */
    [7 ... 8] = EXIT_WINDOW,      /* for an interrupt, an NMI */
    [9] = EXIT_TASK_SWITCH,
    [10] = EXIT_CPUID,
    [11] = EXIT_UNDEFINED,        /* GETSEC */
    [12] = EXIT_HLT,
    [13] = EXIT_CACHE,            /* INVD */
    [15] = EXIT_UNDEFINED,        /* RDPMC */
    [18] = EXIT_HYPERCALL,        /* VMCALL */
    [19 ... 27] = EXIT_UNDEFINED, /* VMCLEAR to VMXON */
    [REASON_CR] = EXIT_CR,
    [REASON_PIO] = EXIT_PIO,
    [REASON_MSR_READ ... REASON_MSR_WRITE] = EXIT_MSR,
    [36] = EXIT_UNDEFINED,        /* MWAIT */
    [39] = EXIT_UNDEFINED,        /* MONITOR */
    [REASON_EPT_VIOLATION] = EXIT_NESTED_FAULT,
    [49] = EXIT_INVALID,          /* EPT misconfiguration */
    [50] = EXIT_UNDEFINED,        /* INVEPT */
    [52] = EXIT_INTERRUPT,        /* preemption timer: the deadline */
    [53] = EXIT_UNDEFINED,        /* INVVPID */
    [54] = EXIT_CACHE,            /* WBINVD */
    [55] = EXIT_UNDEFINED,        /* XSETBV */
};
/* clang-format on */

/* #DB, #AC; INT1, which is of a type of its own, since its RIP is behind the instruction; NMIs of the machine. */
static void decode_exception(struct vcpu *vcpu, struct vcpu_exit *exit, u64 qualification)
{
    u32 event = (u32)vmcs_read(VMCS_EXIT_EVENT), type = event & EVENT_TYPE;

    if (type == EVENT_TYPE_NMI) {
        exit->kind = EXIT_INTERRUPT;
        return;
    }
    exit->exception.vector = event & EVENT_VECTOR;
    exit->exception.error_code = event & EVENT_HAS_ERROR ? (u32)vmcs_read(VMCS_EXIT_EVENT_ERROR) : 0;
    if (type != EVENT_TYPE_PRIVILEGED_SOFT)
        exit->instruction_length = 0;
    if (type == EVENT_TYPE_EXCEPTION && exit->exception.vector == VECTOR_DEBUG)
        vmx_debug_exception(vcpu, qualification);
}

/*
 * CR0 of the guest exits where a bit changes that it does not own. The shadow takes these, then the guest does the
 * instruction again, which now changes only its own: with all checks and effects by the CPU. What it must not write is
 * #GP (26.3.1.1 would refuse the next entry otherwise). CLTS and LMSW reach own bits only, so they never exit.
 */
static void decode_cr(struct vcpu *vcpu, struct vcpu_exit *exit, u64 qualification)
{
    u64 value = *vcpu_register(vcpu, CR_REGISTER(qualification));

    exit->cr.cr = CR_NUMBER(qualification);
    exit->cr.reg = CR_REGISTER(qualification);
    exit->cr.write = CR_ACCESS(qualification) == CR_MOV_TO;
    if (CR_ACCESS(qualification) > CR_MOV_FROM) {
        exit->kind = EXIT_UNKNOWN;
    } else if (exit->cr.cr == 0 && !vcpu->vm->driver && !(value >> 32) && (value & CR0_CD || !(value & CR0_NW))) {
        vmcs_write(VMCS_CR0_SHADOW, value);
        exit->kind = EXIT_INTERRUPT;
    }
}

static void decode_port(struct vcpu_exit *exit, u64 qualification)
{
    exit->pio.port = (u16)(qualification >> 16);
    exit->pio.width = (u8)((qualification & 7) + 1);
    exit->pio.write = !(qualification & PIO_IN);
    exit->pio.string = qualification & PIO_STRING;
}

static void decode_nested_fault(struct vcpu_exit *exit, u64 qualification)
{
    exit->nested.address = GPA(vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS));
    exit->nested.write = qualification & EPT_ACCESS_WRITE;
    exit->nested.fetch = qualification & EPT_ACCESS_FETCH;
    exit->nested.table_walk = !(qualification & EPT_LINEAR_VALID) || !(qualification & EPT_TRANSLATED);
    exit->instruction_length = 0; /* 27.2.5: not defined here */
}

/*
 * An NMI blocks NMIs from when it is delivered: not if the exit cut that short. Without such an event the exit itself
 * may be a fault of an IRET that had ended the blocking already (27.2.3): it is to be done again, too.
 */
static void keep_event(struct vcpu *vcpu, u32 reason)
{
    struct vmx_vcpu *vmx = vmx_of(vcpu);
    u32 event = (u32)vmcs_read(VMCS_VECTORING_EVENT), info = 0;

    vcpu_keep_event(vcpu, event, (u32)vmcs_read(VMCS_VECTORING_EVENT_ERROR));
    if (event & EVENT_VALID) {
        if ((event & EVENT_TYPE) == EVENT_TYPE_NMI)
            vmx->interruptibility &= ~BLOCKED_BY_NMI;
        return;
    }
    if (reason == REASON_EPT_VIOLATION)
        info = (u32)vmcs_read(VMCS_EXIT_QUALIFICATION); /* the same bit there */
    else if (reason == REASON_EXCEPTION)
        info = (u32)vmcs_read(VMCS_EXIT_EVENT);
    if ((info & EVENT_NMI_UNBLOCKED) &&
        (reason == REASON_EPT_VIOLATION || (info & EVENT_VECTOR) != VECTOR_DOUBLE_FAULT))
        vmx->interruptibility |= BLOCKED_BY_NMI;
}

void vmx_decode_exit(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    u32 reason = (u32)vmcs_read(VMCS_EXIT_REASON);
    u64 qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);

    *exit = (struct vcpu_exit){.kind = EXIT_UNKNOWN, .code = reason};
    if (reason & REASON_ENTRY_FAILED) { /* 26.8: no other field is written then */
        exit->kind = EXIT_INVALID;
        return;
    }
    keep_event(vcpu, reason);
    if (reason < ARRAY_SIZE(exits))
        exit->kind = exits[reason];
    exit->instruction_length = (u32)vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH);

    if (exit->kind == EXIT_EXCEPTION) {
        decode_exception(vcpu, exit, qualification);
    } else if (exit->kind == EXIT_CR) {
        decode_cr(vcpu, exit, qualification);
    } else if (exit->kind == EXIT_PIO) {
        decode_port(exit, qualification);
    } else if (exit->kind == EXIT_MSR) {
        exit->msr.index = (u32)vcpu->regs.rcx;
        exit->msr.write = reason == REASON_MSR_WRITE;
    } else if (exit->kind == EXIT_NESTED_FAULT) {
        decode_nested_fault(exit, qualification);
    }
}
