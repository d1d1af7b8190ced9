/*
 * VM-entry checks (SDM 3C chapter 26, in newer prints 27), as far as a VMCS of ours goes: the controls that all of ours
 * have must be on, so what holds without them only is not here. Each rule says what must hold, in the CPU's order:
 * controls, host state, guest state.
 */
#include "hv/arch/x86/vmx/check.h"
#include "hv/arch/x86/cpu/registers.h"

#define VALUE(name) (state->value[VMCS_INDEX_##name])
#define LONG_MODE (VALUE(ENTRY_CONTROLS) & ENTRY_CONTROL_GUEST_64)
#define INJECTS(type) ((VALUE(ENTRY_EVENT) & (EVENT_VALID | EVENT_TYPE)) == (EVENT_VALID | (type)))
/* The manual's rule, or the text that tells of it. */
#define RULE(holds, text)                                                                                              \
    if (!(holds))                                                                                                      \
    return (text)

#define CR4_PCIDE (1ull << 17)
#define RFLAGS_VM (1ull << 17)
#define RFLAGS_RESERVED (~0x3f7fd5ull)
#define DEBUGCTL_RESERVED (~0xffc3ull)
#define DEBUGCTL_BTF (1ull << 1)
#define PENDING_DEBUG_RESERVED (~0x500full) /* RTM among them: no guest has it */
#define BASIC_32_BIT (1ull << 48)           /* A.1 */
#define BASIC_ANY_ERROR_CODE (1ull << 56)
#define EPT_OFFERED (1ull << 6 | 1ull << 14) /* A.10: four levels, write-back; */
#define EPT_POINTER_MODE (3ull << 3 | 6)     /* as the EPTP has it (24.6.11) */
#define EXCEPTIONS_WITH_CODE 0x27d00u        /* #DF, #TS to #PF, #AC (26.2.1.3) */

/* Access rights (table 24-2) */
#define ACCESS_TYPE(access) ((access)&15)
#define ACCESS_CODE_OR_DATA (1u << 4)
#define ACCESS_DPL(access) ((access) >> 5 & 3)
#define ACCESS_PRESENT (1u << 7)
#define ACCESS_LONG (1u << 13)
#define ACCESS_BIG (1u << 14)
#define ACCESS_GRANULARITY (1u << 15)
#define ACCESS_RESERVED 0xfffe0f00u
#define ACCESS_VIRTUAL_8086 0xf3u

/* The segments in the order of the fields, and a text for each of them. */
enum segment { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };
_Static_assert(VMCS_INDEX_GUEST_TR_SELECTOR - VMCS_INDEX_GUEST_ES_SELECTOR == TR, "all their fields in this order");
_Static_assert(VMCS_INDEX_GUEST_TR_BASE - VMCS_INDEX_GUEST_ES_BASE == TR, "all their fields in this order");
#define SEGMENT_VALUE(n, field) (state->value[VMCS_INDEX_GUEST_ES_##field + (n)])
#define SEGMENT_TEXT(who, n, rest)                                                                                     \
    (const char *const[]){who "ES_" rest, who "CS_" rest, who "SS_" rest,   who "DS_" rest,                            \
                          who "FS_" rest, who "GS_" rest, who "LDTR_" rest, who "TR_" rest}[n]
#define SEGMENT_RULE(holds, rest) RULE(holds, SEGMENT_TEXT("GUEST_", n, rest " (26.3.1.2)"))

static bool physical(const struct vmx_capabilities *caps, u64 address)
{
    return address >> (caps->physical_bits ? caps->physical_bits : 52) == 0;
}

/* A page that a control field names. */
static bool physical_page(const struct vmx_capabilities *caps, u64 address)
{
    return address % 4096 == 0 && physical(caps, address) && !(caps->msr[CAP_BASIC] & BASIC_32_BIT && address >> 32);
}

/* A.7, A.8: `set` must be 1, only `allowed` may be. The MSRs of controls hold both (A.3 to A.5). */
static bool bits_fit(u64 set, u64 allowed, u64 value)
{
    return !(~value & set) && !(value & ~allowed);
}

/*
 * The control fields; of each the MSR that tells what is allowed (A.3 to A.5); what other rules rely on; and the
 * controls that need fields which the snapshot does not have, or SMM; none of ours sets these: posted interrupts; TPR
 * shadow, tertiary controls; APIC virtualization, VMFUNC, shadow VMCS, PML, #VE, mode-based execution, sub-page rights,
 * TSC scaling; and at exits and entries the preemption timer, performance counters, CET, PKRS and so on.
 */
