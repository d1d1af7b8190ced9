/*
 * void svm_run(u64 guest_vmcb, u64 host_state, struct vcpu_registers *regs): one trip into the guest (APM 2 15.5).
 * GIF is off from before the guest's state is loaded until the host's is back, so no interrupt sees a mix of both.
 * IF is on while GIF is off: with V_INTR_MASKING it decides that physical interrupts end guest mode.
 * VMRUN swaps RAX, RSP, RIP, RFLAGS itself; VMLOAD/VMSAVE swap FS, GS, TR, LDTR and the system call MSRs.
 */
    .text
    .globl svm_run
svm_run:
    .irp register, rbx, rbp, r12, r13, r14, r15, rsi, rdx, rdi
    push %\register
    .endr
    clgi
    sti
    mov %rsi, %rax
    vmsave %rax
    mov %rdi, %rax
    vmload %rax
    mov 0x18(%rdx), %rbx
    mov 0x08(%rdx), %rcx
    mov 0x30(%rdx), %rsi
    mov 0x38(%rdx), %rdi
    mov 0x28(%rdx), %rbp
    .irp number, 8, 9, 10, 11, 12, 13, 14, 15
    mov 8 * \number(%rdx), %r\number
    .endr
    mov 0x10(%rdx), %rdx
    vmrun %rax
    mov (%rsp), %rax            /* the VMCB again */
    vmsave %rax
    mov 8(%rsp), %rax           /* regs */
    mov %rbx, 0x18(%rax)
    mov %rcx, 0x08(%rax)
    mov %rdx, 0x10(%rax)
    mov %rsi, 0x30(%rax)
    mov %rdi, 0x38(%rax)
    mov %rbp, 0x28(%rax)
    .irp number, 8, 9, 10, 11, 12, 13, 14, 15
    mov %r\number, 8 * \number(%rax)
    .endr
    mov 16(%rsp), %rax
    vmload %rax
    cli
    cld
    stgi
    add $24, %rsp
    .irp register, r15, r14, r13, r12, rbp, rbx
    pop %\register
    .endr
    ret

    .section .note.GNU-stack, "", @progbits
