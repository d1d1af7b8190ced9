/*
 * VM-entry checks (SDM 3C chapter 26 as far as a VMCS of ours goes; section numbers of newer prints: one more). Each
 * rule says what must hold, in the manual's order, controls before host before guest state, as the CPU looks at them.
 */
#include "hv/arch/x86/vmx/check.h"
#include "hv/arch/x86/cpu/registers.h"

#define VALUE(name) (state->value[VMCS_INDEX_##name])
/* The manual's rule, or the text that tells of it. */
#define RULE(holds, text)                                                                                              \
    do {                                                                                                               \
        if (!(holds))                                                                                                  \
            return text;                                                                                               \
    } while (0)

/* Controls whose further fields the snapshot does not have (24.6 to 24.8): none of ours sets them. */
#define PRIMARY_FOREIGN (PRIMARY_TPR_SHADOW | 1u << 17 /* tertiary controls */)
#define SECONDARY_FOREIGN                                                                                              \
    (SECONDARY_VIRTUAL_APIC | SECONDARY_VIRTUAL_X2APIC | SECONDARY_APIC_REGISTERS | SECONDARY_INTERRUPT_DELIVERY |     \
     SECONDARY_VMFUNC | 1u << 14 /* shadow VMCS */ | SECONDARY_PML | SECONDARY_EPT_VE |                                \
     1u << 23 /* sub-page rights */ | 1u << 25 /* TSC scaling */)
#define EXIT_FOREIGN (1u << 12 /* performance counters */ | 1u << 28 /* CET */ | 1u << 29 /* PKRS */ | 1u << 31)
#define ENTRY_FOREIGN (1u << 13 /* performance counters */ | 0x7fu << 16 /* BNDCFGS, CET and so on */)
#define SECONDARY_MODE_BASED_EXECUTE (1u << 22)

#define CR4_PCIDE (1ull << 17)
#define CR4_CET (1ull << 23)
#define RFLAGS_TF (1ull << 8)
#define RFLAGS_VM (1ull << 17)
#define DEBUGCTL_BTF (1ull << 1)
#define PENDING_DEBUG_BS (1ull << 14)
#define PENDING_DEBUG_RTM (1ull << 16)
#define BASIC_32_BIT (1ull << 48)
#define BASIC_TRUE_CONTROLS (1ull << 55)
#define BASIC_ANY_ERROR_CODE (1ull << 56)
#define MISC_LENGTH_0 (1ull << 30)

/* Access rights (table 24-2) */
#define ACCESS_TYPE(access) ((access)&15)
#define ACCESS_CODE_OR_DATA (1u << 4)
#define ACCESS_DPL(access) ((access) >> 5 & 3)
#define ACCESS_PRESENT (1u << 7)
#define ACCESS_LONG (1u << 13)
#define ACCESS_BIG (1u << 14)
#define ACCESS_GRANULARITY (1u << 15)
#define ACCESS_RESERVED (0xf00u | ~0x1ffffu)
#define ACCESS_VIRTUAL_8086 0xf3u

enum activity { ACTIVE, HALTED, SHUTDOWN, WAIT_FOR_SIPI };

/* 4-level paging everywhere here, so 48 bits, whatever the CPU could do with 57 (3.3.7.1 in SDM 1). */
static bool canonical(u64 address)
{
    return (u64)((i64)(address << 16) >> 16) == address;
}

static bool physical(const struct vmx_capabilities *caps, u64 address)
{
    return address >> (caps->physical_bits ? caps->physical_bits : 52) == 0;
}

/* A page that a control field names (A.1: some CPUs take 32 bits there). */
static bool physical_page(const struct vmx_capabilities *caps, u64 address)
{
    return address % 4096 == 0 && physical(caps, address) &&
           (!(caps->msr[CAP_BASIC] & BASIC_32_BIT) || !(address >> 32));
}

/* A.3 to A.5: where bits 31:0 of the MSR are 1 the control must be 1, where bits 63:32 are 0 it must be 0. */
static u64 control_msr(const struct vmx_capabilities *caps, enum vmx_capability which)
{
    return caps->msr[caps->msr[CAP_BASIC] & BASIC_TRUE_CONTROLS ? which - CAP_PIN + CAP_TRUE_PIN : which];
}

