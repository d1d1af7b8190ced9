/* SVM exits, decoded into the neutral record (APM 2 15.9 to 15.11, appendix C). */
#include "hv/arch/x86/svm/svm.h"

/* IOIO, EXITINFO1 (15.10.2) */
#define IOIO_IN (1u << 0)
#define IOIO_STRING (1u << 2)
#define IOIO_SIZE_SHIFT 4u

static void decode_ioio(struct vcpu *vcpu, const struct svm_vmcb *vmcb, struct vcpu_exit *exit)
{
    u32 info = (u32)vmcb->exit_info1;

    exit->kind = EXIT_PIO;
    exit->pio.port = (u16)(info >> 16);
    exit->pio.width = (u8)(info >> IOIO_SIZE_SHIFT & 7);
    exit->pio.write = !(info & IOIO_IN);
    exit->pio.string = info & IOIO_STRING;
    exit->instruction_length = (u32)(vmcb->exit_info2 - vcpu->rip); /* EXITINFO2 is the next RIP */
}

/* MOV to CRn: [REX] 0F 22 /r, which is all that intercepts CR writes here. Decode assists may be absent: read the bytes. */
static void decode_cr_write(struct vcpu *vcpu, struct vcpu_exit *exit, u32 cr)
{
    u8 code[4];
    u32 got = vcpu_fetch(vcpu, vcpu->rip, code, sizeof(code));
    u32 rex = got && (code[0] & 0xf0) == 0x40 ? code[0] : 0;
    u32 at = rex ? 1 : 0;
    static const u8 order[16] = {0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15}; /* encoding -> vcpu_registers */

    exit->kind = EXIT_UNKNOWN;
    exit->code = SVM_EXIT_CR_WRITE + cr;
    if (got < at + 3 || code[at] != 0x0f || code[at + 1] != 0x22)
        return;
    exit->kind = EXIT_CR_WRITE;
    exit->instruction_length = at + 3;
    exit->cr.cr = cr;
    exit->cr.reg = order[(code[at + 2] & 7) | (rex & 1) << 3];
}

static void decode_nested_fault(const struct svm_vmcb *vmcb, struct vcpu_exit *exit)
{
    exit->kind = EXIT_NESTED_FAULT;
    exit->nested.address = GPA(vmcb->exit_info2);
    exit->nested.write = vmcb->exit_info1 & SVM_NPF_WRITE;
    exit->nested.fetch = vmcb->exit_info1 & SVM_NPF_FETCH;
    exit->nested.table_walk = vmcb->exit_info1 & SVM_NPF_TABLE_WALK;
}

/* Codes that need no more than a kind and the instruction's length (without prefixes, which only the guest itself would miss). */
static const struct {
    u8 kind, length;
} simple[] = {
    [SVM_EXIT_INTR] = {EXIT_INTERRUPT, 0}, [SVM_EXIT_NMI] = {EXIT_INTERRUPT, 0}, [SVM_EXIT_SMI] = {EXIT_INTERRUPT, 0},
    [SVM_EXIT_INIT] = {EXIT_INTERRUPT, 0}, [SVM_EXIT_VINTR] = {EXIT_WINDOW, 0},  [SVM_EXIT_CPUID] = {EXIT_CPUID, 2},
    [SVM_EXIT_HLT] = {EXIT_HLT, 1},        [SVM_EXIT_INVD] = {EXIT_CACHE, 2},    [SVM_EXIT_WBINVD] = {EXIT_CACHE, 2},
    [SVM_EXIT_VMMCALL] = {EXIT_HYPERCALL, 3}, [SVM_EXIT_SHUTDOWN] = {EXIT_SHUTDOWN, 0}, [SVM_EXIT_RDPMC] = {EXIT_UNDEFINED, 2},
    [SVM_EXIT_INVLPGA] = {EXIT_UNDEFINED, 3}, [SVM_EXIT_VMRUN] = {EXIT_UNDEFINED, 3}, [SVM_EXIT_VMLOAD] = {EXIT_UNDEFINED, 3},
    [0x83] = {EXIT_UNDEFINED, 3}, [0x84] = {EXIT_UNDEFINED, 3}, [0x85] = {EXIT_UNDEFINED, 3}, [SVM_EXIT_SKINIT] = {EXIT_UNDEFINED, 3},
    [SVM_EXIT_MONITOR] = {EXIT_UNDEFINED, 3}, [SVM_EXIT_MWAIT] = {EXIT_UNDEFINED, 3}, [SVM_EXIT_XSETBV] = {EXIT_UNDEFINED, 3},
};

void svm_decode_exit(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    const struct svm_vmcb *vmcb = svm_of(vcpu)->vmcb;
    u32 code = (u32)vmcb->exit_code;

    *exit = (struct vcpu_exit){.kind = EXIT_UNKNOWN, .code = vmcb->exit_code};
    if (code < ARRAY_SIZE(simple) && (simple[code].kind || (code >= SVM_EXIT_INTR && code <= SVM_EXIT_INIT))) {
        exit->kind = simple[code].kind;
        exit->instruction_length = simple[code].length;
    } else if (code == SVM_EXIT_IOIO) {
        decode_ioio(vcpu, vmcb, exit);
    } else if (code == SVM_EXIT_MSR) {
        exit->kind = EXIT_MSR;
        exit->instruction_length = 2;
        exit->msr.index = (u32)vcpu->regs.rcx;
        exit->msr.write = vmcb->exit_info1 & 1;
    } else if (code == SVM_EXIT_NPF) {
        decode_nested_fault(vmcb, exit);
    } else if (code >= SVM_EXIT_CR_WRITE && code < SVM_EXIT_CR_WRITE + 16) {
        decode_cr_write(vcpu, exit, code - SVM_EXIT_CR_WRITE);
    } else if (code >= SVM_EXIT_EXCEPTION && code < SVM_EXIT_EXCEPTION + 32) {
        exit->kind = EXIT_EXCEPTION;
        exit->exception.vector = (u8)(code - SVM_EXIT_EXCEPTION);
        exit->exception.error_code = (u32)vmcb->exit_info1;
    } else if (code == SVM_EXIT_INVALID) {
        exit->kind = EXIT_INVALID;
    }
}
