/* Which controls this CPU lets us have (SDM 3D appendix A): pure, so that it runs on recorded MSRs too. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vmx/vmx.h"

#define BASIC_SIZE(basic) ((basic) >> 32 & 0x1fff)
#define BASIC_MEMORY_TYPE(basic) ((basic) >> 50 & 15)
#define BASIC_TRUE_CONTROLS (1ull << 55)
#define WRITE_BACK 6ull

#define EPT_WALK_4 (1ull << 6)
#define EPT_TYPE_WRITE_BACK (1ull << 14)
#define EPT_2M (1ull << 16)
#define EPT_INVEPT (1ull << 20)
#define EPT_INVEPT_SINGLE (1ull << 25)
#define EPT_INVEPT_ALL (1ull << 26)
#define EPT_INVVPID (1ull << 32)
#define EPT_INVVPID_SINGLE (1ull << 41)
#define EPT_POINTER_WALK_4 (3ull << 3) /* 24.6.11 */

struct need {
    u32 bit; /* of the control field */
    const char *absent;
};
/* Bit n of a control may be 1 where bit 32 + n of its MSR is. */
#define NEED(bits, what, where)                                                                                        \
    {                                                                                                                  \
        bits, "Intel VT-x without " what " (" where ")"                                                                \
    }
/* clang-format off */
static const struct need pin_needs[] = {
    NEED(PIN_EXTERNAL_INTERRUPT, "external-interrupt exiting", "IA32_VMX_PINBASED_CTLS bit 32"),
    NEED(PIN_NMI, "NMI exiting", "IA32_VMX_PINBASED_CTLS bit 35"),
    NEED(PIN_VIRTUAL_NMI, "virtual NMIs", "IA32_VMX_PINBASED_CTLS bit 37"),
    {0, "Intel VT-x with a pin-based control that cannot be off (IA32_VMX_TRUE_PINBASED_CTLS bits 31:0)"}};
static const struct need primary_needs[] = {
    NEED(PRIMARY_INTERRUPT_WINDOW, "interrupt-window exiting", "IA32_VMX_PROCBASED_CTLS bit 34"),
    NEED(PRIMARY_HLT, "HLT exiting", "IA32_VMX_PROCBASED_CTLS bit 39"),
    NEED(PRIMARY_MWAIT, "MWAIT exiting", "IA32_VMX_PROCBASED_CTLS bit 42"),
    NEED(PRIMARY_RDPMC, "RDPMC exiting", "IA32_VMX_PROCBASED_CTLS bit 43"),
    NEED(PRIMARY_CR3_LOAD, "CR3-load exiting", "IA32_VMX_PROCBASED_CTLS bit 47"),
    NEED(PRIMARY_CR8_LOAD, "CR8-load exiting", "IA32_VMX_PROCBASED_CTLS bit 51"),
    NEED(PRIMARY_CR8_STORE, "CR8-store exiting", "IA32_VMX_PROCBASED_CTLS bit 52"),
    NEED(PRIMARY_NMI_WINDOW, "NMI-window exiting", "IA32_VMX_PROCBASED_CTLS bit 54"),
    NEED(PRIMARY_MOV_DR, "MOV-DR exiting", "IA32_VMX_PROCBASED_CTLS bit 55"),
    NEED(PRIMARY_IO_BITMAPS, "I/O bitmaps", "IA32_VMX_PROCBASED_CTLS bit 57"),
    NEED(PRIMARY_MSR_BITMAPS, "MSR bitmaps", "IA32_VMX_PROCBASED_CTLS bit 60"),
    NEED(PRIMARY_MONITOR, "MONITOR exiting", "IA32_VMX_PROCBASED_CTLS bit 61"),
    NEED(PRIMARY_SECONDARY, "secondary controls", "IA32_VMX_PROCBASED_CTLS bit 63"),
    {0, "Intel VT-x with a processor-based control that cannot be off (IA32_VMX_TRUE_PROCBASED_CTLS bits 31:0)"}};
static const struct need secondary_needs[] = {
    NEED(SECONDARY_EPT, "extended page tables", "IA32_VMX_PROCBASED_CTLS2 bit 33"),
    NEED(SECONDARY_VPID, "VPIDs", "IA32_VMX_PROCBASED_CTLS2 bit 37"),
    NEED(SECONDARY_WBINVD, "WBINVD exiting", "IA32_VMX_PROCBASED_CTLS2 bit 38"),
    NEED(SECONDARY_UNRESTRICTED, "unrestricted guest", "IA32_VMX_PROCBASED_CTLS2 bit 39"),
    {0, "Intel VT-x with a secondary control that cannot be off (IA32_VMX_PROCBASED_CTLS2 bits 31:0)"}};
static const struct need exit_needs[] = {
    NEED(EXIT_CONTROL_SAVE_DEBUG, "saving of debug controls", "IA32_VMX_EXIT_CTLS bit 34"),
    NEED(EXIT_CONTROL_HOST_64, "a 64-bit host", "IA32_VMX_EXIT_CTLS bit 41"),
    NEED(EXIT_CONTROL_SAVE_PAT, "saving of IA32_PAT", "IA32_VMX_EXIT_CTLS bit 50"),
    NEED(EXIT_CONTROL_LOAD_PAT, "loading of IA32_PAT at exits", "IA32_VMX_EXIT_CTLS bit 51"),
    NEED(EXIT_CONTROL_SAVE_EFER, "saving of IA32_EFER", "IA32_VMX_EXIT_CTLS bit 52"),
    NEED(EXIT_CONTROL_LOAD_EFER, "loading of IA32_EFER at exits", "IA32_VMX_EXIT_CTLS bit 53"),
    {0, "Intel VT-x with a VM-exit control that cannot be off (IA32_VMX_TRUE_EXIT_CTLS bits 31:0)"}};