static bool allowed(u64 msr, u64 value)
{
    return !(~value & (u32)msr) && !(value & ~(msr >> 32));
}

/* A.7, A.8. `free`: bits that may be 0 all the same. */
static bool fixed_bits(u64 fixed0, u64 fixed1, u64 free, u64 value)
{
    return !(~value & fixed0 & ~free) && !(value & ~fixed1);
}

static bool pat_valid(u64 pat)
{
    for (; pat; pat >>= 8)
        if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
            return false;
    return true;
}

static u64 secondary(const struct vmcs_snapshot *state)
{
    return VALUE(PRIMARY_CONTROLS) & PRIMARY_SECONDARY ? VALUE(SECONDARY_CONTROLS) : 0;
}

static bool unrestricted(const struct vmcs_snapshot *state)
{
    return secondary(state) & SECONDARY_UNRESTRICTED;
}

static bool long_mode(const struct vmcs_snapshot *state)
{
    return VALUE(ENTRY_CONTROLS) & ENTRY_CONTROL_GUEST_64;
}

static bool injects(const struct vmcs_snapshot *state, u32 type)
{
    return (VALUE(ENTRY_EVENT) & (EVENT_VALID | EVENT_TYPE)) == (EVENT_VALID | type);
}

/* 26.2.1.1 to 26.2.1.3: reserved bits, and bits whose fields are not here */
static const char *check_control_bits(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    RULE(allowed(control_msr(caps, CAP_PIN), VALUE(PIN_CONTROLS)), "PIN_CONTROLS: reserved bits (26.2.1.1)");
    RULE(allowed(control_msr(caps, CAP_PRIMARY), VALUE(PRIMARY_CONTROLS)),
         "PRIMARY_CONTROLS: reserved bits (26.2.1.1)");
    RULE(allowed(caps->msr[CAP_SECONDARY], secondary(state)), "SECONDARY_CONTROLS: reserved bits (26.2.1.1)");
    RULE(allowed(control_msr(caps, CAP_EXIT), VALUE(EXIT_CONTROLS)), "EXIT_CONTROLS: reserved bits (26.2.1.2)");
    RULE(allowed(control_msr(caps, CAP_ENTRY), VALUE(ENTRY_CONTROLS)), "ENTRY_CONTROLS: reserved bits (26.2.1.3)");
    RULE(!(VALUE(PIN_CONTROLS) & PIN_POSTED_INTERRUPT), "PIN_CONTROLS: needs fields that are not kept");
    RULE(!(VALUE(PRIMARY_CONTROLS) & PRIMARY_FOREIGN), "PRIMARY_CONTROLS: needs fields that are not kept");
    RULE(!(secondary(state) & SECONDARY_FOREIGN), "SECONDARY_CONTROLS: needs fields that are not kept");
    RULE(!(VALUE(EXIT_CONTROLS) & EXIT_FOREIGN), "EXIT_CONTROLS: needs fields that are not kept");
    RULE(!(VALUE(ENTRY_CONTROLS) & ENTRY_FOREIGN), "ENTRY_CONTROLS: needs fields that are not kept");
    RULE(VALUE(EXIT_MSR_STORE_COUNT) == 0, "EXIT_MSR_STORE_COUNT: the list's address is not kept (26.2.1.2)");
    RULE(VALUE(EXIT_MSR_LOAD_COUNT) == 0, "EXIT_MSR_LOAD_COUNT: the list's address is not kept (26.2.1.2)");
    RULE(VALUE(ENTRY_MSR_LOAD_COUNT) == 0, "ENTRY_MSR_LOAD_COUNT: the list's address is not kept (26.2.1.3)");
    return NULL;
}

/* 24.6.11, A.10 */
static const char *check_ept_pointer(const struct vmx_capabilities *caps, u64 pointer)
{
    u64 offered = caps->msr[CAP_EPT_VPID], type = pointer & 7, levels = (pointer >> 3 & 7) + 1;

    RULE((type == 0 && offered & 1 << 8) || (type == 6 && offered & 1 << 14), "EPT_POINTER: memory type (26.2.1.1)");
    RULE((levels == 4 && offered & 1 << 6) || (levels == 5 && offered & 1 << 7), "EPT_POINTER: levels (26.2.1.1)");
    RULE(!(pointer & 1 << 6) || offered & 1 << 21, "EPT_POINTER: no accessed and dirty flags here (26.2.1.1)");
    RULE(!(pointer & 0xf80) && physical(caps, pointer), "EPT_POINTER: reserved bits (26.2.1.1)");
    return NULL;
}

