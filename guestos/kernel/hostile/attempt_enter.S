/*
 * void attempt_enter(struct attempt *): load the registers, run the code, store what it left. The offsets are those of
 * struct attempt. attempt_enter_user: the same in ring 3, with the user stack in the second argument; that comes back by
 * an exception only. attempt_abort: where the exception handler sends the CPU, with RSP = attempt_stack.
 */
#define USER_DATA 0x2b
#define USER_CODE 0x33

    .macro save_registers
    .irp register, rbx, rbp, r12, r13, r14, r15
    push %\register
    .endr
    pushf
    cli
    push %rdi
    mov %rsp, attempt_stack(%rip)
    .endm

    .macro load_registers
    mov 0x08(%rdi), %rax
    mov 0x10(%rdi), %rcx
    mov 0x18(%rdi), %rdx
    mov 0x20(%rdi), %rbx
    mov 0x28(%rdi), %rsi
    mov 0x30(%rdi), %rdi
    .endm

    .section .text
    .globl attempt_enter, attempt_enter_user, attempt_abort
attempt_enter_user:
    save_registers
    push $USER_DATA
    push %rsi
    push 0x38(%rdi)
    push $USER_CODE
    push 0x00(%rdi)
    load_registers
    iretq

attempt_enter:
    save_registers
    lea attempt_done(%rip), %rax
    push %rax
    push 0x00(%rdi) /* the code: popf is followed by one RET only, so that a trap flag first traps at its start */
    push 0x38(%rdi)
    load_registers
    popf
    ret
attempt_done:
    push %rdi
    mov 8(%rsp), %rdi
    mov %rax, 0x08(%rdi)
    mov %rcx, 0x10(%rdi)
    mov %rdx, 0x18(%rdi)
    mov %rbx, 0x20(%rdi)
    pop %rax
attempt_abort:
    pop %rdi
    popf
    cld
    .irp register, r15, r14, r13, r12, rbp, rbx
    pop %\register
    .endr
    ret

    .section .note.GNU-stack, "", @progbits