static const struct need entry_needs[] = {
    NEED(ENTRY_CONTROL_LOAD_DEBUG, "loading of debug controls", "IA32_VMX_ENTRY_CTLS bit 34"),
    NEED(ENTRY_CONTROL_GUEST_64, "64-bit guests", "IA32_VMX_ENTRY_CTLS bit 41"),
    NEED(ENTRY_CONTROL_LOAD_PAT, "loading of IA32_PAT at entries", "IA32_VMX_ENTRY_CTLS bit 46"),
    NEED(ENTRY_CONTROL_LOAD_EFER, "loading of IA32_EFER at entries", "IA32_VMX_ENTRY_CTLS bit 47"),
    {0, "Intel VT-x with a VM-entry control that cannot be off (IA32_VMX_TRUE_ENTRY_CTLS bits 31:0)"}};
/* clang-format on */

/* Controls without a meaning that are always 1: the default1 class (A.2) less those that have got one since. */
#define PIN_RESERVED 0x16u
#define PRIMARY_RESERVED 0x04006172u
#define EXIT_RESERVED 0x00036dfbu
#define ENTRY_RESERVED 0x000011fbu
/* Offered, but not in each VM or not all the time: the rest is in every VMCS. */
#define PRIMARY_TRANSIENT (PRIMARY_INTERRUPT_WINDOW | PRIMARY_NMI_WINDOW | PRIMARY_CR3_LOAD | PRIMARY_MOV_DR)

/* *out: what is needed and what is reserved as 1. The last of the needs is the text for a control that cannot be off.
 */
static const char *choose(u64 msr, const struct need *need, u32 reserved, u32 transient, u32 *out)
{
    u32 must = (u32)msr, may = (u32)(msr >> 32), wanted = 0;

    for (; need->bit; need++) {
        if (!(may & need->bit))
            return need->absent;
        wanted |= need->bit & ~transient;
    }
    *out = wanted | must;
    return must & ~wanted & ~reserved ? need->absent : NULL;
}

static const char *choose_all(const struct vmx_capabilities *caps, struct vmx_controls *out)
{
    const u64 *msr = caps->msr, *fine = msr + (msr[CAP_BASIC] & BASIC_TRUE_CONTROLS ? CAP_TRUE_PIN : CAP_PIN);

    out->preemption_timer = fine[0] >> 32 & PIN_PREEMPTION_TIMER;
    return choose(fine[0], pin_needs, PIN_RESERVED, 0, &out->pin)
               ?: choose(fine[1], primary_needs, PRIMARY_RESERVED, PRIMARY_TRANSIENT, &out->primary)
               ?: choose(fine[2], exit_needs, EXIT_RESERVED, 0, &out->exit)
               ?: choose(fine[3], entry_needs, ENTRY_RESERVED, ENTRY_CONTROL_GUEST_64, &out->entry)
               ?: choose(msr[CAP_SECONDARY], secondary_needs, 0, 0, &out->secondary);
}

static const char *check_ept(u64 ept)
{
    static const struct {
        u64 bit;
        const char *absent;
    } needs[] = {
        NEED(EPT_WALK_4, "EPT of four levels", "IA32_VMX_EPT_VPID_CAP bit 6"),
        NEED(EPT_TYPE_WRITE_BACK, "write-back EPT", "IA32_VMX_EPT_VPID_CAP bit 14"),
        NEED(EPT_INVEPT, "INVEPT", "IA32_VMX_EPT_VPID_CAP bit 20"),
        NEED(EPT_INVEPT_SINGLE, "single-context INVEPT", "IA32_VMX_EPT_VPID_CAP bit 25"),
        NEED(EPT_INVEPT_ALL, "all-context INVEPT", "IA32_VMX_EPT_VPID_CAP bit 26"),
        NEED(EPT_INVVPID, "INVVPID", "IA32_VMX_EPT_VPID_CAP bit 32"),
        NEED(EPT_INVVPID_SINGLE, "single-context INVVPID", "IA32_VMX_EPT_VPID_CAP bit 41"),
    };

    for (u32 i = 0; i < ARRAY_SIZE(needs); i++)
        if (!(ept & needs[i].bit))
            return needs[i].absent;
    return NULL;
}

const char *vmx_controls_compute(const struct vmx_capabilities *caps, struct vmx_controls *out)
{
    const u64 *msr = caps->msr;
    const char *absent;

    *out = (struct vmx_controls){0};
    if (BASIC_SIZE(msr[CAP_BASIC]) > PAGE_SIZE || BASIC_MEMORY_TYPE(msr[CAP_BASIC]) != WRITE_BACK)
        return "Intel VT-x without a VMCS in write-back memory of one page (IA32_VMX_BASIC bits 53:50 and 44:32)";
    absent = choose_all(caps, out) ?: check_ept(msr[CAP_EPT_VPID]);
    if (absent)
        return absent;
    out->pin |= out->preemption_timer ? PIN_PREEMPTION_TIMER : 0;
    out->timer_shift = msr[CAP_MISC] & 31;
    out->cr0_set = msr[CAP_CR0_FIXED0] & ~(CR0_PE | CR0_PG); /* A.7: an unrestricted guest may clear them */
    out->cr4_set = msr[CAP_CR4_FIXED0];
    out->cr4_allowed = msr[CAP_CR4_FIXED1];
    out->ept_pointer = WRITE_BACK | EPT_POINTER_WALK_4; /* accessed and dirty flags would serve nobody */
    out->ept_superpages = (u32)(msr[CAP_EPT_VPID] / EPT_2M & 3) << 1;
    return NULL;
}
