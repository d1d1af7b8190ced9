/* Which controls this CPU lets us have (SDM 3D appendix A): pure, so that it runs on recorded MSRs too. */
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vmx/vmx.h"

#define BASIC_SIZE(basic) ((basic) >> 32 & 0x1fff)
#define BASIC_MEMORY_TYPE(basic) ((basic) >> 50 & 15)
#define BASIC_TRUE_CONTROLS (1ull << 55)
#define FEATURE_LOCKED (1ull << 0)
#define FEATURE_VMX (1ull << 2) /* outside SMX */
#define WRITE_BACK 6ull
#define EPT_POINTER_WALK_4 (3ull << 3) /* 24.6.11 */

/* Bit n of a control may be 1 where bit 32 + n of its MSR is. The bits of CAP_EPT_VPID are meant as they are. */
enum word { PIN, PRIMARY, EXIT, ENTRY, SECONDARY, EPT, WORDS };
/* clang-format off */
#define NEED(word, bit, what, where) {word, bit, "Intel VT-x without " what " (" where ")"}
static const struct {
    u8 word;
    u64 bit;
    const char *absent;
} needs[] = {
    NEED(PIN, PIN_EXTERNAL_INTERRUPT, "external-interrupt exiting", "IA32_VMX_PINBASED_CTLS bit 32"),
    NEED(PIN, PIN_NMI, "NMI exiting", "IA32_VMX_PINBASED_CTLS bit 35"),
    NEED(PIN, PIN_VIRTUAL_NMI, "virtual NMIs", "IA32_VMX_PINBASED_CTLS bit 37"),
    NEED(PRIMARY, PRIMARY_INTERRUPT_WINDOW, "interrupt-window exiting", "IA32_VMX_PROCBASED_CTLS bit 34"),
    NEED(PRIMARY, PRIMARY_HLT, "HLT exiting", "IA32_VMX_PROCBASED_CTLS bit 39"),
    NEED(PRIMARY, PRIMARY_MWAIT, "MWAIT exiting", "IA32_VMX_PROCBASED_CTLS bit 42"),
    NEED(PRIMARY, PRIMARY_RDPMC, "RDPMC exiting", "IA32_VMX_PROCBASED_CTLS bit 43"),
    NEED(PRIMARY, PRIMARY_CR3_LOAD, "CR3-load exiting", "IA32_VMX_PROCBASED_CTLS bit 47"),
    NEED(PRIMARY, PRIMARY_CR8_LOAD, "CR8-load exiting", "IA32_VMX_PROCBASED_CTLS bit 51"),
    NEED(PRIMARY, PRIMARY_CR8_STORE, "CR8-store exiting", "IA32_VMX_PROCBASED_CTLS bit 52"),
    NEED(PRIMARY, PRIMARY_NMI_WINDOW, "NMI-window exiting", "IA32_VMX_PROCBASED_CTLS bit 54"),
    NEED(PRIMARY, PRIMARY_MOV_DR, "MOV-DR exiting", "IA32_VMX_PROCBASED_CTLS bit 55"),
    NEED(PRIMARY, PRIMARY_IO_BITMAPS, "I/O bitmaps", "IA32_VMX_PROCBASED_CTLS bit 57"),
    NEED(PRIMARY, PRIMARY_MSR_BITMAPS, "MSR bitmaps", "IA32_VMX_PROCBASED_CTLS bit 60"),
    NEED(PRIMARY, PRIMARY_MONITOR, "MONITOR exiting", "IA32_VMX_PROCBASED_CTLS bit 61"),
    NEED(PRIMARY, PRIMARY_SECONDARY, "secondary controls", "IA32_VMX_PROCBASED_CTLS bit 63"),
    NEED(EXIT, EXIT_CONTROL_SAVE_DEBUG, "saving of debug controls", "IA32_VMX_EXIT_CTLS bit 34"),
    NEED(EXIT, EXIT_CONTROL_HOST_64, "a 64-bit host", "IA32_VMX_EXIT_CTLS bit 41"),
    NEED(EXIT, EXIT_CONTROL_SAVE_PAT, "saving of IA32_PAT", "IA32_VMX_EXIT_CTLS bit 50"),
    NEED(EXIT, EXIT_CONTROL_LOAD_PAT, "loading of IA32_PAT at exits", "IA32_VMX_EXIT_CTLS bit 51"),
    NEED(EXIT, EXIT_CONTROL_SAVE_EFER, "saving of IA32_EFER", "IA32_VMX_EXIT_CTLS bit 52"),
    NEED(EXIT, EXIT_CONTROL_LOAD_EFER, "loading of IA32_EFER at exits", "IA32_VMX_EXIT_CTLS bit 53"),
    NEED(ENTRY, ENTRY_CONTROL_LOAD_DEBUG, "loading of debug controls", "IA32_VMX_ENTRY_CTLS bit 34"),
    NEED(ENTRY, ENTRY_CONTROL_GUEST_64, "64-bit guests", "IA32_VMX_ENTRY_CTLS bit 41"),
    NEED(ENTRY, ENTRY_CONTROL_LOAD_PAT, "loading of IA32_PAT at entries", "IA32_VMX_ENTRY_CTLS bit 46"),
    NEED(ENTRY, ENTRY_CONTROL_LOAD_EFER, "loading of IA32_EFER at entries", "IA32_VMX_ENTRY_CTLS bit 47"),
    NEED(SECONDARY, SECONDARY_EPT, "extended page tables", "IA32_VMX_PROCBASED_CTLS2 bit 33"),
    NEED(SECONDARY, SECONDARY_VPID, "VPIDs", "IA32_VMX_PROCBASED_CTLS2 bit 37"),
    NEED(SECONDARY, SECONDARY_WBINVD, "WBINVD exiting", "IA32_VMX_PROCBASED_CTLS2 bit 38"),
    NEED(SECONDARY, SECONDARY_UNRESTRICTED, "unrestricted guest", "IA32_VMX_PROCBASED_CTLS2 bit 39"),
    NEED(EPT, 1ull << 6, "EPT of four levels", "IA32_VMX_EPT_VPID_CAP bit 6"),
    NEED(EPT, 1ull << 14, "write-back EPT", "IA32_VMX_EPT_VPID_CAP bit 14"),
    NEED(EPT, 1ull << 20, "INVEPT", "IA32_VMX_EPT_VPID_CAP bit 20"),
    NEED(EPT, 1ull << 25, "single-context INVEPT", "IA32_VMX_EPT_VPID_CAP bit 25"),
    NEED(EPT, 1ull << 26, "all-context INVEPT", "IA32_VMX_EPT_VPID_CAP bit 26"),
    NEED(EPT, 1ull << 32, "INVVPID", "IA32_VMX_EPT_VPID_CAP bit 32"),
    NEED(EPT, 1ull << 41, "single-context INVVPID", "IA32_VMX_EPT_VPID_CAP bit 41"),
    NEED(EPT, 1ull << 42, "all-context INVVPID", "IA32_VMX_EPT_VPID_CAP bit 42"),
};

