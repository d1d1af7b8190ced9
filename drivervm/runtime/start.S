/* Entry of a driver VM (shared/abi/hypercall.h "Start") and the exception stubs. The hypervisor has zeroed .bss. */

    .cfi_sections .debug_frame
    .section .text.start, "ax"
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    .cfi_undefined rip          /* a debugger's backtrace ends here */
    xorl %ebp, %ebp
    call runtime_main           /* RSP = ram_size is 16-byte aligned, RDI = driver_info */
    ud2
    .cfi_endproc
    .size _start, . - _start    /* image_start is the same address: a debugger prefers what has a size */

/* void exception_load(const struct descriptor_pointer *gdt, const struct descriptor_pointer *idt) */
    .text
    .globl exception_load
exception_load:
    lgdt (%rdi)
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    popq %rax                   /* reload CS with a far return to our caller */
    pushq $0x08
    pushq %rax
    lidt (%rsi)
    lretq

/* Vectors whose exception pushes an error code: SDM 3A table 6-1. The others push a 0 in its place. */
    .altmacro
    .macro exception_stub vector
exception_stub_\vector:
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    pushq $0
    .endif
    pushq $\vector
    jmp exception_common
    .endm
    .macro exception_address vector
    .quad exception_stub_\vector
    .endm

    .set v, 0
    .rept 32
    exception_stub %v
    .set v, v + 1
    .endr

exception_common:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r11
    pushq %r10
    pushq %r9
    pushq %r8
    pushq %rdi
    pushq %rsi
    pushq %rbp
    pushq %rsp
    pushq %rbx
    pushq %rdx
    pushq %rcx
    pushq %rax
    movq %rsp, %rdi             /* struct exception_frame */
    andq $-16, %rsp
    cld
    call exception_report       /* does not return */
    ud2

    .section .rodata
    .balign 8
    .globl exception_stubs
exception_stubs:
    .set v, 0
    .rept 32
    exception_address %v
    .set v, v + 1
    .endr

    .section .note.GNU-stack, "", @progbits
