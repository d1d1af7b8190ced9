/*
 * Cases that need not come back: what a CPU without a hypervisor would answer with a shutdown, an endless loop or by
 * running whatever lies somewhere. Which end each may have is said in tests/system/test_hostile_cpu.py. A case that
 * does come back returns NULL.
 */
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/hostile/case.h"
#include "guestos/kernel/hostile/mode.h"
#include "guestos/kernel/mm/mix.h"
#include "shared/lib/string.h"
#include "shared/x86/descriptors.h"

#define BEYOND_RAM (1ull << 36)
#define DEVICE_PAGE 0xfec00000ull
#define PLAYGROUND (PAGING_EXPERIMENTS + GIB(1)) /* addresses to map things at */
#define TABLE_SLOT 300u                          /* of the topmost page table, used by nobody */
#define TABLE_ADDRESS (0xffffull << 48 | (u64)TABLE_SLOT << 39)

#define MSR_SELF_IPI 0x83fu
#define DR7_EXACT 0x400ull
#define GARBAGE_START 0x1000ull /* page 0 is absent from this kernel's tables */
#define GARBAGE_END 0x9f000ull

#define TSS_IST1 36u

u64 case_seed = 1;

static void load_idt(u64 base, u16 limit)
{
    struct descriptor_pointer pointer = {limit, base};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

/* Run it; an exception is an answer like any other. */
static const char *try(const u8 *code, u32 length, u64 rax, u64 rcx)
{
    struct attempt a = {.rax = rax, .rcx = rcx, .rdx = rax >> 32, .rsi = ATTEMPT_DATA};

    case_run_once(code, length, &a);
    console_print("hostile cpu: came back: %s\n", attempt_name(a.outcome));
    return NULL;
}

#define TRY(rax, rcx, ...) try((const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}), rax, rcx)

static const char *run_triple_fault(void)
{
    load_idt(0, 0);
    __asm__ volatile("ud2");
    return NULL;
}

/* ---- code and tables outside memory ---- */

static const char *jump_to(u64 physical)
{
    paging_set_entry(PLAYGROUND, physical | PAGING_PRESENT_WRITE);
    return TRY(PLAYGROUND, 0, 0xff, 0xe0); /* JMP RAX */
}

static const char *run_fetch_beyond(void)
{
    return jump_to(BEYOND_RAM);
}

static const char *run_fetch_ioapic(void)
{
    return jump_to(DEVICE_PAGE);
}

static const char *run_fetch_lapic(void)
{
    return jump_to(0xfee00000);
}

static const char *run_fetch_bar(void)
{
    return jump_to(0xe0000000);
}

/* The first half of the instruction is in memory, the second in a device. */
static const char *run_fetch_across(void)
{
    paging_set_entry(ATTEMPT_CODE_END, DEVICE_PAGE | PAGING_PRESENT_WRITE);
    *(u8 *)(ATTEMPT_CODE_END - 1) = 0x0f;
    __asm__ volatile("jmp *%0" : : "r"(ATTEMPT_CODE_END - 1));
    return NULL;
}

static const char *run_jump_absent(void)
{
    load_idt(0, 0);
    __asm__ volatile("jmp *%0" : : "r"(PLAYGROUND + GIB(4)));
    return NULL;
}

static const char *run_jump_non_canonical(void)
{
    load_idt(0, 0);
    __asm__ volatile("jmp *%0" : : "r"(0x8000000000000000ull));
    return NULL;
}

static const char *load_cr3(u64 value)
{
    return TRY(value, 0, 0x0f, 0x22, 0xd8, 0x90); /* MOV CR3, RAX */
}

static const char *run_cr3_beyond(void)
{
    return load_cr3(BEYOND_RAM);
}

static const char *run_cr3_device(void)
{
    return load_cr3(DEVICE_PAGE);
}

static const char *run_cr3_bit_51(void)
{
    return load_cr3(1ull << 51);
}

static const char *run_cr3_bit_62(void)
{
    return load_cr3(1ull << 62);
}

static const char *touch_table(u64 entry)
{
    u64 root;

    __asm__ volatile("mov %%cr3, %0" : "=r"(root));
    ((u64 *)root)[TABLE_SLOT] = entry | PAGING_PRESENT_WRITE;
    return TRY(TABLE_ADDRESS, 0, 0x8b, 0x00); /* MOV EAX, [RAX] */
}

static const char *run_table_beyond(void)
{
    return touch_table(BEYOND_RAM);
}

static const char *run_table_device(void)
{
    return touch_table(DEVICE_PAGE);
}

/* ---- device memory by what is no move ---- */

static const char *run_device_lock(void)
{
    return TRY(ATTEMPT_DEVICE, 0, 0xf0, 0x0f, 0xc1, 0x08); /* LOCK XADD [RAX], ECX */
}

static const char *run_device_or(void)
{
    return TRY(ATTEMPT_DEVICE, 0, 0x83, 0x08, 0x01); /* OR DWORD [RAX], 1 */
}

static const char *run_device_xchg(void)
{
    return TRY(ATTEMPT_DEVICE, 0, 0x87, 0x08); /* XCHG [RAX], ECX */
}

/* CR0.EM and TS are clear, CR4.OSFXSR as it is: the first exception that it may be is #UD. */
static const char *run_device_sse(void)
{
    cr4_write(cr4_read() | 1 << 9);
    return TRY(ATTEMPT_DEVICE, 0, 0x0f, 0x28, 0x00); /* MOVAPS XMM0, [RAX] */
}

static const char *run_device_push(void)
{
    /* MOV RCX, RSP; LEA RSP, [RAX + 0x20]; PUSH 0; MOV RSP, RCX */
    return TRY(ATTEMPT_DEVICE, 0, 0x48, 0x89, 0xe1, 0x48, 0x8d, 0x60, 0x20, 0x6a, 0x00, 0x48, 0x89, 0xcc);
}

static const char *run_device_movs(void)
{
    return TRY(0, 4, 0x48, 0xbf, 0x00, 0x00, 0x30, 0x00, 0x00, 0x01, 0x00, 0x00, 0xf3, 0xa4); /* MOV RDI; REP MOVSB */
}

static const char *run_device_call(void)
{
    return TRY(ATTEMPT_DEVICE, 0, 0xff, 0x10); /* CALL [RAX] */
}

static const char *run_device_moffs(void)
{
    return TRY(0, 0, 0xa1, 0x00, 0x00, 0x30, 0x00, 0x00, 0x01, 0x00, 0x00); /* MOV EAX, [moffs64] */
}

/* ---- delivery of interrupts and exceptions ---- */

/* An interrupt that waits, a stack where there is none; the interrupted instruction is a store like any other. */
static const char *interrupt_with_stack(u64 stack)
{
    cpu_disable_interrupts();
    msr_write(MSR_SELF_IPI, CASE_VECTOR);
    __asm__ volatile("mov %0, %%rsp\n\t"
                     "sti\n"
                     "1: mov %%eax, (%1)\n\t"
                     "mov %%eax, (%1)\n\t"
                     "jmp 1b"
                     :
                     : "r"(stack), "r"(ATTEMPT_DATA)
                     : "memory");
    return NULL;
}

static const char *run_stack_absent(void)
{
    struct descriptor_pointer idt;

    __asm__ volatile("sidt %0" : "=m"(idt));
    ((u8 *)idt.base)[FAULT_DF * sizeof(struct gate) + 4] = 0; /* no stack of its own for the double fault */
    return interrupt_with_stack(PLAYGROUND + GIB(4));
}

static const char *run_stack_in_device(void)
{
    return interrupt_with_stack(ATTEMPT_DEVICE + 0x800);
}

static const char *run_stack_beyond(void)
{
    paging_set_entry(PLAYGROUND, BEYOND_RAM | PAGING_PRESENT_WRITE);
    return interrupt_with_stack(PLAYGROUND + 0x800);
}

static const char *run_idt_in_device(void)
{
    load_idt(ATTEMPT_DEVICE, 0xfff);
    __asm__ volatile("ud2");
    return NULL;
}

static const char *run_gdt_in_device(void)
{
    struct descriptor_pointer gdt = {0xfff, ATTEMPT_DEVICE};
    __asm__ volatile("lgdt %0; mov %1, %%ds" : : "m"(gdt), "r"(0x10));
    return NULL;
}

/* The code segment is garbage, and so is that of every gate. */
static const char *run_gdt_garbage(void)
{
    u64 *garbage = (u64 *)ATTEMPT_DATA;
    struct descriptor_pointer gdt = {0xff, ATTEMPT_DATA};

    for (u32 i = 0; i < 32; i++)
        garbage[i] = mix64(case_seed + i) & ~(0xfull << 40); /* data, read-only, or a system type that is none */
    __asm__ volatile("lgdt %0\n\t"
                     "push $8\n\t"
                     "lea 1f(%%rip), %%rax\n\t"
                     "push %%rax\n\t"
                     "lretq\n"
                     "1:"
                     :
                     : "m"(gdt)
                     : "rax", "memory");
    return NULL;
}

/* A watchpoint on what the delivery of #DB itself pushes: each delivery raises the next (CVE-2015-8104). */
static const char *run_debug_loop(void)
{
    struct descriptor_pointer gdt, idt;
    u64 low, stack;

    __asm__ volatile("sgdt %0; sidt %1" : "=m"(gdt), "=m"(idt));
    low = *(u64 *)(gdt.base + 0x18); /* the TSS's descriptor; its base lies below 4 GiB */
    memcpy(&stack, (void *)(((low >> 16 & 0xffffff) | low >> 56 << 24) + TSS_IST1), sizeof(stack));
    ((u8 *)idt.base)[FAULT_DB * sizeof(struct gate) + 4] = 1; /* always the same stack */
    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(stack - 24), "r"(DR7_EXACT | 3 | 0x9ull << 16));
    __asm__ volatile("int $1");
    __asm__ volatile("mov %0, %%dr7" : : "r"(DR7_EXACT));
    console_print("hostile cpu: came back\n");
    return NULL;
}