/* The words of controls: which bits without a meaning to us may always be 1 (the default1 class of A.2, less those that
 * have got a name since), which of the needed ones are not in each VM or not all the time, and what else is refused. */
#define FORCED(msr) "Intel VT-x with a control that cannot be off (IA32_VMX_" msr " bits 31:0)"
static const struct {
    u32 reserved, transient;
    const char *forced;
} words[EPT] = {
    [PIN] = {0x16, 0, FORCED("TRUE_PINBASED_CTLS")},
    [PRIMARY] = {0x04006172, PRIMARY_INTERRUPT_WINDOW | PRIMARY_NMI_WINDOW | PRIMARY_CR3_LOAD | PRIMARY_MOV_DR,
                 FORCED("TRUE_PROCBASED_CTLS")},
    [EXIT] = {0x00036dfb, 0, FORCED("TRUE_EXIT_CTLS")},
    [ENTRY] = {0x000011fb, ENTRY_CONTROL_GUEST_64, FORCED("TRUE_ENTRY_CTLS")},
    [SECONDARY] = {0, 0, FORCED("PROCBASED_CTLS2")},
};
/* clang-format on */

/* msr, chosen: by word. */
static const char *choose(const u64 msr[WORDS], u32 chosen[EPT])
{
    u32 wanted[WORDS] = {0};

    for (u32 i = 0; i < ARRAY_SIZE(needs); i++) {
        enum word word = needs[i].word;
        if (!((word == EPT ? msr[word] : msr[word] >> 32) & needs[i].bit))
            return needs[i].absent;
        wanted[word] |= (u32)needs[i].bit;
    }
    for (enum word word = PIN; word < EPT; word++) {
        u32 must = (u32)msr[word], always = wanted[word] & ~words[word].transient;
        if (must & ~always & ~words[word].reserved)
            return words[word].forced;
        chosen[word] = always | must;
    }
    return NULL;
}

const char *vmx_controls_compute(const struct vmx_capabilities *caps, struct vmx_controls *out)
{
    const u64 *msr = caps->msr;
    const u64 by_word[WORDS] = {msr[CAP_TRUE_PIN],   msr[CAP_TRUE_PRIMARY], msr[CAP_TRUE_EXIT],
                                msr[CAP_TRUE_ENTRY], msr[CAP_SECONDARY],    msr[CAP_EPT_VPID]};
    u32 chosen[EPT];

    if ((caps->feature_control & (FEATURE_LOCKED | FEATURE_VMX)) == FEATURE_LOCKED)
        return "Intel VT-x is switched off by firmware (IA32_FEATURE_CONTROL is locked without bit 2)";
    if (BASIC_SIZE(msr[CAP_BASIC]) > PAGE_SIZE || BASIC_MEMORY_TYPE(msr[CAP_BASIC]) != WRITE_BACK)
        return "Intel VT-x without a VMCS in write-back memory of one page (IA32_VMX_BASIC bits 53:50 and 44:32)";
    if (!(msr[CAP_BASIC] & BASIC_TRUE_CONTROLS)) /* A.2: then each write to CR3 exits */
        return "Intel VT-x without controls that can be off (IA32_VMX_BASIC bit 55)";
    const char *absent = choose(by_word, chosen);
    if (absent)
        return absent;
    bool timer = by_word[PIN] >> 32 & PIN_PREEMPTION_TIMER;
    *out = (struct vmx_controls){
        .pin = chosen[PIN] | (timer ? PIN_PREEMPTION_TIMER : 0),
        .primary = chosen[PRIMARY],
        .secondary = chosen[SECONDARY],
        .exit = chosen[EXIT],
        .entry = chosen[ENTRY],
        .feature_control = caps->feature_control | FEATURE_LOCKED | FEATURE_VMX,
        .cr0_set = msr[CAP_CR0_FIXED0] & ~(CR0_PE | CR0_PG), /* A.7: an unrestricted guest may clear them */
        .cr4_set = msr[CAP_CR4_FIXED0],
        .cr4_allowed = msr[CAP_CR4_FIXED1],
        .ept_pointer = WRITE_BACK | EPT_POINTER_WALK_4, /* accessed and dirty flags would serve nobody */
        .ept_superpages = (u32)(msr[CAP_EPT_VPID] >> 16 & 3) << 1,
        .preemption_timer = timer,
        .timer_shift = msr[CAP_MISC] & 31,
    };
    return NULL;
}
