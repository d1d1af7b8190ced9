/*
 * bool vmx_run(struct vcpu_registers *regs, bool launched): one trip into the guest (SDM 3C 26, 27). RSP, RIP and
 * RFLAGS of both sides are in the VMCS; the host's RSP is written here, since an exit comes back to this stack frame.
 * False: the instruction itself failed and the guest has not run.
 */
#define HOST_RSP_FIELD 0x6c14

    .text
    .globl vmx_run, vmx_exit_entry
vmx_run:
    .irp register, rbx, rbp, r12, r13, r14, r15, rdi
    push %\register
    .endr
    mov $HOST_RSP_FIELD, %eax
    vmwrite %rsp, %rax
    test %sil, %sil             /* the flags last through all that follows */
    mov (%rdi), %rax
    mov 0x08(%rdi), %rcx
    mov 0x10(%rdi), %rdx
    mov 0x18(%rdi), %rbx
    mov 0x28(%rdi), %rbp
    mov 0x30(%rdi), %rsi
    .irp number, 8, 9, 10, 11, 12, 13, 14, 15
    mov 8 * \number(%rdi), %r\number
    .endr
    mov 0x38(%rdi), %rdi
    jnz 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  xor %eax, %eax
    pop %rdi
    jmp 3f

vmx_exit_entry:                 /* interrupts off, direction up (27.5.3) */
    push %rdi
    mov 8(%rsp), %rdi
    mov %rax, (%rdi)
    mov %rcx, 0x08(%rdi)
    mov %rdx, 0x10(%rdi)
    mov %rbx, 0x18(%rdi)
    mov %rbp, 0x28(%rdi)
    mov %rsi, 0x30(%rdi)
    .irp number, 8, 9, 10, 11, 12, 13, 14, 15
    mov %r\number, 8 * \number(%rdi)
    .endr
    pop 0x38(%rdi)
    pop %rdi
    mov $1, %eax
3:  .irp register, r15, r14, r13, r12, rbp, rbx
    pop %\register
    .endr
    ret

    .section .note.GNU-stack, "", @progbits
