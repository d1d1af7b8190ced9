/*
 * The CPU seam: what SVM and VMX do differently, in one const table. Picked once at boot; nothing above knows the
 * vendor. Context: hv lock held, on the CPU that the vCPU belongs to, except enter() (lock not held).
 */
#pragma once

#include "hv/core/vcpu.h"
#include "hv/core/vm.h"

struct cpu;

/* The registers that walks of a guest's page tables need. */
struct guest_paging {
    u64 cr0, cr3, efer;
};

struct vcpu_vendor {
    const char *name; /* "svm" */
    const char *description;
    const struct page_format *nested_format;
    u32 hypercall_kind; /* enum driver_vendor_call */

    /* What this CPU lacks to be used by the back end (static text); NULL: nothing. */
    const char *(*missing)(void);
    /* Switch virtualization on, this CPU. Boot. */
    void (*cpu_init)(struct cpu *cpu);

    /* The vendor's part of a new vCPU; its VM's nested table exists. Boot. ERR_NO_SPACE. */
    status_t (*create)(struct vcpu *vcpu);
    /* May the driver VM touch these ports without an exit? (Everything exits otherwise.) */
    void (*allow_ports)(struct vcpu *vcpu, u16 first, u32 count);

    /* Start states: 64-bit flat with paging (GDT with null, code, data at gdt), or 32-bit flat without paging. General
     * registers are zeroed. */
    void (*reset_long64)(struct vcpu *vcpu, u64 entry, u64 rsp, u64 cr3, u64 gdt);
    void (*reset_protected32)(struct vcpu *vcpu, u64 entry);

    /* Run the guest until it exits; decode why. Interrupts off before and after; physical ones that came are pending.
     */
    void (*enter)(struct vcpu *vcpu, struct vcpu_exit *exit);

    /* Something waits for injection already (a new exception, or one whose delivery was cut short by an exit). */
    bool (*injection_pending)(const struct vcpu *vcpu);
    /* IF set and no interrupt shadow? */
    bool (*can_take_interrupt)(const struct vcpu *vcpu);
    void (*inject_interrupt)(struct vcpu *vcpu, u8 vector);
    void (*inject_exception)(struct vcpu *vcpu, u8 vector, bool has_error, u32 error_code);
    /* Exit with EXIT_WINDOW as soon as can_take_interrupt() holds. */
    void (*request_window)(struct vcpu *vcpu);
    /* The instruction was emulated: RIP moves on, the interrupt shadow ends. */
    void (*skip)(struct vcpu *vcpu, u32 length);

    /* MSRs that live in the vendor's state (EFER, PAT, STAR ...). *known false: not one of these. Returns false: #GP.
     */
    bool (*msr)(struct vcpu *vcpu, u32 index, bool write, u64 *value, bool *known);
    /* A write to CR4 that exited. False: #GP. */
    bool (*cr4_write)(struct vcpu *vcpu, u64 value);
    struct guest_paging (*paging)(const struct vcpu *vcpu);
};

extern const struct vcpu_vendor vcpu_vendor_svm;
extern const struct vcpu_vendor *vendor;

/* Pick the back end; boot_fail() with what is missing when there is none. */
void vcpu_vendor_select(void);
