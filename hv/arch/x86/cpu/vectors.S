/* Entry stubs: exceptions push a uniform frame and panic in C; interrupts note their vector (interrupts.h). */
    .text
    .macro exception_v has_error
    .balign 16
    .if \has_error == 0
    pushq $0
    .endif
    pushq $v
    jmp exception_common
    .endm

    .globl exception_stubs
    .balign 16
exception_stubs:
    .set v, 0
    .rept 32
    .if v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30
    exception_v 1
    .else
    exception_v 0
    .endif
    .set v, v + 1
    .endr

exception_common:
    push %r15
    push %r14
    push %r13
    push %r12
    push %r11
    push %r10
    push %r9
    push %r8
    push %rbp
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rbx
    push %rax
    cld
    mov %rsp, %rdi
    call exception_panic

    .globl nmi_stub
nmi_stub:
    push %rdi
    mov $2, %edi
    jmp interrupt_common

    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set v, 32
    .rept 224
    .balign 16
    push %rdi
    mov $v, %edi
    jmp interrupt_common
    .set v, v + 1
    .endr

interrupt_common:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %r8
    push %r9
    push %r10
    push %r11
    cld
    call interrupt_note
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    pop %rdi
    iretq

    .section .note.GNU-stack, "", @progbits
