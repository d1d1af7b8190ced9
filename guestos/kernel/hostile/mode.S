/*
 * mode_drop(game): leave long mode in order (SDM 3A 10.8.5.4), PAE off, all tables our own, then play. Nothing comes back.
 * Memory is one to one, so code goes on where it is when paging ends.
 */
#define CODE32 0x08
#define DATA32 0x10
#define CODE16 0x18
#define DATA16 0x20
#define USER_CODE 0x2b
#define USER_DATA 0x33
#define TSS_OLD 0x38
#define TSS_NEW 0x40

#define CR0_PE 0x1
#define CR0_AM 0x40000
#define CR0_PG 0x80000000
#define CR4_PSE 0x10
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS_FIXED 0x2
#define RFLAGS_VM 0x20000
#define RFLAGS_AC 0x40000
#define GATE_USER 0xee00 /* 32-bit interrupt gate, DPL 3 */
#define GATE_TASK 0x8500
#define VECTOR_AC 17
#define VECTOR_TASK 0x20
#define IOAPIC 0xfec00000
#define UART 0x3f8
#define GARBAGE 0x1000

    .section .text
    .code64
    .globl mode_drop
mode_drop:
    cli
    mov $mode_stack, %esp
    lgdt mode_gdt_pointer
    lidt mode_idt_pointer
    push $CODE32
    push $mode_32
    lretq

    .code32
mode_32:
    mov $DATA32, %eax
    .irp segment, ds, es, ss, fs, gs
    mov %eax, %\segment
    .endr
    mov %cr0, %eax
    and $~CR0_PG, %eax
    mov %eax, %cr0
    mov $MSR_EFER, %ecx
    rdmsr
    and $~EFER_LME, %eax
    wrmsr
    mov $CR4_PSE, %eax
    mov %eax, %cr4
    /* Where task state segments (SDM 3A 8.2.2) and 16-bit code are. */
    mov $mode_tss_old, %eax
    mov $(mode_gdt + TSS_OLD), %ecx
    call mode_set_base
    mov $mode_tss_new, %eax
    mov $(mode_gdt + TSS_NEW), %ecx
    call mode_set_base
    mov $mode_real_16, %eax
    mov $(mode_gdt + CODE16), %ecx
    call mode_set_base
    mov $TSS_OLD, %eax
    ltr %ax
    jmp *mode_games(, %edi, 4)

mode_set_base:
    mov %ax, 2(%ecx)
    shr $16, %eax
    mov %al, 4(%ecx)
    mov %ah, 7(%ecx)
    ret

mode_task_jump:
    ljmp $TSS_NEW, $0

mode_task_gate:
    movw $TSS_NEW, mode_idt + VECTOR_TASK * 8 + 2
    movl $GATE_TASK, mode_idt + VECTOR_TASK * 8 + 4
    int $VECTOR_TASK

/* Where the new task begins: say so, then spin. */
mode_task_entry:
    mov $mode_task_text, %esi
    mov $UART, %edx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  jmp 2b

mode_alignment_loop:
    mov $1f, %eax
    movw %ax, mode_idt + VECTOR_AC * 8
    movw $USER_CODE, mode_idt + VECTOR_AC * 8 + 2
    movl $GATE_USER, mode_idt + VECTOR_AC * 8 + 4
    shr $16, %eax
    movw %ax, mode_idt + VECTOR_AC * 8 + 6
    mov %cr0, %eax
    or $CR0_AM, %eax
    mov %eax, %cr0
    push $USER_DATA
    push $(mode_stack - 1023) /* misaligned: so is every push of the handler's frame */
    push $(RFLAGS_FIXED | RFLAGS_AC)
    push $USER_CODE
    push $1f
    iret
1:  mov $USER_DATA, %eax
    mov %eax, %ds
    mov mode_stack - 2047, %eax
    jmp 1b

mode_real:
    ljmp $CODE16, $0
    .code16
mode_real_16:
    mov $DATA16, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov %cr0, %eax
    and $~CR0_PE, %eax
    mov %eax, %cr0
    ljmp $(GARBAGE >> 4), $0
    .code32

mode_virtual_8086:
    xor %eax, %eax
    push %eax /* GS, FS, DS, ES */
    push %eax
    push %eax
    push %eax
    push $0x1000 /* SS:ESP */
    push $0xfffe
    push $(RFLAGS_FIXED | RFLAGS_VM)
    push $(GARBAGE >> 4)
    push %eax
    iret

mode_protected_garbage:
    mov $GARBAGE, %eax
    jmp *%eax

/* 4 MiB pages, one to one (SDM 3A 4.3). */
mode_paging_32:
    mov $0x83, %eax
    xor %ecx, %ecx
1:  mov %eax, mode_directory(, %ecx, 4)
    add $0x400000, %eax
    inc %ecx
    cmp $1024, %ecx
    jne 1b
    mov $mode_directory, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    ret

mode_device_32_bit:
    call mode_paging_32
    mov IOAPIC, %eax
1:  jmp 1b

mode_cr4_32_bit:
    call mode_paging_32
    mov %cr4, %eax
    mov %eax, %cr4
1:  jmp 1b

/* Long mode through the tables that the kernel had, and out again (SDM 3A 10.8.5). */
mode_long_loop:
    mov $(CR4_PSE | CR4_PAE), %eax
    mov %eax, %cr4
1:  mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    or $CR0_PG, %eax
    mov %eax, %cr0
    and $~CR0_PG, %eax
    mov %eax, %cr0
    mov $MSR_EFER, %ecx
    rdmsr
    and $~EFER_LME, %eax
    wrmsr
    jmp 1b

    .section .rodata
    .balign 4
mode_games:
    .long mode_task_jump, mode_task_gate, mode_alignment_loop, mode_real, mode_virtual_8086, mode_protected_garbage
    .long mode_device_32_bit, mode_cr4_32_bit, mode_long_loop
mode_task_text:
    .asciz "\r\nhostile cpu: the task was switched\r\n"
mode_gdt_pointer:
    .word mode_gdt_end - mode_gdt - 1
    .quad mode_gdt
mode_idt_pointer:
    .word 256 * 8 - 1
    .quad mode_idt

    .section .data
    .balign 8
mode_gdt: /* SDM 3A 3.4.5; the CPU marks descriptors as accessed and busy */
    .quad 0
    .quad 0x00cf9b000000ffff /* 32-bit code */
    .quad 0x00cf93000000ffff /* data */
    .quad 0x00009b000000ffff /* 16-bit code, its base is filled in */
    .quad 0x000093000000ffff /* 16-bit data */
    .quad 0x00cffb000000ffff /* ring 3 code */
    .quad 0x00cff3000000ffff /* ring 3 data */
    .quad 0x0000890000000067 /* TSS, its base is filled in */
    .quad 0x0000890000000067
mode_gdt_end:
    .balign 8
mode_tss_old:
    .skip 104
mode_tss_new: /* SDM 3A figure 8-2 */
    .skip 32
    .long mode_task_entry, RFLAGS_FIXED
    .skip 16
    .long mode_stack
    .skip 12
    .long DATA32, CODE32, DATA32, DATA32, DATA32, DATA32, 0, 104 << 16

    .section .bss, "aw", @nobits
    .balign 4096
mode_directory:
    .skip 4096
mode_idt:
    .skip 256 * 8
    .skip 4096
mode_stack:

    .section .note.GNU-stack, "", @progbits
