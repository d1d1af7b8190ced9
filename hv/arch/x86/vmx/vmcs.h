/*
 * The fields of the VMCS (SDM 3D appendix B) that are used, once, with the names that dumps and the checker print; and
 * the bits of its control fields (SDM 3C chapter 24). VMREAD and VMWRITE take the encoding; bits 14:13 of it are the
 * width.
 */
#pragma once

#include "hv/arch/x86/event.h"
#include "shared/lib/types.h"

/* clang-format off */
#define VMCS_FIELDS(X)                                                                                                 \
    /* 16 bits */                                                                                                      \
    X(VPID, 0x0000) X(GUEST_ES_SELECTOR, 0x0800) X(GUEST_CS_SELECTOR, 0x0802) X(GUEST_SS_SELECTOR, 0x0804)             \
    X(GUEST_DS_SELECTOR, 0x0806) X(GUEST_FS_SELECTOR, 0x0808) X(GUEST_GS_SELECTOR, 0x080a)                             \
    X(GUEST_LDTR_SELECTOR, 0x080c) X(GUEST_TR_SELECTOR, 0x080e) X(HOST_ES_SELECTOR, 0x0c00)                            \
    X(HOST_CS_SELECTOR, 0x0c02) X(HOST_SS_SELECTOR, 0x0c04) X(HOST_DS_SELECTOR, 0x0c06)                                \
    X(HOST_FS_SELECTOR, 0x0c08) X(HOST_GS_SELECTOR, 0x0c0a) X(HOST_TR_SELECTOR, 0x0c0c)                                \
    /* 64 bits */                                                                                                      \
    X(IO_BITMAP_A, 0x2000) X(IO_BITMAP_B, 0x2002) X(MSR_BITMAP, 0x2004) X(EPT_POINTER, 0x201a)                         \
    X(GUEST_PHYSICAL_ADDRESS, 0x2400) X(LINK_POINTER, 0x2800) X(GUEST_DEBUGCTL, 0x2802) X(GUEST_PAT, 0x2804)           \
    X(GUEST_EFER, 0x2806) X(HOST_PAT, 0x2c00) X(HOST_EFER, 0x2c02)                                                     \
    /* 32 bits */                                                                                                      \
    X(PIN_CONTROLS, 0x4000) X(PRIMARY_CONTROLS, 0x4002) X(EXCEPTION_BITMAP, 0x4004) X(PAGE_FAULT_MASK, 0x4006)         \
    X(PAGE_FAULT_MATCH, 0x4008) X(CR3_TARGET_COUNT, 0x400a) X(EXIT_CONTROLS, 0x400c)                                   \
    X(EXIT_MSR_STORE_COUNT, 0x400e) X(EXIT_MSR_LOAD_COUNT, 0x4010) X(ENTRY_CONTROLS, 0x4012)                           \
    X(ENTRY_MSR_LOAD_COUNT, 0x4014) X(ENTRY_EVENT, 0x4016) X(ENTRY_EVENT_ERROR, 0x4018)                                \
    X(SECONDARY_CONTROLS, 0x401e) X(INSTRUCTION_ERROR, 0x4400)                                                         \
    X(EXIT_REASON, 0x4402) X(EXIT_EVENT, 0x4404) X(EXIT_EVENT_ERROR, 0x4406) X(VECTORING_EVENT, 0x4408)                \
    X(VECTORING_EVENT_ERROR, 0x440a) X(EXIT_INSTRUCTION_LENGTH, 0x440c) X(GUEST_ES_LIMIT, 0x4800)                      \
    X(GUEST_CS_LIMIT, 0x4802) X(GUEST_SS_LIMIT, 0x4804) X(GUEST_DS_LIMIT, 0x4806) X(GUEST_FS_LIMIT, 0x4808)            \
    X(GUEST_GS_LIMIT, 0x480a) X(GUEST_LDTR_LIMIT, 0x480c) X(GUEST_TR_LIMIT, 0x480e) X(GUEST_GDTR_LIMIT, 0x4810)        \
    X(GUEST_IDTR_LIMIT, 0x4812) X(GUEST_ES_ACCESS, 0x4814) X(GUEST_CS_ACCESS, 0x4816) X(GUEST_SS_ACCESS, 0x4818)       \
    X(GUEST_DS_ACCESS, 0x481a) X(GUEST_FS_ACCESS, 0x481c) X(GUEST_GS_ACCESS, 0x481e)                                   \
    X(GUEST_LDTR_ACCESS, 0x4820) X(GUEST_TR_ACCESS, 0x4822) X(GUEST_INTERRUPTIBILITY, 0x4824)                          \
    X(GUEST_ACTIVITY, 0x4826) X(GUEST_SYSENTER_CS, 0x482a) X(PREEMPTION_TIMER, 0x482e)                                 \
    X(HOST_SYSENTER_CS, 0x4c00)                                                                                        \
    /* natural width */                                                                                                \
    X(CR0_MASK, 0x6000) X(CR4_MASK, 0x6002) X(CR0_SHADOW, 0x6004) X(CR4_SHADOW, 0x6006)                                \
    X(EXIT_QUALIFICATION, 0x6400) X(GUEST_LINEAR_ADDRESS, 0x640a) X(GUEST_CR0, 0x6800) X(GUEST_CR3, 0x6802)            \
    X(GUEST_CR4, 0x6804) X(GUEST_ES_BASE, 0x6806) X(GUEST_CS_BASE, 0x6808) X(GUEST_SS_BASE, 0x680a)                    \
    X(GUEST_DS_BASE, 0x680c) X(GUEST_FS_BASE, 0x680e) X(GUEST_GS_BASE, 0x6810) X(GUEST_LDTR_BASE, 0x6812)              \
    X(GUEST_TR_BASE, 0x6814) X(GUEST_GDTR_BASE, 0x6816) X(GUEST_IDTR_BASE, 0x6818) X(GUEST_DR7, 0x681a)                \
    X(GUEST_RSP, 0x681c) X(GUEST_RIP, 0x681e) X(GUEST_RFLAGS, 0x6820) X(GUEST_PENDING_DEBUG, 0x6822)                   \
    X(GUEST_SYSENTER_ESP, 0x6824) X(GUEST_SYSENTER_EIP, 0x6826) X(HOST_CR0, 0x6c00) X(HOST_CR3, 0x6c02)                \
    X(HOST_CR4, 0x6c04) X(HOST_FS_BASE, 0x6c06) X(HOST_GS_BASE, 0x6c08) X(HOST_TR_BASE, 0x6c0a)                        \
    X(HOST_GDTR_BASE, 0x6c0c) X(HOST_IDTR_BASE, 0x6c0e) X(HOST_SYSENTER_ESP, 0x6c10)                                   \
    X(HOST_SYSENTER_EIP, 0x6c12) X(HOST_RSP, 0x6c14) X(HOST_RIP, 0x6c16)
