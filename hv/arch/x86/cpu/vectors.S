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
    .irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    push %\register
    .endr
    cld
    mov %rsp, %rdi
    call exception_panic

    .globl debug_stub, nmi_stub
debug_stub:                     /* GS may be a guest's: between VMRUN's end and VMLOAD */
    iretq

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
    .irp register, rax, rcx, rdx, rsi, r8, r9, r10, r11
    push %\register
    .endr
    cld
    call interrupt_note
    .irp register, r11, r10, r9, r8, rsi, rdx, rcx, rax, rdi
    pop %\register
    .endr
    iretq

    .section .note.GNU-stack, "", @progbits
