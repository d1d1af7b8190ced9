/*
 * A virtual CPU above the vendor seam (arch/x86/vendor.h), and the neutral exit record.
 *
 * States:            wake()                 schedule_pick()
 *   STOPPED --start--> BLOCKED <--block-- RUNNABLE <--exit-- RUNNING (in guest mode on its CPU, lock not held)
 * Every change happens under the hv lock, by any CPU, except that `in_guest` is set by the owner CPU just before
 * entry (lock held) and cleared by it right after the exit, before it takes the lock (store-release).
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define FXSAVE_SIZE 512u /* SDM 1 10.5.1 */

struct vm;

enum vcpu_state { VCPU_STOPPED, VCPU_BLOCKED, VCPU_RUNNABLE };

/* In the order of their numbers in instructions (APM 3 table 1-10), as assembly knows, too. */
struct vcpu_registers {
    u64 rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi;
    u64 r8, r9, r10, r11, r12, r13, r14, r15;
};

/* The kind, and its name for status and events. */
#define EXIT_LIST(X)                                                                                                   \
    X(EXIT_UNKNOWN, "unknown")                                                                                         \
    X(EXIT_INTERRUPT, "interrupt") /* nothing to do for the VM: a physical interrupt, NMI, the deadline ... */         \
    X(EXIT_WINDOW, "window")       /* the guest can take an interrupt now */                                           \
    X(EXIT_HLT, "hlt")                                                                                                 \
    X(EXIT_CPUID, "cpuid")                                                                                             \
    X(EXIT_PIO, "pio")                                                                                                 \
    X(EXIT_MSR, "msr")                                                                                                 \
    X(EXIT_NESTED_FAULT, "nested") /* access to guest-physical memory that the nested table does not allow */          \
    X(EXIT_HYPERCALL, "hypercall")                                                                                     \
    X(EXIT_CR, "cr")                                                                                                   \
    X(EXIT_EXCEPTION, "exception") /* #DB, #AC (APM 2 15.12): could loop in delivery; then given to the guest. INT1 */ \
                                   /* has a length: it is a trap, so the guest's RIP is behind it */                   \
    X(EXIT_UNDEFINED, "undefined") /* an instruction that this machine does not have, like VMRUN: inject #UD */        \
    X(EXIT_CACHE, "cache")         /* WBINVD, INVD: skipped */                                                         \
    X(EXIT_SHUTDOWN, "shutdown")   /* triple fault */                                                                  \
    X(EXIT_TASK_SWITCH, "task")    /* by hardware, through the GDT or IDT: not offered */                              \
    X(EXIT_INVALID, "invalid")     /* the entry was refused: guest state invalid */

#define EXIT_ENUM(kind, name) kind,
enum exit_kind { EXIT_LIST(EXIT_ENUM) EXIT_KINDS };
#undef EXIT_ENUM
extern const char *const exit_kind_name[EXIT_KINDS];

struct vcpu {
    struct vm *vm;
    u32 cpu; /* the CPU it runs on: fixed at boot */
    enum vcpu_state state;
    bool in_guest;
    bool flush_tlb;            /* before the next entry */
    u32 stops, stops_at_entry; /* how often vcpu_stop() was called; and until the last entry */
    struct vcpu_registers regs;
    u64 rip;                /* valid after an exit; written back before the entry */
    u64 rflags;             /* the same */
    u32 event, event_error; /* what the next entry delivers (arch/x86/event.h); 0: nothing */
    u32 held;               /* an interrupt or NMI that an exception has displaced from there; 0: none */
    u8 *port_map;           /* of a driver VM: a bit a port, 1: it exits; NULL: all exit */
    void *arch;             /* the vendor's part: VMCB page and so on */
    u8 fpu[FXSAVE_SIZE] __attribute__((aligned(16)));
    u64 exits; /* all of them */
    u64 exits_by_kind[EXIT_KINDS];
    u64 run_ticks; /* TSC ticks in guest mode */
};

struct vcpu_exit {
    enum exit_kind kind;
    u32 instruction_length; /* 0: unknown; what vcpu_skip() adds to RIP */
    union {
        struct {
            u16 port;
            u8 width; /* 1, 2, 4 */
            bool write;
            bool string; /* INS/OUTS: not offered to guests */
        } pio;
        struct {
            u32 index;
            bool write;
        } msr;
        struct {
            gpa_t address; /* exact to the byte */
            bool write;
            bool fetch;
            bool table_walk; /* the access was the guest's own page walk */
        } nested;
        struct {
            u32 cr;  /* 0, 3, 4, 8 */
            u32 reg; /* number of the register, 0 to 15 */
            bool write;
        } cr;
        struct {
            u8 vector;
            u32 error_code;
        } exception;
        u64 code; /* UNKNOWN, INVALID: the vendor's exit code */
    };
};

/* The part of a vCPU's start state that no vendor keeps: registers 0 but RIP, FPU as after FNINIT. It does not run. */
void vcpu_reset(struct vcpu *vcpu, u64 entry);

/* The register of that number, 0 to 15. */
static inline u64 *vcpu_register(struct vcpu *vcpu, u32 number)
{
    return (u64 *)&vcpu->regs + (number & 15);
}

/* Make a blocked vCPU runnable and, when its CPU is another one or idle, tell that CPU. Any state: a stopped one stays
 * so. */
void vcpu_wake(struct vcpu *vcpu);

/* The vCPU waits for vcpu_wake(). Called in its own exit. */
void vcpu_block(struct vcpu *vcpu);

/* No more entries. When it is in guest mode on another CPU, that CPU is kicked and waited for (bounded by one exit). */
void vcpu_stop(struct vcpu *vcpu);

/*
 * Its nested page table lost rights: flush before the next entry, and if it is in guest mode on another CPU now, force
 * it out and wait until it is. When this returns no CPU uses the old entries for this VM.
 */
void vcpu_shootdown(struct vcpu *vcpu);

/* Make it leave guest mode soon, so that pending virtual interrupts are looked at. Does not wait. */
void vcpu_kick(struct vcpu *vcpu);

/* Step over the instruction that was emulated, of that many bytes. */
void vcpu_skip(struct vcpu *vcpu, u32 length);

/* Inject an exception at the next entry (error code only for vectors that have one). */
void vcpu_inject_exception(struct vcpu *vcpu, u8 vector, u32 error_code);

/* After each exit, by the vendor: this is the event whose delivery it cut short. Not EVENT_VALID: none. */
void vcpu_keep_event(struct vcpu *vcpu, u32 event, u32 error_code);

/*
 * Copy up to len bytes of guest memory at virtual address `va`, through the guest's own page tables (paging off:
 * physical). Returns the number of bytes copied before something was not mapped or not RAM, or 0 with page tables of
 * another mode than 64-bit. All of the walk is untrusted.
 */
u32 vcpu_fetch(struct vcpu *vcpu, u64 va, void *out, u32 len);

/* The guest-physical address behind a virtual one; ERR_NOT_FOUND: not mapped, or another paging mode. */
NODISCARD status_t vcpu_translate(struct vcpu *vcpu, u64 va, gpa_t *out);