/* clang-format on */

/* VMCS_GUEST_CR0 = 0x6800 and so on: the encodings */
#define VMCS_ENCODING(name, encoding) VMCS_##name = (encoding),
enum vmcs_field { VMCS_FIELDS(VMCS_ENCODING) };
#undef VMCS_ENCODING

/* VMCS_INDEX_GUEST_CR0 and so on: the place in a snapshot */
#define VMCS_PLACE(name, encoding) VMCS_INDEX_##name,
enum vmcs_index { VMCS_FIELDS(VMCS_PLACE) VMCS_FIELD_COUNT };
#undef VMCS_PLACE

/* All fields at one moment; a field that this CPU does not have reads 0. */
struct vmcs_snapshot {
    u64 value[VMCS_FIELD_COUNT];
};

/* 24.6.1 */
#define PIN_EXTERNAL_INTERRUPT (1u << 0)
#define PIN_NMI (1u << 3)
#define PIN_VIRTUAL_NMI (1u << 5)
#define PIN_PREEMPTION_TIMER (1u << 6)

/* 24.6.2 */
#define PRIMARY_INTERRUPT_WINDOW (1u << 2)
#define PRIMARY_HLT (1u << 7)
#define PRIMARY_MWAIT (1u << 10)
#define PRIMARY_RDPMC (1u << 11)
#define PRIMARY_CR3_LOAD (1u << 15)
#define PRIMARY_CR8_LOAD (1u << 19)
#define PRIMARY_CR8_STORE (1u << 20)
#define PRIMARY_NMI_WINDOW (1u << 22)
#define PRIMARY_MOV_DR (1u << 23)
#define PRIMARY_IO_BITMAPS (1u << 25)
#define PRIMARY_MSR_BITMAPS (1u << 28)
#define PRIMARY_MONITOR (1u << 29)
#define PRIMARY_SECONDARY (1u << 31)

