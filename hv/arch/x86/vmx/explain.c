/* A VM entry that the CPU refused: why, and the VMCS by the names of its fields. */
#include "hv/arch/x86/vmx/check.h"
#include "hv/arch/x86/vmx/vmx.h"

#include "hv/core/hypervisor.h"
#include "shared/lib/printf.h"

#define FIELDS_A_LINE 4u

#define VMCS_NAME(name, encoding) {encoding, #name},
static const struct {
    u16 encoding;
    const char *name;
} fields[VMCS_FIELD_COUNT] = {VMCS_FIELDS(VMCS_NAME)};

/* VM-instruction errors of an entry (30.4), and from 33 on exit reasons (26.8, appendix C); no number is both. */
static const char *const refusals[] = {
    [0] = "found before the entry",
    [4] = "VMLAUNCH with a VMCS that is not clear",
    [5] = "VMRESUME with a VMCS that was not launched",
    [7] = "invalid control fields",
    [8] = "invalid host-state fields",
    [26] = "events blocked by MOV SS",
    [33] = "invalid guest state",
    [34] = "MSR loading",
    [41] = "machine check",
    [49] = "EPT misconfiguration",
};

const char *vmx_check_current(struct vmcs_snapshot *state)
{
    for (u32 i = 0; i < VMCS_FIELD_COUNT; i++)
        state->value[i] = vmcs_read(fields[i].encoding);
    return vmx_check(&vmx_capabilities, state);
}

static void dump(const struct vmcs_snapshot *state)
{
    char line[200];
    int at = 0;

    for (u32 i = 0; i < VMCS_FIELD_COUNT; i++) {
        at += bh_snprintf(line + at, sizeof(line) - (size_t)at, " %s=%lx", fields[i].name, state->value[i]);
        if (i % FIELDS_A_LINE == FIELDS_A_LINE - 1 || i == VMCS_FIELD_COUNT - 1) {
            hv_log("vmcs%s", line);
            at = 0;
        }
    }
}

void vmx_explain(struct vcpu *vcpu, u64 code)
{
    static struct vmcs_snapshot state; /* under the hv lock */
    struct vmx_vcpu *vmx = vmx_use(vcpu);
    u16 number = (u16)code;
    const char *name = number < ARRAY_SIZE(refusals) ? refusals[number] : NULL, *broken = vmx_check_current(&state);

    hv_log("%s: VM entry refused: %u (%s), qualification %lx; %s", vcpu->vm->name, number, name ?: "SDM 3C 30.4",
           state.value[VMCS_INDEX_EXIT_QUALIFICATION], broken ?: "no rule known here is broken");
    if (!vmx->dumped)
        dump(&state);
    vmx->dumped = true;
}