#define CONTROLS(name) VMCS_INDEX_##name##_CONTROLS, #name "_CONTROLS: reserved, or never so here (26.2.1)"
static const struct {
    enum vmcs_index field;
    const char *text;
    enum vmx_capability msr;
    u32 needed, foreign;
} controls[] = {
    {CONTROLS(PIN), CAP_TRUE_PIN, PIN_NMI | PIN_VIRTUAL_NMI, 1u << 7},
    {CONTROLS(PRIMARY), CAP_TRUE_PRIMARY, PRIMARY_HLT | PRIMARY_IO_BITMAPS | PRIMARY_MSR_BITMAPS | PRIMARY_SECONDARY,
     1u << 21 | 1u << 17},
    {CONTROLS(SECONDARY), CAP_SECONDARY, SECONDARY_EPT | SECONDARY_VPID | SECONDARY_UNRESTRICTED, 0x2c66311},
    {CONTROLS(EXIT), CAP_TRUE_EXIT, EXIT_CONTROL_HOST_64 | EXIT_CONTROL_LOAD_PAT | EXIT_CONTROL_LOAD_EFER, 0xb0401000},
    {CONTROLS(ENTRY), CAP_TRUE_ENTRY, ENTRY_CONTROL_LOAD_DEBUG | ENTRY_CONTROL_LOAD_PAT | ENTRY_CONTROL_LOAD_EFER,
     0x7f2c00},
};

/* 26.2.1.1 to 26.2.1.3; the EPT pointer (24.6.11) */
static const char *check_controls(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 eptp = VALUE(EPT_POINTER);

    for (u32 i = 0; i < ARRAY_SIZE(controls); i++) {
        u64 msr = caps->msr[controls[i].msr];
        u64 set = (u32)msr | controls[i].needed, allowed = msr >> 32 & ~controls[i].foreign;
        RULE(bits_fit(set, allowed, state->value[controls[i].field]), controls[i].text);
    }
    RULE(VALUE(CR3_TARGET_COUNT) == 0, "CR3_TARGET_COUNT: the values are not kept (26.2.1.1)");
    RULE(VALUE(EXIT_MSR_STORE_COUNT) == 0, "EXIT_MSR_STORE_COUNT: the list's address is not kept (26.2.1.2)");
    RULE(VALUE(EXIT_MSR_LOAD_COUNT) == 0, "EXIT_MSR_LOAD_COUNT: the list's address is not kept (26.2.1.2)");
    RULE(VALUE(ENTRY_MSR_LOAD_COUNT) == 0, "ENTRY_MSR_LOAD_COUNT: the list's address is not kept (26.2.1.3)");
    RULE(physical_page(caps, VALUE(IO_BITMAP_A)), "IO_BITMAP_A: must be a page's address (26.2.1.1)");
    RULE(physical_page(caps, VALUE(IO_BITMAP_B)), "IO_BITMAP_B: must be a page's address (26.2.1.1)");
    RULE(physical_page(caps, VALUE(MSR_BITMAP)), "MSR_BITMAP: must be a page's address (26.2.1.1)");
    RULE(VALUE(VPID), "VPID: 0 is the host's (26.2.1.1)");
    RULE((caps->msr[CAP_EPT_VPID] & EPT_OFFERED) == EPT_OFFERED && (eptp & 0xfff) == EPT_POINTER_MODE,
         "EPT_POINTER: write-back and four levels, nothing else (26.2.1.1)");
    RULE(physical(caps, eptp), "EPT_POINTER: beyond the physical-address width (26.2.1.1)");
    return NULL;
}

/*
 * 26.2.1.3. Software's events are never injected. Error codes come with exceptions in protected mode only; with which,
 * CPUs with CET leave open (A.1).
 */
static const char *check_event(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    u64 event = VALUE(ENTRY_EVENT), vector = event & EVENT_VECTOR;
    u32 type = event & EVENT_TYPE;
    bool may_have_code = type == EVENT_TYPE_EXCEPTION && VALUE(GUEST_CR0) & CR0_PE, code = event & EVENT_HAS_ERROR;
    bool open = may_have_code && caps->msr[CAP_BASIC] & BASIC_ANY_ERROR_CODE;

    if (!(event & EVENT_VALID))
        return NULL;
    RULE(type != 1 << 8 && type <= EVENT_TYPE_EXCEPTION, "ENTRY_EVENT: reserved type, or software's (26.2.1.3)");
    RULE(type != EVENT_TYPE_NMI || vector == 2, "ENTRY_EVENT: NMI is vector 2 (26.2.1.3)");
    RULE(type != EVENT_TYPE_EXCEPTION || vector < 32, "ENTRY_EVENT: no vector of an exception (26.2.1.3)");
    RULE(open || code == (may_have_code && EXCEPTIONS_WITH_CODE >> vector & 1), "ENTRY_EVENT: error code (26.2.1.3)");
    RULE(!(event & 0x7ffff000), "ENTRY_EVENT: reserved bits (26.2.1.3)");
    RULE(!code || !(VALUE(ENTRY_EVENT_ERROR) >> 16), "ENTRY_EVENT_ERROR: 16 bits (26.2.1.3)");
    return NULL;
}