/* 24.6.2, table 24-7: secondary */
#define SECONDARY_EPT (1u << 1)
#define SECONDARY_VPID (1u << 5)
#define SECONDARY_WBINVD (1u << 6)
#define SECONDARY_UNRESTRICTED (1u << 7)

/* 24.7.1 */
#define EXIT_CONTROL_SAVE_DEBUG (1u << 2)
#define EXIT_CONTROL_HOST_64 (1u << 9)
#define EXIT_CONTROL_SAVE_PAT (1u << 18)
#define EXIT_CONTROL_LOAD_PAT (1u << 19)
#define EXIT_CONTROL_SAVE_EFER (1u << 20)
#define EXIT_CONTROL_LOAD_EFER (1u << 21)

/* 24.8.1 */
#define ENTRY_CONTROL_LOAD_DEBUG (1u << 2)
#define ENTRY_CONTROL_GUEST_64 (1u << 9)
#define ENTRY_CONTROL_LOAD_PAT (1u << 14)
#define ENTRY_CONTROL_LOAD_EFER (1u << 15)

/* 24.8.3, 24.9.2, 24.9.3: interruption information of entries, exits, vectoring: arch/x86/event.h and */
#define EVENT_NMI_UNBLOCKED (1u << 12)       /* exits: IRET had ended NMI blocking */
#define EVENT_TYPE_PRIVILEGED_SOFT (5u << 8) /* INT1 */

/* 24.4.2 */
#define BLOCKED_BY_STI (1u << 0)
#define BLOCKED_BY_MOV_SS (1u << 1)
#define BLOCKED_BY_NMI (1u << 3)

/* 24.4.2, table 24-4: GUEST_PENDING_DEBUG */
#define PENDING_DEBUG_BS (1u << 14)

/* 24.4.1: access rights of a segment; a selector without a segment is "unusable" */
#define ACCESS_UNUSABLE (1u << 16)

/* The capability MSRs (appendix A), in the order of their numbers from MSR_VMX_BASIC. */
#define MSR_FEATURE_CONTROL 0x3au
#define MSR_VMX_BASIC 0x480u
enum vmx_capability {
    CAP_BASIC,
    CAP_PIN,
    CAP_PRIMARY,
    CAP_EXIT,
    CAP_ENTRY,
    CAP_MISC,
    CAP_CR0_FIXED0,
    CAP_CR0_FIXED1,
    CAP_CR4_FIXED0,
    CAP_CR4_FIXED1,
    CAP_VMCS_ENUM,
    CAP_SECONDARY,
    CAP_EPT_VPID,
    CAP_TRUE_PIN,
    CAP_TRUE_PRIMARY,
    CAP_TRUE_EXIT,
    CAP_TRUE_ENTRY,
    CAP_COUNT
};

/* What a CPU says of itself; a MSR that it does not have (appendix A says when) is 0. */
struct vmx_capabilities {
    u64 msr[CAP_COUNT];
    u64 feature_control; /* IA32_FEATURE_CONTROL as firmware left it (23.7) */
    u32 physical_bits;   /* of a physical address: CPUID 80000008.EAX[7:0]; 0: not known, 52 is the most there is */
};