/* 26.2.1.1, 26.2.1.2: what one control demands of another field */
static const char *check_dependent_controls(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 pin = VALUE(PIN_CONTROLS), primary = VALUE(PRIMARY_CONTROLS);

    RULE(VALUE(CR3_TARGET_COUNT) <= (caps->msr[CAP_MISC] >> 16 & 0x1ff), "CR3_TARGET_COUNT: too many (26.2.1.1)");
    if (primary & PRIMARY_IO_BITMAPS) {
        RULE(physical_page(caps, VALUE(IO_BITMAP_A)), "IO_BITMAP_A: must be a page's address (26.2.1.1)");
        RULE(physical_page(caps, VALUE(IO_BITMAP_B)), "IO_BITMAP_B: must be a page's address (26.2.1.1)");
    }
    RULE(!(primary & PRIMARY_MSR_BITMAPS) || physical_page(caps, VALUE(MSR_BITMAP)),
         "MSR_BITMAP: must be a page's address (26.2.1.1)");
    RULE(!(pin & PIN_VIRTUAL_NMI) || pin & PIN_NMI, "PIN_CONTROLS: virtual NMIs need NMI exiting (26.2.1.1)");
    RULE(!(primary & PRIMARY_NMI_WINDOW) || pin & PIN_VIRTUAL_NMI,
         "PRIMARY_CONTROLS: the NMI window needs virtual NMIs (26.2.1.1)");
    RULE(!(secondary(state) & (SECONDARY_UNRESTRICTED | SECONDARY_MODE_BASED_EXECUTE)) ||
             secondary(state) & SECONDARY_EPT,
         "SECONDARY_CONTROLS: unrestricted guest and mode-based execute control need EPT (26.2.1.1)");
    RULE(!(secondary(state) & SECONDARY_VPID) || VALUE(VPID), "VPID: 0 is the host's (26.2.1.1)");
    RULE(!(VALUE(EXIT_CONTROLS) & EXIT_CONTROL_SAVE_TIMER) || pin & PIN_PREEMPTION_TIMER,
         "EXIT_CONTROLS: saves a preemption timer that is off (26.2.1.2)");
    RULE(!(VALUE(ENTRY_CONTROLS) & (ENTRY_CONTROL_SMM | ENTRY_CONTROL_DUAL_MONITOR)),
         "ENTRY_CONTROLS: SMM only from within SMM (26.2.1.3)");
    return secondary(state) & SECONDARY_EPT ? check_ept_pointer(caps, VALUE(EPT_POINTER)) : NULL;
}

/* 26.2.1.3: may, must this event bring an error code? Since CET only exceptions in protected mode may (A.1, bit 56). */
static bool error_code_fits(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    const u32 with_code = 1u << 8 | 0x1fu << 10 | 1u << 17; /* #DF, #TS to #PF, #AC */
    bool given = VALUE(ENTRY_EVENT) & EVENT_HAS_ERROR;

    if (!injects(state, EVENT_TYPE_EXCEPTION) || !(VALUE(GUEST_CR0) & CR0_PE))
        return !given;
    return caps->msr[CAP_BASIC] & BASIC_ANY_ERROR_CODE || given == (bool)(with_code >> (VALUE(ENTRY_EVENT) & 31) & 1);
}

