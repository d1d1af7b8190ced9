/*
 * The CPU seam: what SVM and VMX do differently, in one const table. Picked once at boot; nothing above knows the
 * vendor. Context: hv lock held, on the CPU that the vCPU belongs to, except enter() (lock not held).
 */
#pragma once

#include "hv/arch/x86/event.h"
#include "hv/core/vcpu.h"
#include "hv/core/vm.h"

struct cpu;

/* Registers of a vCPU that the vendor's structure holds, or the CPU itself while the vCPU is loaded there. */
enum guest_register {
    GUEST_CR0,
    GUEST_CR3,
    GUEST_CR4,
    GUEST_EFER,
    GUEST_PAT,
    GUEST_STAR,
    GUEST_LSTAR,
    GUEST_CSTAR,
    GUEST_SFMASK,
    GUEST_KERNEL_GS_BASE,
    GUEST_FS_BASE,
    GUEST_GS_BASE,
    GUEST_SYSENTER_CS,
    GUEST_SYSENTER_ESP,
    GUEST_SYSENTER_EIP,
    GUEST_REGISTERS
};

/* Debug builds look through the vendor's structure before each entry. */
#ifdef NDEBUG
#define CHECK_ENTRIES false
#else
#define CHECK_ENTRIES true
#endif

/* 64-bit flat with paging (GDT with null, code, data at gdt), or 32-bit flat without; then all but the entry is 0. */
struct vcpu_start {
    bool long64;
    u64 entry, cr3, gdt;
};

struct vcpu_vendor {
    const char *name; /* "svm" */
    const char *description;
    const struct page_format *nested_format;
    u32 hypercall_kind; /* enum driver_vendor_call */

    /* What this CPU lacks to be used by the back end (static text); NULL: nothing. On each CPU, before cpu_init(). */
    const char *(*missing)(void);
    /* Switch virtualization on, this CPU. Boot. */
    void (*cpu_init)(struct cpu *cpu);

    /* The vendor's part of a new vCPU; its VM's nested table exists. Boot. ERR_NO_SPACE. */
    status_t (*create)(struct vcpu *vcpu);

    /* To a start state; general registers are zeroed. */
    void (*reset)(struct vcpu *vcpu, const struct vcpu_start *start);

    /* The next entry shall end when the TSC reaches this. False, or NULL: the CPU has no such timer. */
    bool (*set_deadline)(struct vcpu *vcpu, u64 tsc);
    /* Run the guest until it exits; decode why. Interrupts off before and after; physical ones that came are pending.
     */
    void (*enter)(struct vcpu *vcpu, struct vcpu_exit *exit);
    /* To the log: why the entry was refused, that ended with EXIT_INVALID and this code. */
    void (*explain)(struct vcpu *vcpu, u64 code);

    /* EVENT_TYPE_INTERRUPT: IF set and no interrupt shadow? EVENT_TYPE_NMI: none in progress, no shadow? */
    bool (*can_take)(const struct vcpu *vcpu, u32 type);
    /* Exit with EXIT_WINDOW as soon as can_take() holds; an NMI may have to wait for the exit after that. */
    void (*request_window)(struct vcpu *vcpu, u32 type);
    /* An instruction was emulated: the interrupt shadow ends; with a trap DR6 tells of the single step. */
    void (*end_instruction)(struct vcpu *vcpu, bool trap);

    /* Values are checked before: what is written is a state that the CPU can have. */
    u64 (*read)(struct vcpu *vcpu, enum guest_register reg);
    void (*write)(struct vcpu *vcpu, enum guest_register reg, u64 value);
};

extern const struct vcpu_vendor vcpu_vendor_svm, vcpu_vendor_vmx;
extern const struct vcpu_vendor *vendor;

/* A driver VM may touch these ports without an exit. (Everything exits otherwise.) */
void vcpu_allow_ports(struct vcpu *vcpu, u16 first, u32 count);
/* For the back ends: a permission map in which everything exits. Boot. */
u8 *permission_map_create(u64 frames);

/* Pick the back end and switch virtualization on, this CPU; boot_fail() with what each lacks when there is none. */
void vcpu_vendor_init(struct cpu *cpu);

/* guest_registers.c: MSRs that are such registers. *known false: not one of these. Returns false: #GP. */
bool vcpu_msr(struct vcpu *vcpu, u32 index, bool write, u64 *value, bool *known);
/* A write to CR4 that exited. False: #GP. */
bool vcpu_cr4_write(struct vcpu *vcpu, u64 value);
/* CR4 bits that a guest may set: what it can use without XSAVE, and what this CPU has. */
u64 vcpu_cr4_allowed(void);
