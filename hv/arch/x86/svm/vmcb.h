/* The VM control block (APM 2 appendix B) and exit codes (appendix C), the part that is used. */
#pragma once

#include "hv/arch/x86/event.h"
#include "shared/lib/types.h"

/*
 * Exit codes. Below 0xa0 they number the intercepts as well: code / 32 is the word of the intercept vector, code % 32
 * its bit (tables B-1 and C-1).
 */
#define SVM_EXIT_CR_READ 0x00u   /* + CR number */
#define SVM_EXIT_CR_WRITE 0x10u  /* + CR number, up to 0x1f */
#define SVM_EXIT_EXCEPTION 0x40u /* + vector, up to 0x5f */
#define SVM_EXIT_INTR 0x60u      /* NMI, SMI */
#define SVM_EXIT_INIT 0x63u
#define SVM_EXIT_VINTR 0x64u
#define SVM_EXIT_RDPMC 0x6fu
#define SVM_EXIT_CPUID 0x72u
#define SVM_EXIT_IRET 0x74u
#define SVM_EXIT_INVD 0x76u
#define SVM_EXIT_HLT 0x78u
#define SVM_EXIT_INVLPGA 0x7au
#define SVM_EXIT_IOIO 0x7bu
#define SVM_EXIT_MSR 0x7cu
#define SVM_EXIT_TASK_SWITCH 0x7du
#define SVM_EXIT_FERR_FREEZE 0x7eu
#define SVM_EXIT_SHUTDOWN 0x7fu
#define SVM_EXIT_VMRUN 0x80u
#define SVM_EXIT_VMMCALL 0x81u
#define SVM_EXIT_VMLOAD 0x82u /* VMSAVE, STGI, CLGI */
#define SVM_EXIT_SKINIT 0x86u
#define SVM_EXIT_RDTSCP 0x87u
#define SVM_EXIT_ICEBP 0x88u
#define SVM_EXIT_WBINVD 0x89u
#define SVM_EXIT_MONITOR 0x8au
#define SVM_EXIT_MWAIT 0x8bu
#define SVM_EXIT_XSETBV 0x8du
#define SVM_EXIT_NPF 0x400u
#define SVM_EXIT_INVALID 0xffffffffu /* as 32 bits: emulators differ in the upper half */

/* int_control, offset 0x60 (15.21) */
#define SVM_V_IRQ (1u << 8)
#define SVM_V_PRIORITY_MAX (15u << 16)
#define SVM_V_IGNORE_TPR (1u << 20)
#define SVM_V_INTR_MASKING (1u << 24)

#define SVM_TLB_FLUSH_ALL 1u
#define SVM_NESTED_PAGING 1ull

/* EXITINFO1 of a nested page fault (15.25.6) */
#define SVM_NPF_WRITE (1ull << 1)
#define SVM_NPF_FETCH (1ull << 4)
#define SVM_NPF_TABLE_WALK (1ull << 33)

#define SVM_CODE_LONG (1u << 9) /* L of a code segment's attributes */

struct svm_segment {
    u16 selector, attributes;
    u32 limit;
    u64 base;
};

struct svm_vmcb {
    /* control area */
    u32 intercept[6]; /* 0x000: control registers (reads, then writes), debug registers, exceptions, the rest */
    u8 reserved0[0x40 - 0x18];
    u64 iopm, msrpm, tsc_offset; /* 0x040 */
    u32 asid;                    /* 0x058 */
    u32 tlb_control;
    u32 int_control; /* 0x060 */
    u32 int_vector;
    u64 interrupt_shadow; /* 0x068: bit 0 */
    u64 exit_code;        /* 0x070 */
    u64 exit_info1, exit_info2;
    u32 exit_event, exit_event_error; /* EXITINTINFO, as in arch/x86/event.h */
    u64 nested_control;               /* 0x090 */
    u8 reserved1[0xa8 - 0x98];
    u32 event, event_error; /* 0x0a8: EVENTINJ */
    u64 nested_cr3;         /* 0x0b0 */
    u64 lbr_control;
    u32 clean_bits, reserved2; /* 0x0c0 */
    u64 next_rip;              /* 0x0c8 */
    u8 reserved3[0x400 - 0xd0];
    /* state save area */
    struct svm_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr; /* 0x400 */
    u8 reserved4[0x4cb - 0x4a0];
    u8 cpl; /* 0x4cb */
    u32 reserved5;
    u64 efer; /* 0x4d0 */
    u8 reserved6[0x548 - 0x4d8];
    u64 cr4, cr3, cr0, dr7, dr6, rflags, rip; /* 0x548 */
    u8 reserved7[0x5d8 - 0x580];
    u64 rsp; /* 0x5d8 */
    u8 reserved8[0x5f8 - 0x5e0];
    u64 rax, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, cr2; /* 0x5f8 */
    u8 reserved9[0x668 - 0x648];
    u64 pat; /* 0x668 */
    u8 reserved10[0x1000 - 0x670];
} __attribute__((packed, aligned(4096)));

_Static_assert(sizeof(struct svm_vmcb) == 4096, "APM 2 appendix B");
_Static_assert(offsetof(struct svm_vmcb, iopm) == 0x40, "B-1");
_Static_assert(offsetof(struct svm_vmcb, event) == 0xa8, "B-1");
_Static_assert(offsetof(struct svm_vmcb, next_rip) == 0xc8, "B-1");
_Static_assert(offsetof(struct svm_vmcb, cpl) == 0x4cb, "B-2");
_Static_assert(offsetof(struct svm_vmcb, efer) == 0x4d0, "B-2");
_Static_assert(offsetof(struct svm_vmcb, cr4) == 0x548, "B-2");
_Static_assert(offsetof(struct svm_vmcb, rsp) == 0x5d8, "B-2");
_Static_assert(offsetof(struct svm_vmcb, rax) == 0x5f8, "B-2");
_Static_assert(offsetof(struct svm_vmcb, cr2) == 0x640, "B-2");
_Static_assert(offsetof(struct svm_vmcb, pat) == 0x668, "B-2");