/* ---- loops ---- */

static const char *run_spin(void)
{
    __asm__ volatile("cli\n1: jmp 1b");
    return NULL;
}

static const char *run_halt(void)
{
    __asm__ volatile("cli\n1: hlt\n jmp 1b");
    return NULL;
}

/* Each MOV SS holds off interrupts for the next instruction, which is another. */
static const char *run_shadow_loop(void)
{
    __asm__ volatile("sti\n1: .rept 1000\n mov %0, %%ss\n .endr\n jmp 1b" : : "r"(0));
    return NULL;
}

static const char *run_exit_storm(void)
{
    __asm__ volatile("cli\n1: in %%dx, %%eax\n cpuid\n wbinvd\n mov $0x12345678, %%ecx\n mov $0x80, %%edx\n jmp 1b"
                     :
                     : "d"(0x80)
                     : "rax", "rbx", "rcx");
    return NULL;
}

/* ---- system calls and modes ---- */

static const char *run_syscall_nowhere(void)
{
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_SCE);
    msr_write(MSR_STAR, 8ull << 32);
    msr_write(MSR_LSTAR, PLAYGROUND + GIB(4));
    load_idt(0, 0);
    __asm__ volatile("syscall" : : : "rcx", "r11");
    return NULL;
}

static const char *run_sysenter_nowhere(void)
{
    msr_write(MSR_SYSENTER_CS, 8);
    msr_write(MSR_SYSENTER_EIP, PLAYGROUND + GIB(4));
    load_idt(0, 0);
    __asm__ volatile("sysenter");
    return NULL;
}