/* 26.2.1.3 */
static const char *check_event(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 event = VALUE(ENTRY_EVENT), vector = event & EVENT_VECTOR, length = VALUE(ENTRY_INSTRUCTION_LENGTH);
    u32 type = event & EVENT_TYPE;
    bool monitor_trap = control_msr(caps, CAP_PRIMARY) >> 32 & PRIMARY_MONITOR_TRAP;

    if (!(event & EVENT_VALID))
        return NULL;
    RULE(type != 1 << 8 && (type != 7 << 8 || monitor_trap), "ENTRY_EVENT: reserved type (26.2.1.3)");
    RULE((type != EVENT_TYPE_NMI || vector == 2) && (type != EVENT_TYPE_EXCEPTION || vector < 32) &&
             (type != 7 << 8 || vector == 0),
         "ENTRY_EVENT: a vector that its type does not have (26.2.1.3)");
    RULE(error_code_fits(caps, state), "ENTRY_EVENT: error code with an event that has none, or none (26.2.1.3)");
    RULE(!(event & ~(u64)(EVENT_VALID | EVENT_HAS_ERROR | EVENT_TYPE | EVENT_VECTOR)),
         "ENTRY_EVENT: reserved bits (26.2.1.3)");
    RULE(!(event & EVENT_HAS_ERROR) || !(VALUE(ENTRY_EVENT_ERROR) >> 16), "ENTRY_EVENT_ERROR: 16 bits (26.2.1.3)");
    RULE(type < EVENT_TYPE_SOFT_INTERRUPT || type > EVENT_TYPE_SOFT_EXCEPTION ||
             (length <= 15 && (length || caps->msr[CAP_MISC] & MISC_LENGTH_0)),
         "ENTRY_INSTRUCTION_LENGTH: 1 to 15 for software's events (26.2.1.3)");
    return NULL;
}

const char *vmx_check_controls(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    return check_control_bits(caps, state) ?: check_dependent_controls(caps, state) ?: check_event(caps, state);
}

/* Fields that hold linear addresses whatever the mode (26.2.2, 26.2.3, 26.3.1.1 to 26.3.1.3) */
#define CANONICAL(name, section)                                                                                       \
    {                                                                                                                  \
        VMCS_INDEX_##name, #name ": must be canonical (" section ")"                                                   \
    }
static const struct {
    enum vmcs_index field;
    const char *text;
} canonical_fields[] = {
    CANONICAL(HOST_SYSENTER_ESP, "26.2.2"),    CANONICAL(HOST_SYSENTER_EIP, "26.2.2"),
    CANONICAL(HOST_FS_BASE, "26.2.3"),         CANONICAL(HOST_GS_BASE, "26.2.3"),
    CANONICAL(HOST_TR_BASE, "26.2.3"),         CANONICAL(HOST_GDTR_BASE, "26.2.3"),
    CANONICAL(HOST_IDTR_BASE, "26.2.3"),       CANONICAL(HOST_RIP, "26.2.4"),
    CANONICAL(GUEST_SYSENTER_ESP, "26.3.1.1"), CANONICAL(GUEST_SYSENTER_EIP, "26.3.1.1"),
    CANONICAL(GUEST_GDTR_BASE, "26.3.1.3"),    CANONICAL(GUEST_IDTR_BASE, "26.3.1.3"),
};

static const char *check_canonical(const struct vmcs_snapshot *state)
{
    for (u32 i = 0; i < ARRAY_SIZE(canonical_fields); i++)
        RULE(canonical(state->value[canonical_fields[i].field]), canonical_fields[i].text);
    return NULL;
}

/* 26.2.3: which of the selectors may not be null. In 64-bit mode SS may. */
#define HOST_SELECTOR(name, needed)                                                                                    \
    {                                                                                                                  \
        VMCS_INDEX_HOST_##name##_SELECTOR, needed, "HOST_" #name "_SELECTOR: TI, RPL 0 (26.2.3)"                       \
    }
static const struct {
    enum vmcs_index field;
    bool needed;
    const char *text;
} host_selectors[] = {
    HOST_SELECTOR(ES, false), HOST_SELECTOR(CS, true),  HOST_SELECTOR(SS, false), HOST_SELECTOR(DS, false),
    HOST_SELECTOR(FS, false), HOST_SELECTOR(GS, false), HOST_SELECTOR(TR, true),
};

