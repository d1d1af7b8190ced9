/*
 * From the manifest to running VMs, in two steps: plan_check() looks at everything that can be wrong and changes
 * nothing; what follows cannot fail for a reason that the manifest's author could mend. So nothing is ever half
 * started. Boot CPU, before other CPUs run, unless said otherwise.
 */
#pragma once

#include "hv/core/vm.h"
#include "shared/abi/boot_info.h"

/* Everything the manifest asks for against this machine: images, devices, IOMMU, memory. Ends in boot_fail() with file
 * and line. */
void plan_check(const struct boot_info *boot, const struct manifest *manifest);

/*
 * Make all VMs: memory, nested tables, devices in their domains (blocked), relays, platform. Driver VMs start in the
 * order of the manifest's `after` and `needs` (recovery_tick()); the main guest follows when each of them has offered
 * its device or failed for good. After smp_start(): needs cpu_count.
 */
void start_vms(const struct boot_info *boot, const struct manifest *manifest);

/* From the tick of CPU 0, lock held. */
void start_guest_when_ready(void);

/* The module of that file name; NULL. */
const struct boot_module *boot_find_module(const struct boot_info *boot, const char *name);
/* The device that a manifest entry means and that nobody owns yet; NULL. */
struct pci_device *start_find_device(const struct manifest_device *device);
