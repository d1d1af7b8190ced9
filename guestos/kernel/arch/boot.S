/*
 * The PVH entry point (Xen's docs/misc/pvh.pandoc, which QEMU's -kernel and Bulkhead follow): 32-bit flat protected mode,
 * paging off, interrupts off, EBX = physical address of hvm_start_info. Goes to 64-bit mode on a provisional identity map of the
 * first 4 GiB, which paging_init replaces.
 */
#define CR0_PG_WP_PE 0x80010001
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME_NXE 0x900
#define PAGE_PRESENT_WRITE 0x3
#define PAGE_LARGE 0x80

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 /* name length, descriptor length, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax", @progbits
    .code32
    .globl pvh_start
pvh_start:
    cld
    mov $boot_stack_top, %esp
    mov %ebx, %esi /* CPUID and RDMSR clobber EBX and friends; ESI survives until the C call */

    /* Four page directories of 2 MiB pages: 4 GiB, one to one. The loader has zeroed .bss. */
    mov $boot_pd, %edi
    mov $(PAGE_PRESENT_WRITE | PAGE_LARGE), %eax
    xor %ecx, %ecx
1:  mov %eax, (%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 1b
    movl $(boot_pd + 0x0000 + PAGE_PRESENT_WRITE), boot_pdpt
    movl $(boot_pd + 0x1000 + PAGE_PRESENT_WRITE), boot_pdpt + 8
    movl $(boot_pd + 0x2000 + PAGE_PRESENT_WRITE), boot_pdpt + 16
    movl $(boot_pd + 0x3000 + PAGE_PRESENT_WRITE), boot_pdpt + 24
    movl $(boot_pdpt + PAGE_PRESENT_WRITE), boot_pml4

    /* SDM 3A 10.8.5, initializing IA-32e mode: PAE, CR3, EFER.LME, then paging. */
    mov $CR4_PAE, %eax
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME_NXE, %eax
    wrmsr
    mov $CR0_PG_WP_PE, %eax
    mov %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    mov $boot_stack_top, %rsp
    xor %ebp, %ebp /* the end of any back trace */
    mov %esi, %edi
    call kernel_main
2:  hlt
    jmp 2b

    .section .rodata
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00209a0000000000 /* 64-bit code, ring 0 (SDM 3A 5.2.1) */
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    .section .bss, "aw", @nobits
    .balign 4096
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4 * 4096
    .globl boot_stack_guard, boot_stack_top
boot_stack_guard: /* paging_init takes this page away: an overflow is then a double fault, not silent damage */
    .skip 4096
    .skip 65536
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