static const char *write_cr0(u64 value)
{
    return TRY(value, 0, 0x0f, 0x22, 0xc0, 0x90);
}

static const char *run_cr0_pg_off(void)
{
    return write_cr0(cr0_read() & ~CR0_PG);
}

static const char *run_cr0_pe_off(void)
{
    return write_cr0(cr0_read() & ~CR0_PE);
}

static const char *run_cr0_nw(void)
{
    return write_cr0((cr0_read() & ~CR0_CD) | CR0_NW);
}

static const char *run_cr0_high(void)
{
    return write_cr0(cr0_read() | 1ull << 32);
}

/* This kernel's data is marked no-execute: without NXE that bit is reserved in every entry. */
static const char *run_efer_nxe(void)
{
    load_idt(0, 0);
    msr_write(MSR_EFER, msr_read(MSR_EFER) & ~EFER_NXE);
    return TRY(0, 0, 0x8b, 0x06); /* MOV EAX, [RSI] */
}

static const char *run_dr6_high(void)
{
    return TRY(1ull << 32, 0, 0x0f, 0x23, 0xf0);
}

static const char *run_dr7_high(void)
{
    return TRY(1ull << 32, 0, 0x0f, 0x23, 0xf8);
}

static void fill_garbage(void)
{
    u64 state = case_seed;

    for (u64 at = GARBAGE_START; at < GARBAGE_END; at += sizeof(u64))
        *(u64 *)at = mix_next(&state);
}

static const char *run_task_jump(void)
{
    mode_drop(MODE_TASK_JUMP);
}

static const char *run_task_gate(void)
{
    mode_drop(MODE_TASK_GATE);
}

static const char *run_alignment_loop(void)
{
    mode_drop(MODE_ALIGNMENT_LOOP);
}

static const char *run_real_mode(void)
{
    fill_garbage();
    mode_drop(MODE_REAL);
}

static const char *run_virtual_8086(void)
{
    fill_garbage();
    mode_drop(MODE_VIRTUAL_8086);
}

static const char *run_protected_garbage(void)
{
    fill_garbage();
    mode_drop(MODE_PROTECTED_GARBAGE);
}

static const char *run_device_32_bit(void)
{
    mode_drop(MODE_DEVICE_32_BIT);
}

