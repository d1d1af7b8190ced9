/*
 * void svm_run(u64 guest_vmcb, u64 host_state, struct vcpu_registers *regs): one trip into the guest (APM 2 15.5).
 * GIF is off from before the guest's state is loaded until the host's is back, so no interrupt sees a mix of both.
 * IF is on while GIF is off: with V_INTR_MASKING it decides that physical interrupts end guest mode.
 * VMRUN swaps RAX, RSP, RIP, RFLAGS itself; VMLOAD/VMSAVE swap FS, GS, TR, LDTR and the system call MSRs.
 */
    .text
    .globl svm_run
svm_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rsi
    push %rdx
    push %rdi
    clgi
    sti
    mov %rsi, %rax
    vmsave %rax
    mov %rdi, %rax
    vmload %rax
    mov 0x08(%rdx), %rbx
    mov 0x10(%rdx), %rcx
    mov 0x20(%rdx), %rsi
    mov 0x28(%rdx), %rdi
    mov 0x30(%rdx), %rbp
    mov 0x40(%rdx), %r8
    mov 0x48(%rdx), %r9
    mov 0x50(%rdx), %r10
    mov 0x58(%rdx), %r11
    mov 0x60(%rdx), %r12
    mov 0x68(%rdx), %r13
    mov 0x70(%rdx), %r14
    mov 0x78(%rdx), %r15
    mov 0x18(%rdx), %rdx
    vmrun %rax
    mov (%rsp), %rax            /* the VMCB again */
    vmsave %rax
    mov 8(%rsp), %rax           /* regs */
    mov %rbx, 0x08(%rax)
    mov %rcx, 0x10(%rax)
    mov %rdx, 0x18(%rax)
    mov %rsi, 0x20(%rax)
    mov %rdi, 0x28(%rax)
    mov %rbp, 0x30(%rax)
    mov %r8, 0x40(%rax)
    mov %r9, 0x48(%rax)
    mov %r10, 0x50(%rax)
    mov %r11, 0x58(%rax)
    mov %r12, 0x60(%rax)
    mov %r13, 0x68(%rax)
    mov %r14, 0x70(%rax)
    mov %r15, 0x78(%rax)
    mov 16(%rsp), %rax
    vmload %rax
    cli
    cld
    stgi
    add $24, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .section .note.GNU-stack, "", @progbits