/* 26.2.2 to 26.2.4 */
static const char *check_host(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    const u64 *msr = caps->msr, cr4 = VALUE(HOST_CR4), exit = VALUE(EXIT_CONTROLS);

    RULE(fixed_bits(msr[CAP_CR0_FIXED0], msr[CAP_CR0_FIXED1], 0, VALUE(HOST_CR0)), "HOST_CR0: fixed bits (26.2.2)");
    RULE(fixed_bits(msr[CAP_CR4_FIXED0], msr[CAP_CR4_FIXED1], 0, cr4), "HOST_CR4: fixed bits (26.2.2)");
    RULE(!(cr4 & CR4_CET) || VALUE(HOST_CR0) & CR0_WP, "HOST_CR4: CET needs CR0.WP (26.2.2)");
    RULE(physical(caps, VALUE(HOST_CR3)), "HOST_CR3: beyond the physical-address width (26.2.2)");
    RULE(!(exit & EXIT_CONTROL_LOAD_PAT) || pat_valid(VALUE(HOST_PAT)), "HOST_PAT: memory types (26.2.2)");
    RULE(!(exit & EXIT_CONTROL_LOAD_EFER) || (VALUE(HOST_EFER) & ~(EFER_SCE | EFER_NXE)) == (EFER_LME | EFER_LMA),
         "HOST_EFER: LME and LMA as the host's size, no reserved bits (26.2.2)");
    for (u32 i = 0; i < ARRAY_SIZE(host_selectors); i++) {
        u64 selector = state->value[host_selectors[i].field];
        RULE(!(selector & 7) && (selector || !host_selectors[i].needed), host_selectors[i].text);
    }
    RULE(exit & EXIT_CONTROL_HOST_64, "EXIT_CONTROLS: the host is in 64-bit mode (26.2.4)");
    RULE(cr4 & CR4_PAE, "HOST_CR4: 64-bit mode needs PAE (26.2.4)");
    return NULL;
}

/* 26.3.1.1 */
static const char *check_guest_registers(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 cr0 = VALUE(GUEST_CR0), cr4 = VALUE(GUEST_CR4), entry = VALUE(ENTRY_CONTROLS), efer = VALUE(GUEST_EFER);
    const u64 *msr = caps->msr, free = unrestricted(state) ? CR0_PE | CR0_PG : 0;

    RULE(fixed_bits(msr[CAP_CR0_FIXED0], msr[CAP_CR0_FIXED1], free, cr0), "GUEST_CR0: fixed bits (26.3.1.1)");
    RULE(!(cr0 & CR0_PG) || cr0 & CR0_PE, "GUEST_CR0: paging needs protection (26.3.1.1)");
    RULE(fixed_bits(msr[CAP_CR4_FIXED0], msr[CAP_CR4_FIXED1], 0, cr4), "GUEST_CR4: fixed bits (26.3.1.1)");
    RULE(!(cr4 & CR4_CET) || cr0 & CR0_WP, "GUEST_CR4: CET needs CR0.WP (26.3.1.1)");
    if (entry & ENTRY_CONTROL_LOAD_DEBUG) {
        RULE(!(VALUE(GUEST_DEBUGCTL) & ~0xffc3ull), "GUEST_DEBUGCTL: reserved bits (26.3.1.1)");
        RULE(!(VALUE(GUEST_DR7) >> 32), "GUEST_DR7: 32 bits (26.3.1.1)");
    }
    RULE(!long_mode(state) || cr0 & CR0_PG, "GUEST_CR0: IA-32e mode needs paging (26.3.1.1)");
    RULE(!long_mode(state) || cr4 & CR4_PAE, "GUEST_CR4: IA-32e mode needs PAE (26.3.1.1)");
    RULE(long_mode(state) || !(cr4 & CR4_PCIDE), "GUEST_CR4: PCIDs need IA-32e mode (26.3.1.1)");
    RULE(physical(caps, VALUE(GUEST_CR3)), "GUEST_CR3: beyond the physical-address width (26.3.1.1)");
    RULE(!(entry & ENTRY_CONTROL_LOAD_PAT) || pat_valid(VALUE(GUEST_PAT)), "GUEST_PAT: memory types (26.3.1.1)");
    if (entry & ENTRY_CONTROL_LOAD_EFER) {
        RULE(!(efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)), "GUEST_EFER: reserved bits (26.3.1.1)");
        RULE(!(efer & EFER_LMA) == !long_mode(state), "GUEST_EFER: LMA as the entry control says (26.3.1.1)");
        RULE(!(cr0 & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME),
             "GUEST_EFER: LME and LMA are the same while paging is on (26.3.1.1)");
    }
    return NULL;
}