static const char *run_cr4_32_bit(void)
{
    mode_drop(MODE_CR4_32_BIT);
}

static const char *run_long_mode_loop(void)
{
    mode_drop(MODE_LONG_LOOP);
}

const struct cpu_case case_fatal[] = {
    {"triple-fault", "an exception without an IDT", .run = run_triple_fault},
    {"fetch-beyond", "code beyond the end of RAM", .run = run_fetch_beyond},
    {"fetch-ioapic", "code in the IOAPIC", .run = run_fetch_ioapic},
    {"fetch-lapic", "code in the local APIC's page", .run = run_fetch_lapic},
    {"fetch-bar", "code in an MSI-X table", .run = run_fetch_bar},
    {"fetch-across", "an instruction of which half is in a device", .run = run_fetch_across},
    {"jump-absent", "code at an address that is not mapped", .run = run_jump_absent},
    {"jump-non-canonical", "code at an address that is none", .run = run_jump_non_canonical},
    {"cr3-beyond", "page tables beyond the end of RAM", .run = run_cr3_beyond},
    {"cr3-device", "page tables in the IOAPIC", .run = run_cr3_device},
    {"cr3-bit-51", "page tables at an address that no CPU has", .run = run_cr3_bit_51},
    {"cr3-bit-62", "a reserved bit of CR3", .run = run_cr3_bit_62},
    {"table-beyond", "an entry that names a table beyond RAM", .run = run_table_beyond},
    {"table-device", "an entry that names a table in the IOAPIC", .run = run_table_device},
    {"device-lock", "LOCK XADD on device memory", .run = run_device_lock},
    {"device-or", "read-modify-write on device memory", .run = run_device_or},
    {"device-xchg", "an exchange with device memory", .run = run_device_xchg},
    {"device-sse", "16 bytes from device memory", .run = run_device_sse},
    {"device-push", "PUSH into device memory", .run = run_device_push},
    {"device-movs", "a string move into device memory", .run = run_device_movs},
    {"device-call", "a pointer from device memory", .run = run_device_call},
    {"device-moffs", "a move whose address is in the instruction", .run = run_device_moffs},
    {"stack-absent", "an interrupt, and no stack", .run = run_stack_absent},
    {"stack-in-device", "an interrupt that is pushed into a device", .run = run_stack_in_device},
    {"stack-beyond", "an interrupt that is pushed beyond RAM", .run = run_stack_beyond},
    {"idt-in-device", "an exception whose gate is in a device", .run = run_idt_in_device},
    {"gdt-in-device", "a segment whose descriptor is in a device", .run = run_gdt_in_device},
    {"gdt-garbage", "a far jump through a GDT of garbage", .run = run_gdt_garbage},
    {"debug-loop", "#DB whose delivery raises #DB", .run = run_debug_loop},
    {"alignment-loop", "#AC whose delivery raises #AC", .run = run_alignment_loop},
    {"spin", "for ever, interrupts off", .run = run_spin},
    {"halt", "HLT with interrupts off", .run = run_halt},
    {"shadow-loop", "MOV SS for ever", .run = run_shadow_loop},
    {"exit-storm", "nothing but exits, for ever", .run = run_exit_storm},
    {"syscall-nowhere", "SYSCALL to what is not mapped", .run = run_syscall_nowhere},
    {"sysenter-nowhere", "SYSENTER to what is not mapped", .run = run_sysenter_nowhere},
    {"cr0-pg-off", "paging off in 64-bit mode", .run = run_cr0_pg_off},
    {"cr0-pe-off", "paging without protection", .run = run_cr0_pe_off},
    {"cr0-nw", "NW without CD", .run = run_cr0_nw},
    {"cr0-high", "a reserved bit of CR0", .run = run_cr0_high},
    {"efer-nxe", "no-execute off while it is in use", .run = run_efer_nxe},
    {"dr6-high", "a reserved bit of DR6", .run = run_dr6_high},
    {"dr7-high", "a reserved bit of DR7", .run = run_dr7_high},
    {"task-jump", "a task switch by a far jump", .run = run_task_jump},
    {"task-gate", "a task switch by an interrupt", .run = run_task_gate},
    {"real-mode", "garbage in real mode", .run = run_real_mode},
    {"virtual-8086", "garbage in virtual-8086 mode", .run = run_virtual_8086},
    {"protected-garbage", "garbage in 32-bit ring 0", .run = run_protected_garbage},
    {"device-32-bit", "device memory through 32-bit paging", .run = run_device_32_bit},
    {"cr4-32-bit", "CR4 written under 32-bit paging", .run = run_cr4_32_bit},
    {"long-mode-loop", "long mode left and entered, for ever", .run = run_long_mode_loop},
    {0},
};
