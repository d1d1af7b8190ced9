/* SVM exits, decoded into the neutral record (APM 2 15.9 to 15.11, appendix C). */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/svm/svm.h"
#include "hv/exit/decode.h"
#include "shared/lib/string.h"

/* IOIO, EXITINFO1 (15.10.2) */
#define IOIO_IN (1u << 0)
#define IOIO_STRING (1u << 2)
#define IOIO_SIZE_SHIFT 4u

/* What an exit code means, and how long the instruction is without prefixes. */
static const struct {
    u8 kind, length;
} exits[] = {
    [SVM_EXIT_CR_READ... SVM_EXIT_CR_WRITE + 15] = {EXIT_CR, 0},
    [SVM_EXIT_EXCEPTION... SVM_EXIT_EXCEPTION + 31] = {EXIT_EXCEPTION, 0},
    [SVM_EXIT_INTR... SVM_EXIT_INIT] = {EXIT_INTERRUPT, 0},
    [SVM_EXIT_VINTR] = {EXIT_WINDOW, 0},
    [SVM_EXIT_RDPMC] = {EXIT_UNDEFINED, 2},
    [SVM_EXIT_CPUID] = {EXIT_CPUID, 2},
    [SVM_EXIT_IRET] = {EXIT_WINDOW, 0},
    [SVM_EXIT_INVD] = {EXIT_CACHE, 2},
    [SVM_EXIT_HLT] = {EXIT_HLT, 1},
    [SVM_EXIT_INVLPGA] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_IOIO] = {EXIT_PIO, 0},
    [SVM_EXIT_MSR] = {EXIT_MSR, 2},
    [SVM_EXIT_TASK_SWITCH] = {EXIT_TASK_SWITCH, 0},
    [SVM_EXIT_SHUTDOWN] = {EXIT_SHUTDOWN, 0},
    [SVM_EXIT_VMRUN] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_VMMCALL] = {EXIT_HYPERCALL, 3},
    [SVM_EXIT_VMLOAD... SVM_EXIT_SKINIT] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_RDTSCP] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_ICEBP] = {EXIT_EXCEPTION, 1},
    [SVM_EXIT_WBINVD] = {EXIT_CACHE, 2},
    [SVM_EXIT_MONITOR... SVM_EXIT_MWAIT] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_XSETBV] = {EXIT_UNDEFINED, 3},
};

u32 svm_intercepts(u32 word)
{
    u32 bits = 0;

    for (u32 code = word * 32; code < word * 32 + 32 && code < ARRAY_SIZE(exits); code++)
        bits |= exits[code].kind ? 1u << code % 32 : 0;
    return bits;
}

static void decode_port(const struct vcpu *vcpu, const struct svm_vmcb *vmcb, struct vcpu_exit *exit)
{
    u32 info = (u32)vmcb->exit_info1;

    exit->pio.port = (u16)(info >> 16);
    exit->pio.width = (u8)(info >> IOIO_SIZE_SHIFT & 7);
    exit->pio.write = !(info & IOIO_IN);
    exit->pio.string = info & IOIO_STRING;
    exit->instruction_length = (u32)(vmcb->exit_info2 - vcpu->rip); /* EXITINFO2 is the next RIP */
}

/* APM 3 table 1-1. REX counts in every mode: where it is an instruction of its own, that one does not exit. */
static bool is_prefix(u8 byte)
{
    return byte >> 4 == 4 || (byte & 0xe7) == 0x26 || (byte & 0xfc) == 0x64 || byte == 0xf0 || (byte & 0xfe) == 0xf2;
}

/* The instruction that exited, from its opcode on; *prefixes before it. Returns how many bytes there are. Without
 * decode assists and next RIP only the bytes tell. Only 64-bit code has no segment base (APM 2 4.8.1). */
static u32 fetch_opcode(struct vcpu *vcpu, u8 code[INSTRUCTION_MAX], u32 *prefixes, u8 *rex)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    bool code64 = (vmcb->efer & EFER_LMA) && (vmcb->cs.attributes & SVM_CODE_LONG);
    u32 got = vcpu_fetch(vcpu, vcpu->rip + (code64 ? 0 : vmcb->cs.base), code, INSTRUCTION_MAX), n = 0;

    while (n < got && is_prefix(code[n]))
        n++;
    *rex = n && code[n - 1] >> 4 == 4 ? code[n - 1] : 0;
    *prefixes = n;
    memmove(code, code + n, got - n);
    return got - n;
}

/* length: without prefixes; 0 when it does not matter. */
static u32 instruction_length(struct vcpu *vcpu, u32 length)
{
    u64 next = svm_of(vcpu)->vmcb->next_rip;
    u8 code[INSTRUCTION_MAX], rex;
    u32 prefixes;

    if (!length || next)
        return length ? (u32)(next - vcpu->rip) : 0;
    (void)fetch_opcode(vcpu, code, &prefixes, &rex);
    return prefixes + length;
}

/* MOV to or from CRn: 0F 20 or 22 /r (APM 3 MOV CRn). */
static void decode_cr(struct vcpu *vcpu, struct vcpu_exit *exit, u32 code)
{
    u8 bytes[INSTRUCTION_MAX], rex;
    u32 prefixes, got = fetch_opcode(vcpu, bytes, &prefixes, &rex);
    bool write = code >= SVM_EXIT_CR_WRITE;

    if (got < 3 || bytes[0] != 0x0f || bytes[1] != (write ? 0x22 : 0x20)) {
        exit->kind = EXIT_UNKNOWN; /* LMSW, CLTS: intercepted of driver VMs only */
        return;
    }
    exit->instruction_length = prefixes + 3;
    exit->cr.cr = code % 16;
    exit->cr.reg = (bytes[2] & 7) | (rex & 1) << 3;
    exit->cr.write = write;
}

static void decode_nested_fault(const struct svm_vmcb *vmcb, struct vcpu_exit *exit)
{
    exit->kind = EXIT_NESTED_FAULT;
    exit->nested.address = GPA(vmcb->exit_info2);
    exit->nested.write = vmcb->exit_info1 & SVM_NPF_WRITE;
    exit->nested.fetch = vmcb->exit_info1 & SVM_NPF_FETCH;
    exit->nested.table_walk = vmcb->exit_info1 & SVM_NPF_TABLE_WALK;
}

void svm_decode_exit(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    u32 code = (u32)vmcb->exit_code;

    *exit = (struct vcpu_exit){.kind = EXIT_UNKNOWN, .code = vmcb->exit_code};
    if (code < ARRAY_SIZE(exits)) {
        exit->kind = exits[code].kind;
        exit->instruction_length = instruction_length(vcpu, exits[code].length);
    } else if (code == SVM_EXIT_NPF) {
        decode_nested_fault(vmcb, exit);
    } else if (code == SVM_EXIT_INVALID) {
        exit->kind = EXIT_INVALID;
    }

    if (exit->kind == EXIT_PIO) {
        decode_port(vcpu, vmcb, exit);
    } else if (exit->kind == EXIT_MSR) {
        exit->msr.index = (u32)vcpu->regs.rcx;
        exit->msr.write = vmcb->exit_info1 & 1;
    } else if (exit->kind == EXIT_CR) {
        decode_cr(vcpu, exit, code);
    } else if (code == SVM_EXIT_ICEBP) {
        exit->exception.vector = VECTOR_DEBUG;
        exit->exception.error_code = 0;
    } else if (exit->kind == EXIT_EXCEPTION) {
        exit->exception.vector = (u8)(code - SVM_EXIT_EXCEPTION);
        exit->exception.error_code = (u32)vmcb->exit_info1;
    }
}
