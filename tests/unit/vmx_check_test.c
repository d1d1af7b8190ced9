/* SOURCES: hv/arch/x86/vmx/check.c */
/* The VMCS checker: our start states pass on every recorded CPU; each rule, broken once, names its field. */
#include "hv/arch/x86/vmx/check.h"

#include "tests/unit/random.h"
#include "tests/unit/vmx_world.h"

/* In virtual-8086 mode: paging, no IA-32e mode. */
static struct world virtual_8086_state(void)
{
    struct world w = start_state(&recorded_skylake, true);

    V(ENTRY_CONTROLS) &= ~(u64)ENTRY_CONTROL_GUEST_64;
    V(GUEST_EFER) = 0;
    V(GUEST_RFLAGS) |= 1 << 17;
    V(GUEST_RIP) = 0x100;
    for (u32 i = 0; i < 6; i++) {
        w.vmcs.value[VMCS_INDEX_GUEST_ES_SELECTOR + i] = 0x1000 + i;
        w.vmcs.value[VMCS_INDEX_GUEST_ES_BASE + i] = 0x10000 + i * 16;
        w.vmcs.value[VMCS_INDEX_GUEST_ES_LIMIT + i] = 0xffff;
        w.vmcs.value[VMCS_INDEX_GUEST_ES_ACCESS + i] = 0xf3;
    }
    return w;
}

static struct world driver_state(void)
{
    return start_state(&recorded_skylake, true);
}

static struct world guest_state(void)
{
    return start_state(&recorded_skylake, false);
}

