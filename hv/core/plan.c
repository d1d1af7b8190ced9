/* Everything that can be wrong between manifest and machine, before anything is started. */
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/start.h"
#include "hv/platform/platform.h"
#include "shared/lib/checked.h"
#include "shared/lib/elf.h"
#include "shared/lib/string.h"

/* Frames that a VM takes beside its RAM: VMCB, maps, log, grant table, page tables. Generous; the rest stays free. */
#define DRIVER_OVERHEAD MIB(8)
#define GUEST_OVERHEAD MIB(4)

/* A boot error that names VM and line of the manifest; `text` is a literal format. */
#define refuse(config, line, text, ...) boot_fail("manifest.ini:%u: vm %s: " text, line, (config)->name, ##__VA_ARGS__)

const struct boot_module *boot_find_module(const struct boot_info *boot, const char *name)
{
    for (u32 i = 1; i < boot->module_count && i < BOOT_MAX_MODULES; i++)
        if (!strncmp(boot->module[i].name, name, BOOT_NAME_SIZE))
            return &boot->module[i];
    return NULL;
}

struct pci_device *start_find_device(const struct manifest_device *device)
{
    struct pci_device *found = device->kind == MANIFEST_DEVICE_PCI
                                   ? pci_find_address(device->bdf)
                                   : pci_find_class(device->class_code, device->class_mask);

    return found && !found->assigned && found->header_type == 0 ? found : NULL;
}

/* All of the image must fit [first, end) of the VM's memory. line: of the key that names it. */
static void check_image(const struct boot_info *boot, const struct manifest_vm *config, const char *name, u32 line,
                        u64 first, u64 end)
{
    const struct boot_module *module = boot_find_module(boot, name);
    struct elf_image elf;
    const char *why = "";

    if (!module)
        refuse(config, line, "image %s was not loaded", name);
    if (elf_parse(hpa_to_ptr(HPA(module->base)), module->size, &elf, &why) != OK)
        refuse(config, line, "image %s (%lu bytes) is damaged or truncated: %s", name, module->size, why);
    const struct elf_segment *misfit = elf_misfit(&elf, first, end);
    if (misfit)
        refuse(config, config->line_memory,
               "image %s does not fit: it needs memory at %lx..%lx, memory = %luK has room at %lx..%lx", name,
               misfit->paddr, misfit->paddr + misfit->mem_size, config->memory >> 10, first, end);
}

static void check_device(const struct manifest_vm *config)
{
    const struct manifest_device *want = &config->device;
    struct pci_device *dev = start_find_device(want);

    if (!dev && want->kind == MANIFEST_DEVICE_PCI) {
        const struct pci_device *taken = pci_find_address(want->bdf);
        refuse(config, config->line_device, "device pci:" BDF_FORMAT " %s", BDF_PARTS(want->bdf),
               !taken            ? "is not in this machine"
               : taken->assigned ? "already belongs to another driver VM"
                                 : "is a bridge");
    }
    if (!dev)
        refuse(config, config->line_device, "no free device of class %06x in this machine", want->class_code);
    if (!iommu_present() && config->dma == MANIFEST_DMA_ISOLATED)
        refuse(config, config->line_device,
               "this machine has no IOMMU, so the device could reach all memory; 'dma = unprotected' accepts that, "
               "'dma = none' is for drivers that need no DMA");
    if (dev->past_iommu && config->dma == MANIFEST_DMA_ISOLATED)
        refuse(config, config->line_device,
               "device pci:" BDF_FORMAT " is a VirtIO device without ACCESS_PLATFORM (QEMU: iommu_platform=on is "
               "missing): its DMA would go past the IOMMU to all memory",
               BDF_PARTS(dev->bdf));
    for (u32 i = 0; i < ARRAY_SIZE(dev->bar); i++)
        if (dev->bar[i].memory && dev->bar[i].size > DRIVER_BAR_MOST)
            refuse(config, config->line_device, "BAR %u has %luM of registers: a driver VM has room for %lluM", i,
                   dev->bar[i].size >> 20, DRIVER_BAR_MOST >> 20);
    dev->assigned = true; /* for the duplicates check of those that follow */
}

/* sum: what the VMs before it need. */
static void check_memory(const struct manifest_vm *config, u64 *sum)
{
    u64 free = frames_free_count * PAGE_SIZE, largest = frames_largest_run(MIB(2)) * PAGE_SIZE;
    /* A driver: its RAM, the pristine copy, what a crash left; with a spare RAM another image has its size, too. */
    bool driver = config->kind == MANIFEST_DRIVER;
    u64 need = driver ? (config->spare ? 5 : 3) * config->memory + DRIVER_OVERHEAD : config->memory + GUEST_OVERHEAD;

    if (!add_u64(*sum, need, sum) || *sum > free)
        refuse(config, config->line_memory,
               "memory = %luM does not add up: %luM are free, the VMs up to this one need %luM", config->memory >> 20,
               free >> 20, *sum >> 20);
    if (config->memory > largest)
        refuse(config, config->line_memory, "memory = %luM: the largest piece of free memory has %luM",
               config->memory >> 20, largest >> 20);
}

void plan_check(const struct boot_info *boot, const struct manifest *manifest)
{
    u64 sum = 0;

    for (u32 i = 0; i < manifest->vm_count; i++) {
        const struct manifest_vm *config = &manifest->vm[i];
        if (config->kind == MANIFEST_DRIVER) {
            u64 end = config->memory - DRIVER_STACK_MIN;
            check_image(boot, config, config->image, config->line_image, DRIVER_LOAD_ADDRESS, end);
            if (config->escalate == MANIFEST_ESCALATE_IMAGE)
                check_image(boot, config, config->fallback, config->line_fallback, DRIVER_LOAD_ADDRESS, end);
            check_device(config);
            continue;
        }
        check_image(boot, config, config->image, config->line_image, 0, config->memory);
        if (config->memory > PLATFORM_RAM_MAX)
            refuse(config, config->line_memory, "memory = %luM: a guest may have at most %luM", config->memory >> 20,
                   PLATFORM_RAM_MAX >> 20);
    }
    for (u32 i = 0; i < manifest->vm_count; i++)
        check_memory(&manifest->vm[i], &sum);
    for (u32 i = 0; i < pci_device_count; i++)
        pci_devices[i].assigned = false;
}