/* The segments in the order of the fields; the rest of a rule's text, for each of them. */
enum segment { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };
_Static_assert(VMCS_INDEX_GUEST_TR_SELECTOR == VMCS_INDEX_GUEST_ES_SELECTOR + TR, "in this order");
_Static_assert(VMCS_INDEX_GUEST_TR_BASE == VMCS_INDEX_GUEST_ES_BASE + TR, "in this order");
_Static_assert(VMCS_INDEX_GUEST_TR_LIMIT == VMCS_INDEX_GUEST_ES_LIMIT + TR, "in this order");
_Static_assert(VMCS_INDEX_GUEST_TR_ACCESS == VMCS_INDEX_GUEST_ES_ACCESS + TR, "in this order");
#define SEGMENT_VALUE(n, field) (state->value[VMCS_INDEX_GUEST_ES_##field + (n)])
#define SEGMENT_RULE(holds, n, rest)                                                                                   \
    do {                                                                                                               \
        static const char *const texts[SEGMENTS] = {"GUEST_ES_" rest,   "GUEST_CS_" rest, "GUEST_SS_" rest,            \
                                                    "GUEST_DS_" rest,   "GUEST_FS_" rest, "GUEST_GS_" rest,            \
                                                    "GUEST_LDTR_" rest, "GUEST_TR_" rest};                             \
        RULE(holds, texts[n]);                                                                                         \
    } while (0)

/* Does a segment of this type exist in that register? TR holds a busy TSS, of 32 bits or more in IA-32e mode. */
static bool type_fits(const struct vmcs_snapshot *state, enum segment n, u64 type)
{
    switch (n) {
    case CS:
        return (type & 9) == 9 || (type == 3 && unrestricted(state));
    case SS:
        return type == 3 || type == 7;
    case LDTR:
        return type == 2;
    case TR:
        return type == 11 || (type == 3 && !long_mode(state));
    default:
        return type & 1 && (!(type & 8) || type & 2);
    }
}

/* DPL against RPL, CS against SS. With an unrestricted guest only what real mode and type 3 demand. */
static bool privilege_fits(const struct vmcs_snapshot *state, enum segment n)
{
    u64 access = SEGMENT_VALUE(n, ACCESS), type = ACCESS_TYPE(access), dpl = ACCESS_DPL(access);
    u64 code_type = ACCESS_TYPE(VALUE(GUEST_CS_ACCESS)), stack_dpl = ACCESS_DPL(VALUE(GUEST_SS_ACCESS));

    if (n == CS)
        return type == 3 ? dpl == 0 : type & 4 ? dpl <= stack_dpl : dpl == stack_dpl;
    if (n == SS && (code_type == 3 || !(VALUE(GUEST_CR0) & CR0_PE)) && dpl != 0)
        return false;
    return unrestricted(state) || n >= LDTR ||
           (n == SS ? dpl == (VALUE(GUEST_SS_SELECTOR) & 3) : type > 11 || dpl >= (SEGMENT_VALUE(n, SELECTOR) & 3));
}

