/*
 * Start of the other CPUs: 16-bit code, copied to a page below 1 MiB, to 64-bit C on a stack of its own (SDM 3A 8.4.4).
 * The page is mapped read-execute; what the boot CPU fills in lies at trampoline_data, written before the copy is used.
 */
    .section .rodata
    .globl trampoline_start, trampoline_end, trampoline_cr3, trampoline_stack, trampoline_entry
    .balign 16
    .code16
trampoline_start:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movzwl %ax, %ebx
    shl $4, %ebx                /* physical address of this page */
    lea (gdt - trampoline_start)(%ebx), %eax
    mov %eax, (gdt_pointer + 2 - trampoline_start)
    lea (start32 - trampoline_start)(%ebx), %eax
    mov %eax, (jump32 - trampoline_start)
    lea (start64 - trampoline_start)(%ebx), %eax
    mov %eax, (jump64 - trampoline_start)
    lgdtl (gdt_pointer - trampoline_start)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl *(jump32 - trampoline_start)

    .code32
start32:
    mov $0x10, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov (trampoline_cr3 - trampoline_start)(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER.LME and NXE */
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80010000, %eax        /* PG, WP */
    mov %eax, %cr0
    ljmpl *(jump64 - trampoline_start)(%ebx)

    .code64
start64:
    mov (trampoline_stack - trampoline_start)(%rbx), %rsp
    mov (trampoline_entry - trampoline_start)(%rbx), %rax
    xor %ebp, %ebp
    call *%rax
0:  hlt
    jmp 0b

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 0x08: 32-bit code */
    .quad 0x00cf93000000ffff    /* 0x10: data */
    .quad 0x00af9b000000ffff    /* 0x18: 64-bit code */
gdt_pointer:
    .word 31
    .long 0
    .balign 4
jump32:
    .long 0
    .word 0x08
    .balign 4
jump64:
    .long 0
    .word 0x18
    .balign 8
trampoline_cr3:
    .quad 0
trampoline_stack:
    .quad 0
trampoline_entry:
    .quad 0
trampoline_end:

    .section .note.GNU-stack, "", @progbits