/* 26.2.2 to 26.2.4 */
static const char *check_host(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    const u64 *msr = caps->msr, cr4 = VALUE(HOST_CR4);
    const u64 efer = VALUE(HOST_EFER) & ~(EFER_SCE | EFER_NXE);

    RULE(bits_fit(msr[CAP_CR0_FIXED0], msr[CAP_CR0_FIXED1], VALUE(HOST_CR0)), "HOST_CR0: fixed bits (26.2.2)");
    RULE(bits_fit(msr[CAP_CR4_FIXED0], msr[CAP_CR4_FIXED1], cr4), "HOST_CR4: fixed bits (26.2.2)");
    RULE(physical(caps, VALUE(HOST_CR3)), "HOST_CR3: beyond the physical-address width (26.2.2)");
    RULE(pat_is_valid(VALUE(HOST_PAT)), "HOST_PAT: memory types (26.2.2)");
    RULE(efer == (EFER_LME | EFER_LMA), "HOST_EFER: not 64-bit mode's (26.2.2)");
    for (enum vmcs_index i = VMCS_INDEX_HOST_ES_SELECTOR; i <= VMCS_INDEX_HOST_TR_SELECTOR; i++) {
        bool needed = i == VMCS_INDEX_HOST_CS_SELECTOR || i == VMCS_INDEX_HOST_TR_SELECTOR;
        const u32 n = i == VMCS_INDEX_HOST_TR_SELECTOR ? TR : i - VMCS_INDEX_HOST_ES_SELECTOR;
        RULE(!(state->value[i] & 7) && (state->value[i] || !needed),
             SEGMENT_TEXT("HOST_", n, "SELECTOR: TI and RPL are 0, CS and TR not null (26.2.3)"));
    }
    RULE(cr4 & CR4_PAE, "HOST_CR4: 64-bit mode needs PAE (26.2.4)");
    return NULL;
}

/* 26.3.1.1 */
static const char *check_guest_registers(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    const u64 *msr = caps->msr, free = CR0_PE | CR0_PG /* unrestricted guest */;
    u64 cr0 = VALUE(GUEST_CR0), cr4 = VALUE(GUEST_CR4), efer = VALUE(GUEST_EFER);

    RULE(bits_fit(msr[CAP_CR0_FIXED0] & ~free, msr[CAP_CR0_FIXED1], cr0), "GUEST_CR0: fixed bits (26.3.1.1)");
    RULE(!(cr0 & CR0_PG) || cr0 & CR0_PE, "GUEST_CR0: paging needs protection (26.3.1.1)");
    RULE(bits_fit(msr[CAP_CR4_FIXED0], msr[CAP_CR4_FIXED1], cr4), "GUEST_CR4: fixed bits (26.3.1.1)");
    RULE(!(VALUE(GUEST_DEBUGCTL) & DEBUGCTL_RESERVED), "GUEST_DEBUGCTL: reserved bits (26.3.1.1)");
    RULE(!(VALUE(GUEST_DR7) >> 32), "GUEST_DR7: 32 bits (26.3.1.1)");
    RULE(!LONG_MODE || cr0 & CR0_PG, "GUEST_CR0: IA-32e mode needs paging (26.3.1.1)");
    RULE(!LONG_MODE || cr4 & CR4_PAE, "GUEST_CR4: IA-32e mode needs PAE (26.3.1.1)");
    RULE(LONG_MODE || !(cr4 & CR4_PCIDE), "GUEST_CR4: PCIDs need IA-32e mode (26.3.1.1)");
    RULE(physical(caps, VALUE(GUEST_CR3)), "GUEST_CR3: beyond the physical-address width (26.3.1.1)");
    RULE(pat_is_valid(VALUE(GUEST_PAT)), "GUEST_PAT: memory types (26.3.1.1)");
    RULE(!(efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)), "GUEST_EFER: reserved bits (26.3.1.1)");
    RULE(!(efer & EFER_LMA) == !LONG_MODE, "GUEST_EFER: LMA is not as the entry control says (26.3.1.1)");
    RULE(!(cr0 & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME), "GUEST_EFER: LME is not LMA (26.3.1.1)");
    return NULL;
}