/* 26.3.1.2, one segment, in any mode but virtual-8086 */
static const char *check_segment(const struct vmcs_snapshot *state, enum segment n)
{
    u64 access = SEGMENT_VALUE(n, ACCESS), base = SEGMENT_VALUE(n, BASE), limit = SEGMENT_VALUE(n, LIMIT);
    bool usable = !(access & ACCESS_UNUSABLE);

    SEGMENT_RULE((n != FS && n != GS) || canonical(base), n, "BASE: must be canonical (26.3.1.2)");
    SEGMENT_RULE((!usable && n != CS && n != SS) || privilege_fits(state, n), n, "ACCESS: DPL (26.3.1.2)");
    SEGMENT_RULE(usable || n != TR, n, "ACCESS: TR must be usable (26.3.1.2)");
    if (!usable && n != CS)
        return NULL;
    SEGMENT_RULE(n < LDTR || !(SEGMENT_VALUE(n, SELECTOR) & 4), n, "SELECTOR: must lie in the GDT (26.3.1.2)");
    SEGMENT_RULE(n < FS ? !(base >> 32) : canonical(base), n, "BASE: 32 bits, LDTR canonical (26.3.1.2)");
    SEGMENT_RULE(type_fits(state, n, ACCESS_TYPE(access)), n, "ACCESS: type; TR must be a busy TSS (26.3.1.2)");
    SEGMENT_RULE(!(access & ACCESS_CODE_OR_DATA) == (n >= LDTR), n, "ACCESS: S, code or data, or system (26.3.1.2)");
    SEGMENT_RULE(access & ACCESS_PRESENT, n, "ACCESS: must be present (26.3.1.2)");
    SEGMENT_RULE(!(access & ACCESS_RESERVED), n, "ACCESS: reserved bits (26.3.1.2)");
    SEGMENT_RULE(n != CS || !long_mode(state) || !(access & ACCESS_LONG) || !(access & ACCESS_BIG), n,
                 "ACCESS: 64-bit code has D 0 (26.3.1.2)");
    SEGMENT_RULE(access & ACCESS_GRANULARITY ? (limit & 0xfff) == 0xfff : !(limit >> 20), n,
                 "ACCESS: granularity does not fit the limit (26.3.1.2)");
    return NULL;
}

/* 26.3.1.2, 26.3.1.3 */
static const char *check_segments(const struct vmcs_snapshot *state)
{
    bool virtual_8086 = VALUE(GUEST_RFLAGS) & RFLAGS_VM;
    const char *fault = NULL;

    RULE(virtual_8086 || unrestricted(state) || !((VALUE(GUEST_SS_SELECTOR) ^ VALUE(GUEST_CS_SELECTOR)) & 3),
         "GUEST_SS_SELECTOR: RPL as that of CS (26.3.1.2)");
    for (enum segment n = 0; n < SEGMENTS && !fault; n++) {
        if (!virtual_8086 || n >= LDTR) {
            fault = check_segment(state, n);
            continue;
        }
        SEGMENT_RULE(SEGMENT_VALUE(n, BASE) == SEGMENT_VALUE(n, SELECTOR) << 4, n, "BASE: selector * 16 (26.3.1.2)");
        SEGMENT_RULE(SEGMENT_VALUE(n, LIMIT) == 0xffff, n, "LIMIT: ffff in virtual-8086 mode (26.3.1.2)");
        SEGMENT_RULE(SEGMENT_VALUE(n, ACCESS) == ACCESS_VIRTUAL_8086, n, "ACCESS: f3 in virtual-8086 mode (26.3.1.2)");
    }
    if (fault)
        return fault;
    RULE(!(VALUE(GUEST_GDTR_LIMIT) >> 16), "GUEST_GDTR_LIMIT: 16 bits (26.3.1.3)");
    RULE(!(VALUE(GUEST_IDTR_LIMIT) >> 16), "GUEST_IDTR_LIMIT: 16 bits (26.3.1.3)");
    return NULL;
}

/* 26.3.1.4. RIP need not be canonical: the bits above 47 must only be equal. */
static const char *check_rip_rflags(const struct vmcs_snapshot *state)
{
    u64 rip = VALUE(GUEST_RIP), rflags = VALUE(GUEST_RFLAGS);
    bool wide = long_mode(state) && VALUE(GUEST_CS_ACCESS) & ACCESS_LONG;

    RULE(wide ? rip >> 48 == 0 || rip >> 48 == 0xffff : !(rip >> 32), "GUEST_RIP: upper bits (26.3.1.4)");
    RULE(!(rflags & ~0x3f7fd7ull) && rflags & RFLAGS_FIXED, "GUEST_RFLAGS: reserved bits (26.3.1.4)");
    RULE(!(rflags & RFLAGS_VM) || (!long_mode(state) && VALUE(GUEST_CR0) & CR0_PE),
         "GUEST_RFLAGS: no virtual-8086 mode in IA-32e or real mode (26.3.1.4)");
    RULE(rflags & RFLAGS_IF || !injects(state, EVENT_TYPE_INTERRUPT), "GUEST_RFLAGS: an interrupt needs IF (26.3.1.4)");
    return NULL;
}

