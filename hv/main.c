/*
 * Bulkhead: a thin hypervisor that keeps each device driver in a VM of its own. This file is the table of contents of a
 * boot.
 */
#include "hv/arch/x86/boot/acpi_tables.h"
#include "hv/arch/x86/boot/smp.h"
#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/interrupts.h"
#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/arch/x86/vendor.h"
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "hv/core/machine.h"
#include "hv/core/schedule.h"
#include "hv/core/start.h"
#include "hv/iommu/iommu.h"
#include "hv/pci/pci.h"
#include "hv/recovery/recovery.h"

static struct manifest manifest;
static bool go; /* the other CPUs may run VMs */

static void must(status_t status, const char *what)
{
    if (status != OK)
        boot_fail("%s: %s", what, status_text(status));
}

static void read_acpi(const struct boot_info *boot, struct acpi_info *acpi)
{
    const char *why;
    status_t status = acpi_read(boot->rsdp, acpi, &why);

    if (status != OK)
        boot_fail("ACPI table %s: %s", why, status_text(status));
    if (!acpi->pm_timer_port)
        boot_fail("ACPI: no PM timer to measure the clocks with");
}

static void read_manifest(const struct boot_info *boot)
{
    struct manifest_error error;

    if (manifest_parse(hpa_to_ptr(HPA(boot->module[0].base)), boot->module[0].size, &manifest, &error) != OK)
        boot_fail("manifest.ini:%u: %s", error.line, error.message);
    machine_exit_port = manifest.exit_port;
    if (manifest.control)
        control_init();
}

static void find_devices(const struct acpi_info *acpi, const struct boot_info *boot)
{
    status_t status;

    must(pci_enumerate(HPA(acpi->ecam), acpi->ecam_first_bus, acpi->ecam_last_bus, boot->memory, boot->memory_count),
         "PCI");
    hv_log("PCI: %u devices, configuration space by %s", pci_device_count,
           acpi->ecam ? "ECAM" : "ports 0xcf8 and 0xcfc (ACPI has no MCFG table)");
    status = iommu_init(acpi->dmar, acpi->dmar_size, VECTOR_IOMMU, apic_id());
    if (status == OK)
        hv_log("IOMMU: %s", iommu_description());
    else if (status == ERR_NOT_FOUND)
        hv_log("IOMMU: none (no DMAR table): drivers need 'dma = none', or 'dma = unprotected': WITHOUT protection");
    else
        boot_fail("IOMMU: %s", status_text(status));
}

/* Each further CPU, on its own stack, when it is ready. */
static void run_other_cpu(void)
{
    while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
        cpu_pause();
    schedule_run();
}

_Noreturn void hv_main(const struct boot_info *boot)
{
    static struct acpi_info acpi; /* ioapic.c keeps it */

    machine_init();     /* console and the clock's zero */
    cpu_init(&cpus[0]); /* descriptor tables; exceptions now say what they are */
    if (boot->magic != BOOT_INFO_MAGIC || boot->version != BOOT_INFO_VERSION)
        boot_fail("the boot loader is of another version than the hypervisor");
    must(frames_init(boot->memory, boot->memory_count), "memory");
    must(paging_init(boot), "page tables"); /* own address space, W^X */
    read_acpi(boot, &acpi);
    apic_init_cpu();
    ioapic_init(&acpi);                 /* all lines masked */
    apic_calibrate(acpi.pm_timer_port); /* the one clock: TSC */
    vcpu_vendor_init(&cpus[0]);         /* SVM or VMX, or a boot error */
    hv_log("Bulkhead: CPU back end %s (%s%s), TSC %lu MHz, %luM free", vendor->name, vendor->description,
           CHECK_ENTRIES ? ", each entry checked" : "", tsc_khz / 1000, frames_free_count >> 8); /* 256 a MiB */
    read_manifest(boot);
    find_devices(&acpi, boot);   /* PCI, then every device behind the IOMMU, blocked */
    plan_check(boot, &manifest); /* all that can be wrong, before anything starts */
    cpus[0].online = true;
    must(smp_start(&acpi, boot, run_other_cpu), "starting CPUs");
    hv_log("%u CPU%s", cpu_count, cpu_count > 1 ? "s" : "");
    inject_canary_init();
    start_vms(boot, &manifest);
    __atomic_store_n(&go, true, __ATOMIC_RELEASE);
    schedule_run(); /* driver VMs come up; the guest follows */
}
