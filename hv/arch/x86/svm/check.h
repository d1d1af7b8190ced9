/*
 * The checks that VMRUN makes (APM 2 15.5.1, 15.20), as a pure function: any context, no hardware access. Debug builds
 * call it before an entry and after a refused one; a CPU says no more than VMEXIT_INVALID.
 */
#pragma once

#include "hv/arch/x86/svm/vmcb.h"

/* NULL: VMRUN accepts it. Else a static text: the name of the field at fault, the rule, its section. */
const char *svm_check(const struct svm_vmcb *vmcb);
