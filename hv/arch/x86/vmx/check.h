/*
 * The checks that a CPU makes at VM entry (SDM 3C 26.2 and 26.3), as a pure function: any context, no hardware access.
 * Debug builds call it before an entry and after a refused one; a CPU says no more than "invalid guest state".
 */
#pragma once

#include "hv/arch/x86/vmx/vmcs.h"

/*
 * NULL: these fields may be entered on a CPU that says this of itself. Else a static text that begins with the name of
 * the field at fault, followed by the rule and its section: "GUEST_TR_ACCESS: TR must be a busy TSS (26.3.1.2)".
 * Covers the fields in struct vmcs_snapshot. Refused, too, is what a VMCS of ours never has: controls that need a field
 * that is not there (TPR shadow, posted interrupts, PML and so on), no EPT, VPID or unrestricted guest, an activity
 * state other than active. Memory behind the fields is not looked at (PDPTEs, MSR lists).
 */
const char *vmx_check(const struct vmx_capabilities *caps, const struct vmcs_snapshot *state);
