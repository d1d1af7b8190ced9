/*
 * A VMCS that a CPU accepts, for tests that break it: our start states (hv/arch/x86/vendor.h), on each recorded CPU.
 */
#pragma once

#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vmx/check.h"
#include "tests/unit/unit.h"
#include "tests/unit/vmx_recorded.h"

#include <ctype.h>
#include <string.h>

#define CR4_VMXE (1ull << 13)

/* What a test changes: a CPU, and a valid VMCS for it. */
struct world {
    struct vmx_capabilities caps;
    struct vmcs_snapshot vmcs;
};
#define V(name) w.vmcs.value[VMCS_INDEX_##name]

/* The least that the CPU demands and `wanted`. */
static u64 control(const struct vmx_capabilities *caps, enum vmx_capability which, u32 wanted)
{
    u64 msr = caps->msr[which];
    assert_int_equal(wanted & ~(msr >> 32), 0);
    return (u32)msr | wanted;
}

static void set_controls(struct world *world, bool long_mode)
{
    struct world w = *world;

    V(PIN_CONTROLS) = control(&w.caps, CAP_TRUE_PIN, PIN_EXTERNAL_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI);
    V(PRIMARY_CONTROLS) =
        control(&w.caps, CAP_TRUE_PRIMARY, PRIMARY_SECONDARY | PRIMARY_HLT | PRIMARY_IO_BITMAPS | PRIMARY_MSR_BITMAPS);
    V(SECONDARY_CONTROLS) =
        control(&w.caps, CAP_SECONDARY, SECONDARY_EPT | SECONDARY_VPID | SECONDARY_UNRESTRICTED | SECONDARY_WBINVD);
    V(EXIT_CONTROLS) = control(&w.caps, CAP_TRUE_EXIT,
                               EXIT_CONTROL_HOST_64 | EXIT_CONTROL_SAVE_PAT | EXIT_CONTROL_LOAD_PAT |
                                   EXIT_CONTROL_SAVE_EFER | EXIT_CONTROL_LOAD_EFER);
    V(ENTRY_CONTROLS) = control(&w.caps, CAP_TRUE_ENTRY,
                                ENTRY_CONTROL_LOAD_PAT | ENTRY_CONTROL_LOAD_EFER | ENTRY_CONTROL_LOAD_DEBUG |
                                    (long_mode ? ENTRY_CONTROL_GUEST_64 : 0));
    V(VPID) = 1;
    V(IO_BITMAP_A) = 0x10000;
    V(IO_BITMAP_B) = 0x11000;
    V(MSR_BITMAP) = 0x12000;
    V(EPT_POINTER) = 0x20000 | 3 << 3 | 6;
    *world = w;
}

static void set_host(struct world *world)
{
    struct world w = *world;

    V(HOST_CR0) = CR0_PE | CR0_NE | CR0_WP | CR0_PG;
    V(HOST_CR3) = 0x1000;
    V(HOST_CR4) = CR4_PAE | CR4_VMXE;
    V(HOST_PAT) = 0x0007040600070406;
    V(HOST_EFER) = EFER_LME | EFER_LMA | EFER_NXE;
    V(HOST_CS_SELECTOR) = 8;
    V(HOST_SS_SELECTOR) = 16;
    V(HOST_TR_SELECTOR) = 24;
    V(HOST_TR_BASE) = V(HOST_GDTR_BASE) = V(HOST_IDTR_BASE) = V(HOST_RIP) = 0xffffffff80001000;
    *world = w;
}

/* Flat segments as in svm/state.c: a driver VM's 64-bit start, or the guest's 32-bit one without paging. */
static struct world start_state(const struct vmx_capabilities *caps, bool long_mode)
{
    struct world w = {.caps = *caps};

    set_controls(&w, long_mode);
    set_host(&w);
    for (u32 i = 0; i < 6; i++) {
        w.vmcs.value[VMCS_INDEX_GUEST_ES_SELECTOR + i] = 0x10;
        w.vmcs.value[VMCS_INDEX_GUEST_ES_LIMIT + i] = 0xffffffff;
        w.vmcs.value[VMCS_INDEX_GUEST_ES_ACCESS + i] = 0xc093;
    }
    V(GUEST_CS_SELECTOR) = 8;
    V(GUEST_CS_ACCESS) = long_mode ? 0xa09b : 0xc09b;
    V(GUEST_LDTR_ACCESS) = ACCESS_UNUSABLE;
    V(GUEST_TR_ACCESS) = 0x8b;
    V(GUEST_TR_LIMIT) = 0xffff;
    V(GUEST_CR0) = CR0_PE | CR0_ET | CR0_NE | (long_mode ? CR0_WP | CR0_PG : 0);
    V(GUEST_CR3) = long_mode ? 0x1000 : 0;
    V(GUEST_CR4) = CR4_VMXE | (long_mode ? CR4_PAE : 0);
    V(GUEST_EFER) = long_mode ? EFER_LME | EFER_LMA | EFER_NXE : 0;
    V(GUEST_PAT) = 0x0007040600070406;
    V(GUEST_DR7) = 0x400;
    V(GUEST_RIP) = 0x100000;
    V(GUEST_RFLAGS) = RFLAGS_FIXED;
    V(LINK_POINTER) = ~0ull;
    return w;
}

/* Does the text begin with these whole words? GUEST_CS is none of GUEST_CS_BASE. */
static bool begins(const char *text, const char *words)
{
    size_t length = strlen(words);
    return strncmp(text, words, length) == 0 && !isalnum(text[length]) && text[length] != '_';
}

static __attribute__((unused)) void expect(const struct world *w, const char *text, const char *change)
{
    const char *fault = vmx_check(&w->caps, &w->vmcs);

    if (text == NULL && fault != NULL)
        fail_msg("%s: says \"%s\"", change, fault);
    if (text != NULL && (fault == NULL || !begins(fault, text)))
        fail_msg("%s: says \"%s\", not \"%s\"", change, fault ? fault : "nothing", text);
}