/* 26.3.1.5: may the event reach a CPU in that state? #DB, #MC and, where it exists, the monitor trap wake it from HLT.
 */
static bool activity_takes_event(const struct vmcs_snapshot *state)
{
    u64 activity = VALUE(GUEST_ACTIVITY), event = VALUE(ENTRY_EVENT), vector = event & EVENT_VECTOR;
    bool check = injects(state, EVENT_TYPE_EXCEPTION) && vector == 18;

    if (!(event & EVENT_VALID) || activity == ACTIVE)
        return true;
    if (activity == HALTED)
        return check || injects(state, EVENT_TYPE_INTERRUPT) || injects(state, EVENT_TYPE_NMI) ||
               injects(state, 7 << 8) || (injects(state, EVENT_TYPE_EXCEPTION) && vector == 1);
    return activity == SHUTDOWN && (check || injects(state, EVENT_TYPE_NMI));
}

/* 26.3.1.5 */
static const char *check_guest_other(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 activity = VALUE(GUEST_ACTIVITY), blocked = VALUE(GUEST_INTERRUPTIBILITY), rflags = VALUE(GUEST_RFLAGS);
    u64 pending = VALUE(GUEST_PENDING_DEBUG), shadow = blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    bool step = rflags & RFLAGS_TF && !(VALUE(GUEST_DEBUGCTL) & DEBUGCTL_BTF);

    RULE(activity <= WAIT_FOR_SIPI && (activity == ACTIVE || caps->msr[CAP_MISC] >> (5 + activity) & 1),
         "GUEST_ACTIVITY: a state that this CPU does not have (26.3.1.5)");
    RULE(activity != HALTED || ACCESS_DPL(VALUE(GUEST_SS_ACCESS)) == 0, "GUEST_ACTIVITY: HLT needs CPL 0 (26.3.1.5)");
    RULE(activity == ACTIVE || !shadow, "GUEST_ACTIVITY: must be active after STI and MOV SS (26.3.1.5)");
    RULE(activity_takes_event(state), "GUEST_ACTIVITY: the event does not reach this state (26.3.1.5)");
    RULE(!(blocked & ~(u64)(BLOCKED_BY_STI | BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI)),
         "GUEST_INTERRUPTIBILITY: reserved bits, SMIs outside SMM (26.3.1.5)");
    RULE(shadow != (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS), "GUEST_INTERRUPTIBILITY: STI or MOV SS (26.3.1.5)");
    RULE(!(blocked & BLOCKED_BY_STI) || rflags & RFLAGS_IF, "GUEST_INTERRUPTIBILITY: STI sets IF (26.3.1.5)");
    RULE(!shadow || (!injects(state, EVENT_TYPE_INTERRUPT) && !injects(state, EVENT_TYPE_NMI)),
         "GUEST_INTERRUPTIBILITY: no interrupt or NMI after STI and MOV SS (26.3.1.5)");
    RULE(!(blocked & BLOCKED_BY_NMI) || !(VALUE(PIN_CONTROLS) & PIN_VIRTUAL_NMI) || !injects(state, EVENT_TYPE_NMI),
         "GUEST_INTERRUPTIBILITY: an NMI while NMIs are blocked (26.3.1.5)");
    RULE(!(pending & ~0x1500full) && (!(pending & PENDING_DEBUG_RTM) || pending == (PENDING_DEBUG_RTM | 1 << 12)),
         "GUEST_PENDING_DEBUG: reserved bits (26.3.1.5)");
    RULE((!shadow && activity != HALTED) || step == !!(pending & PENDING_DEBUG_BS),
         "GUEST_PENDING_DEBUG: single step must be as RFLAGS.TF says (26.3.1.5)");
    RULE(VALUE(LINK_POINTER) == ~0ull, "LINK_POINTER: there is no shadow VMCS (26.3.1.5)");
    return NULL;
}

const char *vmx_check(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    return vmx_check_controls(caps, state) ?: check_host(caps, state) ?: check_canonical(state) ?:
           check_guest_registers(caps, state) ?: check_segments(state) ?: check_rip_rflags(state) ?:
           check_guest_other(caps, state);
}
