/* From the loader (shared/abi/boot_info.h) to C: an alias of the loader's identity map for the direct map, and a stack. */
#define DIRECT_MAP_SLOT (256 * 8) /* PML4 entry of 0xffff800000000000 */

    .section .text.entry, "ax"
    .code64
    .globl hv_entry
hv_entry:
    cli
    cld
    mov %cr0, %rax              /* the loader's tables may be read-only to the supervisor */
    and $~(1 << 16), %eax
    mov %rax, %cr0
    mov %cr3, %rax
    and $~0xfff, %rax
    mov (%rax), %rcx            /* the first 512 GiB, one to one ... */
    mov %rcx, DIRECT_MAP_SLOT(%rax) /* ... and again where C expects physical memory */
    mov %cr3, %rax
    mov %rax, %cr3
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp
    mov $0xffff800000000000, %rax
    add %rax, %rdi
    call hv_main
0:  hlt
    jmp 0b

    .bss
    .globl boot_stack_guard
    .balign 4096
boot_stack_guard:               /* paging_init() leaves this page out */
    .skip 4096
    .skip 32768
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
