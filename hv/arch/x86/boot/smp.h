/* Start-up of the other CPUs. Boot CPU only, lock not needed yet. */
#pragma once

#include "hv/arch/x86/boot/acpi_tables.h"

/*
 * Start every enabled CPU of the MADT up to CPU_MAX, one after the other; each ends in `run` on its own stack, with
 * virtualization on. A CPU that does not answer in 100 ms is left out with a line in the log. Errors: ERR_NO_MEMORY.
 */
NODISCARD status_t smp_start(const struct acpi_info *acpi, const struct boot_info *boot, void (*run)(void));