/* state() and that change: the text begins so; NULL: still fine. */
#define TRY(state, text, change)                                                                                       \
    do {                                                                                                               \
        struct world w = state();                                                                                      \
        change;                                                                                                        \
        expect(&w, text, #change);                                                                                     \
    } while (0)
#define BREAK(text, change) TRY(driver_state, text, change)
#define KEEP(change) TRY(driver_state, NULL, change)

static void start_states_pass_everywhere(void **state)
{
    for (u32 i = 0; i < ARRAY_SIZE(recorded); i++) {
        for (u32 long_mode = 0; long_mode < 2; long_mode++) {
            struct world w = start_state(recorded[i].caps, long_mode);
            expect(&w, NULL, recorded[i].name);
        }
    }
    TRY(virtual_8086_state, NULL, (void)w);
}

static void control_bits(void **state)
{
    BREAK("PIN_CONTROLS", V(PIN_CONTROLS) &= ~(1ull << 1));
    BREAK("PIN_CONTROLS", V(PIN_CONTROLS) |= 1 << 8);
    BREAK("PRIMARY_CONTROLS", V(PRIMARY_CONTROLS) &= ~(1ull << 26));
    BREAK("PRIMARY_CONTROLS", V(PRIMARY_CONTROLS) |= 1);
    BREAK("SECONDARY_CONTROLS", V(SECONDARY_CONTROLS) |= 1u << 31);
    BREAK("EXIT_CONTROLS", V(EXIT_CONTROLS) &= ~(1ull << 17));
    BREAK("EXIT_CONTROLS", V(EXIT_CONTROLS) |= 1 << 27);
    BREAK("ENTRY_CONTROLS", V(ENTRY_CONTROLS) &= ~(1ull << 12));
    BREAK("ENTRY_CONTROLS", V(ENTRY_CONTROLS) |= 1u << 31);
    KEEP(V(PRIMARY_CONTROLS) &= ~(u64)PRIMARY_CR3_LOAD); /* of the true controls (A.3.2) */
}

/* Controls that all of ours have: other rules rely on them. */
static void controls_that_others_rely_on(void **state)
{
    const u32 pin[] = {PIN_NMI, PIN_VIRTUAL_NMI};
    const u32 primary[] = {PRIMARY_HLT, PRIMARY_IO_BITMAPS, PRIMARY_MSR_BITMAPS, PRIMARY_SECONDARY};
    const u32 secondary[] = {SECONDARY_EPT, SECONDARY_VPID, SECONDARY_UNRESTRICTED};
    const u32 exit[] = {EXIT_CONTROL_HOST_64, EXIT_CONTROL_LOAD_PAT, EXIT_CONTROL_LOAD_EFER};
    const u32 entry[] = {ENTRY_CONTROL_LOAD_DEBUG, ENTRY_CONTROL_LOAD_PAT, ENTRY_CONTROL_LOAD_EFER};

    for (u32 i = 0; i < ARRAY_SIZE(pin); i++)
        BREAK("PIN_CONTROLS", V(PIN_CONTROLS) &= ~(u64)pin[i]);
    for (u32 i = 0; i < ARRAY_SIZE(primary); i++)
        BREAK("PRIMARY_CONTROLS", V(PRIMARY_CONTROLS) &= ~(u64)primary[i]);
    for (u32 i = 0; i < ARRAY_SIZE(secondary); i++)
        BREAK("SECONDARY_CONTROLS", V(SECONDARY_CONTROLS) &= ~(u64)secondary[i]);
    for (u32 i = 0; i < ARRAY_SIZE(exit); i++)
        BREAK("EXIT_CONTROLS", V(EXIT_CONTROLS) &= ~(u64)exit[i]);
    for (u32 i = 0; i < ARRAY_SIZE(entry); i++)
        BREAK("ENTRY_CONTROLS", V(ENTRY_CONTROLS) &= ~(u64)entry[i]);
}

static void controls_of_fields_that_are_not_kept(void **state)
{
    const u32 secondary[] = {0, 4, 8, 9, 13, 14, 17, 18, 23, 25};

    BREAK("PIN_CONTROLS", (w.caps.msr[CAP_TRUE_PIN] = ~0ull << 32 | 0x16, V(PIN_CONTROLS) |= 1 << 7));
    BREAK("PRIMARY_CONTROLS", V(PRIMARY_CONTROLS) |= 1 << 21); /* TPR shadow */
    for (u32 i = 0; i < ARRAY_SIZE(secondary); i++)
        BREAK("SECONDARY_CONTROLS",
              (w.caps.msr[CAP_SECONDARY] = ~0ull << 32, V(SECONDARY_CONTROLS) |= 1u << secondary[i]));
    BREAK("EXIT_CONTROLS", V(EXIT_CONTROLS) |= 1 << 12);
    BREAK("EXIT_CONTROLS",
          (V(EXIT_CONTROLS) |= 1 << 22, V(PIN_CONTROLS) |= PIN_PREEMPTION_TIMER)); /* saves the timer */
    BREAK("ENTRY_CONTROLS", V(ENTRY_CONTROLS) |= 1 << 13);
    for (u32 bit = 10; bit < 12; bit++) /* SMM */
        BREAK("ENTRY_CONTROLS", (V(ENTRY_CONTROLS) |= 1 << bit, w.caps.msr[CAP_TRUE_ENTRY] |= 1ull << 32 << bit));
    BREAK("EXIT_MSR_STORE_COUNT", V(EXIT_MSR_STORE_COUNT) = 1);
    BREAK("EXIT_MSR_LOAD_COUNT", V(EXIT_MSR_LOAD_COUNT) = 1);
    BREAK("ENTRY_MSR_LOAD_COUNT", V(ENTRY_MSR_LOAD_COUNT) = 1);
}

static void addresses_of_controls(void **state)
{
    BREAK("CR3_TARGET_COUNT", V(CR3_TARGET_COUNT) = 1);
    BREAK("IO_BITMAP_A", V(IO_BITMAP_A) |= 1);
    BREAK("IO_BITMAP_B", V(IO_BITMAP_B) |= 1ull << 39);
    KEEP(V(IO_BITMAP_B) |= 1ull << 38);
    BREAK("MSR_BITMAP", V(MSR_BITMAP) |= 0x800);
    BREAK("MSR_BITMAP", (V(MSR_BITMAP) |= 1ull << 32, w.caps.msr[CAP_BASIC] |= 1ull << 48));
    BREAK("MSR_BITMAP", (V(MSR_BITMAP) |= 1ull << 52, w.caps.physical_bits = 0));
    KEEP((V(MSR_BITMAP) |= 1ull << 51, w.caps.physical_bits = 0));
    KEEP(V(PRIMARY_CONTROLS) |= PRIMARY_NMI_WINDOW);
    BREAK("VPID", V(VPID) = 0);
}

static void ept_pointer(void **state)
{
    BREAK("EPT_POINTER: write-back", w.caps.msr[CAP_EPT_VPID] &= ~(1ull << 14));
    BREAK("EPT_POINTER: write-back", w.caps.msr[CAP_EPT_VPID] &= ~(1ull << 6));
    for (u32 bit = 0; bit < 12; bit++) /* another type of memory, three or five levels, accessed and dirty flags */
        BREAK("EPT_POINTER: write-back", V(EPT_POINTER) ^= 1 << bit);
    for (u32 bit = 39; bit < 64; bit++)
        BREAK("EPT_POINTER: beyond", V(EPT_POINTER) |= 1ull << bit);
}

/* An interruption-information field, with IF set so that interrupts are fine. */
#define EVENT(bits) (V(GUEST_RFLAGS) |= RFLAGS_IF, V(ENTRY_EVENT) = EVENT_VALID | (bits))

static void events(void **state)
{
    KEEP(EVENT(EVENT_TYPE_INTERRUPT | 0x40));
    KEEP(EVENT(EVENT_TYPE_NMI | 2));
    KEEP(EVENT(EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 14));
    KEEP(EVENT(EVENT_TYPE_EXCEPTION | 6));
    KEEP(V(ENTRY_EVENT) = ~(u64)EVENT_VALID & 0xffffffff);
    BREAK("ENTRY_EVENT", EVENT(1 << 8));
    for (u32 type = 4; type < 8; type++) /* INT n and so on, and the monitor trap, are nothing that we inject */
        BREAK("ENTRY_EVENT", EVENT(type << 8 | 3));
    BREAK("ENTRY_EVENT", EVENT(EVENT_TYPE_NMI | 3));
    BREAK("ENTRY_EVENT", EVENT(EVENT_TYPE_EXCEPTION | 32));
    for (u32 bit = 12; bit < 31; bit++)
        BREAK("ENTRY_EVENT", EVENT(0x40 | 1 << bit));
}

/* #DF, #TS, #NP, #SS, #GP, #PF, #AC bring an error code, in protected mode and not otherwise; then 16 bits of it. */
static void error_codes(void **state)
{
    const u32 with_code = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;

    for (u32 vector = 0; vector < 32; vector++) {
        const u32 right = EVENT_TYPE_EXCEPTION | vector | (with_code >> vector & 1 ? EVENT_HAS_ERROR : 0);
        KEEP(EVENT(right));
        BREAK("ENTRY_EVENT", EVENT(right ^ EVENT_HAS_ERROR));
        KEEP((EVENT(right ^ EVENT_HAS_ERROR), w.caps.msr[CAP_BASIC] |= 1ull << 56));
        TRY(guest_state, NULL, (EVENT(EVENT_TYPE_EXCEPTION | vector), V(GUEST_CR0) &= ~CR0_PE));
        TRY(guest_state, "ENTRY_EVENT",
            (EVENT(EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | vector), V(GUEST_CR0) &= ~CR0_PE));
    }
    BREAK("ENTRY_EVENT", EVENT(EVENT_TYPE_INTERRUPT | EVENT_HAS_ERROR | 14));
    BREAK("ENTRY_EVENT_ERROR", (EVENT(EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 14), V(ENTRY_EVENT_ERROR) = 1 << 16));
    KEEP((EVENT(EVENT_TYPE_EXCEPTION | 6), V(ENTRY_EVENT_ERROR) = 1 << 16));
}

static void host_registers(void **state)
{
    BREAK("HOST_CR0", V(HOST_CR0) &= ~CR0_NE);
    BREAK("HOST_CR0", V(HOST_CR0) &= ~CR0_PG); /* unrestricted guest is the guest's only */
    BREAK("HOST_CR0", V(HOST_CR0) |= 1ull << 32);
    BREAK("HOST_CR4", V(HOST_CR4) &= ~CR4_VMXE);
    BREAK("HOST_CR4", V(HOST_CR4) |= 1 << 14);
    BREAK("HOST_CR4", V(HOST_CR4) &= ~CR4_PAE);
    BREAK("HOST_CR3", V(HOST_CR3) |= 1ull << 39);
    BREAK("HOST_PAT", V(HOST_PAT) = 2);
    BREAK("HOST_PAT", V(HOST_PAT) |= 0xffull << 56);
    BREAK("HOST_EFER", V(HOST_EFER) &= ~EFER_LMA);
    BREAK("HOST_EFER", V(HOST_EFER) &= ~EFER_LME);
    BREAK("HOST_EFER", V(HOST_EFER) |= 1 << 1);
    BREAK("HOST_EFER", V(HOST_EFER) |= 1ull << 63);
}

#define BREAK_CANONICAL(field)                                                                                         \
    BREAK(#field, V(field) = 1ull << 47);                                                                              \
    BREAK(#field, V(field) = 1ull << 63);                                                                              \
    KEEP(V(field) = ~0ull << 47)
#define BREAK_SELECTOR(name)                                                                                           \
    BREAK("HOST_" #name "_SELECTOR", V(HOST_##name##_SELECTOR) = 17);                                                  \
    BREAK("HOST_" #name "_SELECTOR", V(HOST_##name##_SELECTOR) = 18);                                                  \
    BREAK("HOST_" #name "_SELECTOR", V(HOST_##name##_SELECTOR) = 20);                                                  \
    KEEP(V(HOST_##name##_SELECTOR) = 32)

static void host_segments(void **state)
{
    BREAK_SELECTOR(ES);
    BREAK_SELECTOR(CS);
    BREAK_SELECTOR(SS);
    BREAK_SELECTOR(DS);
    BREAK_SELECTOR(FS);
    BREAK_SELECTOR(GS);
    BREAK_SELECTOR(TR);
    BREAK("HOST_CS_SELECTOR", V(HOST_CS_SELECTOR) = 0);
    BREAK("HOST_TR_SELECTOR", V(HOST_TR_SELECTOR) = 0);
    KEEP(V(HOST_SS_SELECTOR) = 0);
    BREAK_CANONICAL(HOST_FS_BASE);
    BREAK_CANONICAL(HOST_GS_BASE);
    BREAK_CANONICAL(HOST_TR_BASE);
    BREAK_CANONICAL(HOST_GDTR_BASE);
    BREAK_CANONICAL(HOST_IDTR_BASE);
    BREAK_CANONICAL(HOST_RIP);
    BREAK_CANONICAL(HOST_SYSENTER_ESP);
    BREAK_CANONICAL(HOST_SYSENTER_EIP);
}

static void guest_registers(void **state)
{
    BREAK("GUEST_CR0", V(GUEST_CR0) &= ~CR0_NE);
    BREAK("GUEST_CR0", V(GUEST_CR0) |= 1ull << 32);
    BREAK("GUEST_CR0", V(GUEST_CR0) &= ~CR0_PE);
    BREAK("GUEST_CR0", V(GUEST_CR0) &= ~CR0_PG); /* IA-32e mode needs it */
    TRY(guest_state, "GUEST_CR0: paging", V(GUEST_CR0) ^= CR0_PE | CR0_PG);
    TRY(guest_state, NULL, V(GUEST_CR0) &= ~CR0_PE);
    BREAK("GUEST_CR4", V(GUEST_CR4) &= ~CR4_VMXE);
    BREAK("GUEST_CR4", V(GUEST_CR4) |= 1 << 14);
    BREAK("GUEST_CR4", V(GUEST_CR4) &= ~CR4_PAE);
    KEEP(V(GUEST_CR4) |= 1 << 17);
    TRY(guest_state, "GUEST_CR4: PCIDs", V(GUEST_CR4) |= 1 << 17);
    BREAK("GUEST_CR3", V(GUEST_CR3) |= 1ull << 39);
    BREAK("GUEST_DEBUGCTL", V(GUEST_DEBUGCTL) |= 1 << 3);
    BREAK("GUEST_DEBUGCTL", V(GUEST_DEBUGCTL) |= 1ull << 16);
    BREAK("GUEST_DR7", V(GUEST_DR7) |= 1ull << 32);
    BREAK_CANONICAL(GUEST_SYSENTER_ESP);
    BREAK_CANONICAL(GUEST_SYSENTER_EIP);
}

static void guest_pat_and_efer(void **state)
{
    BREAK("GUEST_PAT", V(GUEST_PAT) = 3ull << 24);
    BREAK("GUEST_PAT", V(GUEST_PAT) = 8);
    BREAK("GUEST_EFER: reserved", V(GUEST_EFER) |= EFER_SVME);
    BREAK("GUEST_EFER: LMA", V(GUEST_EFER) &= ~EFER_LMA);
    TRY(guest_state, "GUEST_EFER: LMA", V(GUEST_EFER) |= EFER_LMA);
    TRY(guest_state, NULL, V(GUEST_EFER) |= EFER_LME); /* without paging LME may go before */
    TRY(guest_state, "GUEST_EFER: LME", (V(GUEST_EFER) |= EFER_LME, V(GUEST_CR0) |= CR0_PG));
    BREAK("GUEST_EFER: LME", V(GUEST_EFER) &= ~EFER_LME);
}

static void segment_types(void **state)
{
    BREAK("GUEST_CS_ACCESS", V(GUEST_CS_ACCESS) ^= 1);
    BREAK("GUEST_CS_ACCESS", V(GUEST_CS_ACCESS) ^= 15 ^ 1); /* type 5 */
    TRY(guest_state, NULL, V(GUEST_CS_ACCESS) = 0xc093);
    BREAK("GUEST_SS_ACCESS", V(GUEST_SS_ACCESS) ^= 2);
    KEEP((V(GUEST_SS_ACCESS) |= 4));
    BREAK("GUEST_SS_ACCESS", V(GUEST_SS_ACCESS) = 0xc09b);
    BREAK("GUEST_DS_ACCESS", V(GUEST_DS_ACCESS) ^= 1);
    BREAK("GUEST_ES_ACCESS", V(GUEST_ES_ACCESS) = 0xc099); /* code that cannot be read */
    KEEP(V(GUEST_FS_ACCESS) = 0xc09b);
    BREAK("GUEST_TR_ACCESS: type; TR must be a busy TSS", V(GUEST_TR_ACCESS) = 0x89);
    BREAK("GUEST_TR_ACCESS", V(GUEST_TR_ACCESS) = 0x83);
    TRY(guest_state, NULL, V(GUEST_TR_ACCESS) = 0x83);
    BREAK("GUEST_TR_ACCESS", V(GUEST_TR_ACCESS) |= ACCESS_UNUSABLE);
    BREAK("GUEST_LDTR_ACCESS", V(GUEST_LDTR_ACCESS) = 0x83);
    KEEP(V(GUEST_LDTR_ACCESS) = 0x82);
    BREAK("GUEST_CS_ACCESS: 64", V(GUEST_CS_ACCESS) |= 1 << 14);
}

#define BREAK_SEGMENT(name)                                                                                            \
    BREAK("GUEST_" #name "_ACCESS: S", V(GUEST_##name##_ACCESS) ^= 1 << 4);                                            \
    BREAK("GUEST_" #name "_ACCESS: must be present", V(GUEST_##name##_ACCESS) ^= 1 << 7);                              \
    BREAK("GUEST_" #name "_ACCESS: reserved", V(GUEST_##name##_ACCESS) |= 1 << 8);                                     \
    BREAK("GUEST_" #name "_ACCESS: reserved", V(GUEST_##name##_ACCESS) |= 1 << 17);                                    \
    BREAK("GUEST_" #name "_ACCESS: G and limit",                                                                       \
          (V(GUEST_##name##_ACCESS) |= 1 << 15, V(GUEST_##name##_LIMIT) = 0xffff0ffe));                                \
    BREAK("GUEST_" #name "_ACCESS: G and limit",                                                                       \
          (V(GUEST_##name##_ACCESS) &= ~(1ull << 15), V(GUEST_##name##_LIMIT) = 0x100000));                            \
    KEEP((V(GUEST_##name##_ACCESS) &= ~(1ull << 15), V(GUEST_##name##_LIMIT) = 0xfffff))

static void segment_access_rights(void **state)
{
    BREAK_SEGMENT(ES);
    BREAK_SEGMENT(CS);
    BREAK_SEGMENT(SS);
    BREAK_SEGMENT(DS);
    BREAK_SEGMENT(FS);
    BREAK_SEGMENT(GS);
    BREAK_SEGMENT(TR);
    BREAK("GUEST_LDTR_ACCESS: S", V(GUEST_LDTR_ACCESS) = 0x92);
    BREAK("GUEST_LDTR_ACCESS: must be present", V(GUEST_LDTR_ACCESS) = 0x02);
    /* What is unusable may hold anything; CS and TR never are. */
    KEEP((V(GUEST_DS_ACCESS) = ACCESS_UNUSABLE | 0xf00, V(GUEST_DS_BASE) = ~0ull));
    BREAK("GUEST_CS_ACCESS", V(GUEST_CS_ACCESS) = ACCESS_UNUSABLE);
}

static void segment_bases_and_selectors(void **state)
{
    BREAK("GUEST_CS_BASE", V(GUEST_CS_BASE) = 1ull << 32);
    BREAK("GUEST_SS_BASE", V(GUEST_SS_BASE) = 1ull << 32);
    BREAK("GUEST_DS_BASE", V(GUEST_DS_BASE) = 1ull << 32);
    BREAK("GUEST_ES_BASE", V(GUEST_ES_BASE) = 1ull << 32);
    BREAK_CANONICAL(GUEST_FS_BASE);
    BREAK_CANONICAL(GUEST_GS_BASE);
    BREAK_CANONICAL(GUEST_TR_BASE);
    BREAK_CANONICAL(GUEST_GDTR_BASE);
    BREAK_CANONICAL(GUEST_IDTR_BASE);
    BREAK("GUEST_GS_BASE", (V(GUEST_GS_ACCESS) = ACCESS_UNUSABLE, V(GUEST_GS_BASE) = 1ull << 60));
    BREAK("GUEST_LDTR_BASE", (V(GUEST_LDTR_ACCESS) = 0x82, V(GUEST_LDTR_BASE) = 1ull << 60));
    KEEP(V(GUEST_LDTR_BASE) = 1ull << 60);
    BREAK("GUEST_TR_SELECTOR", V(GUEST_TR_SELECTOR) = 4);
    BREAK("GUEST_LDTR_SELECTOR", (V(GUEST_LDTR_ACCESS) = 0x82, V(GUEST_LDTR_SELECTOR) = 4));
    KEEP(V(GUEST_LDTR_SELECTOR) = 4);
    BREAK("GUEST_GDTR_LIMIT", V(GUEST_GDTR_LIMIT) = 0x10000);
    BREAK("GUEST_IDTR_LIMIT", V(GUEST_IDTR_LIMIT) = 0x10000);
}

static void segment_privileges(void **state)
{
    KEEP(V(GUEST_SS_SELECTOR) |= 3);
    BREAK("GUEST_CS_ACCESS", V(GUEST_CS_ACCESS) |= 3 << 5); /* not that of SS */
    KEEP((V(GUEST_CS_ACCESS) |= 3 << 5, V(GUEST_SS_ACCESS) |= 3 << 5));
    KEEP((V(GUEST_CS_ACCESS) |= 4, V(GUEST_SS_ACCESS) |= 3 << 5)); /* conforming: at most that of SS */
    BREAK("GUEST_CS_ACCESS", V(GUEST_CS_ACCESS) |= 4 | 1 << 5);
    TRY(guest_state, "GUEST_CS_ACCESS: DPL", V(GUEST_CS_ACCESS) = 0xc0f3);
    TRY(guest_state, "GUEST_SS_ACCESS: DPL", (V(GUEST_CS_ACCESS) = 0xc093, V(GUEST_SS_ACCESS) |= 3 << 5));
    TRY(guest_state, "GUEST_SS_ACCESS: DPL",
        (V(GUEST_CR0) &= ~CR0_PE, V(GUEST_CS_ACCESS) |= 3 << 5, V(GUEST_SS_ACCESS) |= 3 << 5));
    KEEP(V(GUEST_DS_SELECTOR) |= 3);
}

static void virtual_8086(void **state)
{
    TRY(virtual_8086_state, "GUEST_CS_BASE", V(GUEST_CS_BASE) += 1);
    TRY(virtual_8086_state, "GUEST_GS_LIMIT", V(GUEST_GS_LIMIT) = 0xfffff);
    TRY(virtual_8086_state, "GUEST_ES_ACCESS", V(GUEST_ES_ACCESS) = 0x93);
    TRY(virtual_8086_state, "GUEST_TR_ACCESS", V(GUEST_TR_ACCESS) = 0x89);
}

static void rip_and_rflags(void **state)
{
    BREAK("GUEST_RIP", V(GUEST_RIP) = 1ull << 48);
    KEEP(V(GUEST_RIP) = 1ull << 47); /* not canonical, but bits 63:48 are equal: the guest gets its #GP itself */
    KEEP(V(GUEST_RIP) = ~0ull << 48);
    TRY(guest_state, "GUEST_RIP", V(GUEST_RIP) = 1ull << 32);
    BREAK("GUEST_RIP", (V(GUEST_CS_ACCESS) = 0xc09b, V(GUEST_RIP) = 1ull << 32));
    BREAK("GUEST_RFLAGS", V(GUEST_RFLAGS) &= ~RFLAGS_FIXED);
    for (u32 bit = 22; bit < 64; bit++)
        BREAK("GUEST_RFLAGS", V(GUEST_RFLAGS) |= 1ull << bit);
    BREAK("GUEST_RFLAGS", V(GUEST_RFLAGS) |= 1 << 3);
    BREAK("GUEST_RFLAGS", V(GUEST_RFLAGS) |= 1 << 5);
    BREAK("GUEST_RFLAGS", V(GUEST_RFLAGS) |= 1 << 15);
    BREAK("GUEST_RFLAGS", V(ENTRY_EVENT) = EVENT_VALID | 0x40);
    TRY(virtual_8086_state, "GUEST_RFLAGS: virtual",
        (V(ENTRY_CONTROLS) |= ENTRY_CONTROL_GUEST_64, V(GUEST_EFER) = EFER_LME | EFER_LMA));
    TRY(virtual_8086_state, "GUEST_RFLAGS: virtual", V(GUEST_CR0) &= ~(CR0_PE | CR0_PG));
}

static void activity(void **state)
{
    for (u32 other = 1; other < 32; other++) /* HLT, shutdown and waiting for SIPI are none of ours */
        BREAK("GUEST_ACTIVITY", V(GUEST_ACTIVITY) = other);
}

static void interruptibility(void **state)
{
    const u64 both = BLOCKED_BY_STI | BLOCKED_BY_MOV_SS;

    KEEP((V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_STI, V(GUEST_RFLAGS) |= RFLAGS_IF));
    KEEP(V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI);
    BREAK("GUEST_INTERRUPTIBILITY", V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_STI); /* IF is 0 */
    BREAK("GUEST_INTERRUPTIBILITY", (V(GUEST_INTERRUPTIBILITY) = both, V(GUEST_RFLAGS) |= RFLAGS_IF));
    for (u32 bit = 2; bit < 32; bit++)
        if (bit != 3)
            BREAK("GUEST_INTERRUPTIBILITY", V(GUEST_INTERRUPTIBILITY) = 1ull << bit);
    BREAK("GUEST_INTERRUPTIBILITY", (EVENT(0x40), V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_STI));
    BREAK("GUEST_INTERRUPTIBILITY", (EVENT(0x40), V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS));
    BREAK("GUEST_INTERRUPTIBILITY", (EVENT(EVENT_TYPE_NMI | 2), V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS));
    BREAK("GUEST_INTERRUPTIBILITY", (EVENT(EVENT_TYPE_NMI | 2), V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_NMI));
    KEEP((EVENT(EVENT_TYPE_EXCEPTION | 6), V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS));
}

static void pending_debug_and_link(void **state)
{
    const u64 single_step = 1 << 14, trap_flag = 1 << 8, branches_only = 1 << 1;

    KEEP(V(GUEST_PENDING_DEBUG) = 0x500f);
    for (u32 bit = 4; bit < 64; bit++)
        if (bit != 12 && bit != 14)
            BREAK("GUEST_PENDING_DEBUG", V(GUEST_PENDING_DEBUG) = 1ull << bit);
    BREAK("GUEST_PENDING_DEBUG", (V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS, V(GUEST_PENDING_DEBUG) = single_step));
    BREAK("GUEST_PENDING_DEBUG", (V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS, V(GUEST_RFLAGS) |= trap_flag));
    KEEP((V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS, V(GUEST_RFLAGS) |= trap_flag,
          V(GUEST_PENDING_DEBUG) = single_step));
    KEEP((V(GUEST_INTERRUPTIBILITY) = BLOCKED_BY_MOV_SS, V(GUEST_RFLAGS) |= trap_flag,
          V(GUEST_DEBUGCTL) = branches_only));
    KEEP(V(GUEST_RFLAGS) |= trap_flag);
    BREAK("LINK_POINTER", V(LINK_POINTER) = 0x1000);
}

static const char *const field_names[] = {
#define FIELD_NAME(name, encoding) #name,
    VMCS_FIELDS(FIELD_NAME)
#undef FIELD_NAME
};

/* Does the text begin with the name of a field? */
static bool names_a_field(const char *text)
{
    for (u32 i = 0; i < ARRAY_SIZE(field_names); i++)
        if (strncmp(text, field_names[i], strlen(field_names[i])) == 0 && text[strlen(field_names[i])] == ':')
            return true;
    return false;
}

/* One flipped bit anywhere: no crash, and whatever is found names a field and a section. */
static void single_flips(void **state)
{
    struct random random = random_start("vmx_check");

    for (u32 round = 0; round < 100000; round++) {
        struct world w =
            start_state(recorded[random_below(&random, ARRAY_SIZE(recorded))].caps, random_one_in(&random, 2));
        u64 field = random_below(&random, VMCS_FIELD_COUNT), bit = random_below(&random, 64);
        if (random_one_in(&random, 2))
            EVENT(random_u64(&random) & 0xfff);
        w.vmcs.value[field] ^= 1ull << bit;
        const char *fault = vmx_check(&w.caps, &w.vmcs);
        assert_true(fault == NULL || names_a_field(fault));
    }
    for (u32 round = 0; round < 20000; round++) { /* and any bits at all */
        struct world w;
        random_fill(&random, &w, sizeof(w));
        w.caps.physical_bits = (u32)random_below(&random, 53);
        const char *fault = vmx_check(&w.caps, &w.vmcs);
        assert_true(fault == NULL || names_a_field(fault));
    }
}

/* Every control bit that the CPU does not offer, or demands, is found when it is flipped. */
static void reserved_control_bits_are_found(void **state)
{
    static const struct {
        enum vmcs_index field;
        enum vmx_capability msr;
    } controls[] = {{VMCS_INDEX_PIN_CONTROLS, CAP_TRUE_PIN},
                    {VMCS_INDEX_PRIMARY_CONTROLS, CAP_TRUE_PRIMARY},
                    {VMCS_INDEX_SECONDARY_CONTROLS, CAP_SECONDARY},
                    {VMCS_INDEX_EXIT_CONTROLS, CAP_TRUE_EXIT},
                    {VMCS_INDEX_ENTRY_CONTROLS, CAP_TRUE_ENTRY}};

    for (u32 cpu = 0; cpu < ARRAY_SIZE(recorded); cpu++) {
        for (u32 i = 0; i < ARRAY_SIZE(controls); i++) {
            u64 msr = recorded[cpu].caps->msr[controls[i].msr];
            for (u32 bit = 0; bit < 32; bit++) {
                struct world w = start_state(recorded[cpu].caps, true);
                w.vmcs.value[controls[i].field] ^= 1u << bit;
                if (msr >> bit & 1 || !(msr >> (32 + bit) & 1))
                    expect(&w, field_names[controls[i].field], recorded[cpu].name);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_states_pass_everywhere),
        cmocka_unit_test(control_bits),
        cmocka_unit_test(controls_of_fields_that_are_not_kept),
        cmocka_unit_test(controls_that_others_rely_on),
        cmocka_unit_test(addresses_of_controls),
        cmocka_unit_test(ept_pointer),
        cmocka_unit_test(events),
        cmocka_unit_test(error_codes),
        cmocka_unit_test(host_registers),
        cmocka_unit_test(host_segments),
        cmocka_unit_test(guest_registers),
        cmocka_unit_test(guest_pat_and_efer),
        cmocka_unit_test(segment_types),
        cmocka_unit_test(segment_access_rights),
        cmocka_unit_test(segment_bases_and_selectors),
        cmocka_unit_test(segment_privileges),
        cmocka_unit_test(virtual_8086),
        cmocka_unit_test(rip_and_rflags),
        cmocka_unit_test(activity),
        cmocka_unit_test(interruptibility),
        cmocka_unit_test(pending_debug_and_link),
        cmocka_unit_test(single_flips),
        cmocka_unit_test(reserved_control_bits_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