/* Which types (bits of the words) a register can hold: accessed data or readable code, an LDT, a busy TSS ... */
static bool type_fits(const struct vmcs_snapshot *state, enum segment n, u64 type)
{
    static const u16 types[SEGMENTS] = {0x88aa, 0xaa08, 0x0088, 0x88aa, 0x88aa, 0x88aa, 1 << 2, 1 << 11};
    bool busy_16_bit = n == TR && !LONG_MODE;

    return (types[n] | busy_16_bit << 3) >> type & 1;
}

/* CS against SS. RPLs do not count with an unrestricted guest, but real mode and type 3 demand DPL 0. */
static bool privilege_fits(const struct vmcs_snapshot *state, enum segment n)
{
    u64 type = ACCESS_TYPE(VALUE(GUEST_CS_ACCESS)), dpl = ACCESS_DPL(VALUE(GUEST_CS_ACCESS));
    u64 stack_dpl = ACCESS_DPL(VALUE(GUEST_SS_ACCESS));

    if (n == CS)
        return type == 3 ? dpl == 0 : type & 4 ? dpl <= stack_dpl : dpl == stack_dpl;
    return n != SS || stack_dpl == 0 || (type != 3 && VALUE(GUEST_CR0) & CR0_PE);
}

/* 26.3.1.2, one segment */
static const char *check_segment(const struct vmcs_snapshot *state, enum segment n)
{
    u64 access = SEGMENT_VALUE(n, ACCESS), base = SEGMENT_VALUE(n, BASE), limit = SEGMENT_VALUE(n, LIMIT);
    u64 wide = ACCESS_LONG | ACCESS_BIG;
    bool usable = !(access & ACCESS_UNUSABLE) || n == CS;

    if (VALUE(GUEST_RFLAGS) & RFLAGS_VM && n < LDTR) { /* virtual-8086 mode */
        SEGMENT_RULE(base == SEGMENT_VALUE(n, SELECTOR) << 4, "BASE: virtual-8086 mode");
        SEGMENT_RULE(limit == 0xffff, "LIMIT: virtual-8086 mode");
        SEGMENT_RULE(access == ACCESS_VIRTUAL_8086, "ACCESS: virtual-8086 mode");
        return NULL;
    }
    SEGMENT_RULE((!usable && n != SS) || privilege_fits(state, n), "ACCESS: DPL");
    if (!usable)
        return n == TR ? "GUEST_TR_ACCESS: must be usable (26.3.1.2)" : NULL;
    SEGMENT_RULE(n < LDTR || !(SEGMENT_VALUE(n, SELECTOR) & 4), "SELECTOR: must lie in the GDT");
    SEGMENT_RULE(n < FS ? !(base >> 32) : address_is_canonical(base), "BASE: 32 bits, of LDTR and TR canonical");
    SEGMENT_RULE(type_fits(state, n, ACCESS_TYPE(access)), "ACCESS: type; TR must be a busy TSS");
    SEGMENT_RULE(!(access & ACCESS_CODE_OR_DATA) == (n >= LDTR), "ACCESS: S, a system segment or not");
    SEGMENT_RULE(access & ACCESS_PRESENT, "ACCESS: must be present");
    SEGMENT_RULE(!(access & ACCESS_RESERVED), "ACCESS: reserved bits");
    SEGMENT_RULE(n != CS || !LONG_MODE || (access & wide) != wide, "ACCESS: 64-bit code has D 0");
    SEGMENT_RULE(access & ACCESS_GRANULARITY ? (limit & 0xfff) == 0xfff : !(limit >> 20), "ACCESS: G and limit");
    return NULL;
}

/* 26.3.1.2, 26.3.1.3 */
static const char *check_segments(const struct vmcs_snapshot *state)
{
    const char *fault = NULL;

    for (enum segment n = ES; n < SEGMENTS && !fault; n++)
        fault = check_segment(state, n);
    RULE(!(VALUE(GUEST_GDTR_LIMIT) >> 16), "GUEST_GDTR_LIMIT: 16 bits (26.3.1.3)");
    RULE(!(VALUE(GUEST_IDTR_LIMIT) >> 16), "GUEST_IDTR_LIMIT: 16 bits (26.3.1.3)");
    return fault;
}

/*
 * 26.3.1.4, 26.3.1.5. RIP need not be canonical: the bits above 47 must only be equal.
 */
static const char *check_guest_other(const struct vmcs_snapshot *state)
{
    u64 blocked = VALUE(GUEST_INTERRUPTIBILITY), shadow = blocked & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS);
    u64 pending = VALUE(GUEST_PENDING_DEBUG), rip = VALUE(GUEST_RIP), rflags = VALUE(GUEST_RFLAGS);
    bool nmi = INJECTS(EVENT_TYPE_NMI), interrupt = INJECTS(EVENT_TYPE_INTERRUPT);
    bool step = rflags & RFLAGS_TF && !(VALUE(GUEST_DEBUGCTL) & DEBUGCTL_BTF);
    bool wide = LONG_MODE && VALUE(GUEST_CS_ACCESS) & ACCESS_LONG, no_8086 = LONG_MODE || !(VALUE(GUEST_CR0) & CR0_PE);

    RULE(wide ? rip >> 48 == 0 || rip >> 48 == 0xffff : !(rip >> 32), "GUEST_RIP: upper bits (26.3.1.4)");
    RULE((rflags & RFLAGS_RESERVED) == RFLAGS_FIXED, "GUEST_RFLAGS: reserved bits (26.3.1.4)");
    RULE(!(rflags & RFLAGS_VM) || !no_8086, "GUEST_RFLAGS: virtual-8086 mode in another mode (26.3.1.4)");
    RULE(rflags & RFLAGS_IF || !interrupt, "GUEST_RFLAGS: an interrupt needs IF (26.3.1.4)");
    RULE(!VALUE(GUEST_ACTIVITY), "GUEST_ACTIVITY: active, since HLT exits and so does a shutdown (26.3.1.5)");
    RULE(!(blocked & ~(u64)(shadow | BLOCKED_BY_NMI)), "GUEST_INTERRUPTIBILITY: reserved bits, SMM (26.3.1.5)");
    RULE(shadow != (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS), "GUEST_INTERRUPTIBILITY: STI or MOV SS, not both (26.3.1.5)");
    RULE(!(blocked & BLOCKED_BY_STI) || rflags & RFLAGS_IF, "GUEST_INTERRUPTIBILITY: STI without IF (26.3.1.5)");
    RULE(!shadow || !(nmi || interrupt), "GUEST_INTERRUPTIBILITY: interrupt or NMI after STI, MOV SS (26.3.1.5)");
    RULE(!(blocked & BLOCKED_BY_NMI) || !nmi, "GUEST_INTERRUPTIBILITY: NMI while blocked (26.3.1.5)");
    RULE(!(pending & PENDING_DEBUG_RESERVED), "GUEST_PENDING_DEBUG: reserved bits (26.3.1.5)");
    RULE(!shadow || step == !!(pending & PENDING_DEBUG_BS), "GUEST_PENDING_DEBUG: BS is not as TF (26.3.1.5)");
    RULE(VALUE(LINK_POINTER) == ~0ull, "LINK_POINTER: there is no shadow VMCS (26.3.1.5)");
    return NULL;
}

/* Fields that hold linear addresses whatever the mode; FS and GS even when they are unusable. */
#define CANONICAL(name) VMCS_INDEX_##name, #name ": must be canonical (26.2.2 to 26.3.1.3)"
static const struct {
    enum vmcs_index field;
    const char *text;
} addresses[] = {
    {CANONICAL(HOST_SYSENTER_ESP)},  {CANONICAL(HOST_SYSENTER_EIP)}, {CANONICAL(HOST_FS_BASE)},
    {CANONICAL(HOST_GS_BASE)},       {CANONICAL(HOST_TR_BASE)},      {CANONICAL(HOST_GDTR_BASE)},
    {CANONICAL(HOST_IDTR_BASE)},     {CANONICAL(HOST_RIP)},          {CANONICAL(GUEST_SYSENTER_ESP)},
    {CANONICAL(GUEST_SYSENTER_EIP)}, {CANONICAL(GUEST_FS_BASE)},     {CANONICAL(GUEST_GS_BASE)},
    {CANONICAL(GUEST_GDTR_BASE)},    {CANONICAL(GUEST_IDTR_BASE)},
};

const char *vmx_check(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state)
{
    const char *fault = check_controls(caps, state) ?: check_event(caps, state) ?: check_host(caps, state);

    for (u32 i = 0; i < ARRAY_SIZE(addresses) && !fault; i++)
        fault = address_is_canonical(state->value[addresses[i].field]) ? NULL : addresses[i].text;
    return fault ?: check_guest_registers(caps, state) ?: check_segments(state) ?: check_guest_other(state);
}
