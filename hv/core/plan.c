/* Everything that can be wrong between manifest and machine, before anything is started. */
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/start.h"
#include "hv/platform/platform.h"
#include "shared/lib/checked.h"
#include "shared/lib/elf.h"
#include "shared/lib/string.h"

#define FILE_NAME "manifest.ini"
#define DRIVER_STACK_MIN KIB(16)

/* Frames that a VM takes beside its RAM: VMCB, maps, log, grant table, page tables. Generous; the rest stays free. */
#define DRIVER_OVERHEAD MIB(8)
#define GUEST_OVERHEAD MIB(4)

const struct boot_module *boot_find_module(const struct boot_info *boot, const char *name)
{
    for (u32 i = 1; i < boot->module_count && i < BOOT_MAX_MODULES; i++)
        if (!strncmp(boot->module[i].name, name, BOOT_NAME_SIZE))
            return &boot->module[i];
    return NULL;
}

struct pci_device *start_find_device(const struct manifest_device *device)
{
    struct pci_device *found = NULL;

    if (device->kind == MANIFEST_DEVICE_PCI)
        found = pci_find_address(device->bdf);
    else if (device->kind == MANIFEST_DEVICE_CLASS)
        found = pci_find_class(device->class_code, device->class_mask);
    return found && !found->assigned && found->header_type == 0 ? found : NULL;
}

static const struct boot_module *check_image(const struct boot_info *boot, const struct manifest_vm *config,
                                             struct elf_image *elf)
{
    const struct boot_module *module = boot_find_module(boot, config->image);
    const char *why = "";

    if (!module)
        boot_fail(FILE_NAME ":%u: vm %s: image %s was not loaded", config->line_image, config->name, config->image);
    if (elf_parse(hpa_to_ptr(HPA(module->base)), module->size, elf, &why) != OK)
        boot_fail(FILE_NAME ":%u: vm %s: image %s (%llu bytes) is damaged or truncated: %s", config->line_image, config->name,
                  config->image, (unsigned long long)module->size, why);
    return module;
}

static void check_driver_image(const struct boot_info *boot, const struct manifest_vm *config)
{
    struct elf_image elf;

    check_image(boot, config, &elf);
    for (u32 i = 0; i < elf.count; i++)
        if (!range_inside(elf.segment[i].paddr, elf.segment[i].mem_size, DRIVER_LOAD_ADDRESS,
                          config->memory - DRIVER_LOAD_ADDRESS - DRIVER_STACK_MIN))
            boot_fail(FILE_NAME ":%u: vm %s: image %s needs memory at %llx..%llx, beyond memory = %lluK less the stack",
                      config->line_memory, config->name, config->image, (unsigned long long)elf.segment[i].paddr,
                      (unsigned long long)(elf.segment[i].paddr + elf.segment[i].mem_size),
                      (unsigned long long)(config->memory >> 10));
}

static void check_guest(const struct boot_info *boot, const struct manifest_vm *config)
{
    struct elf_image elf;

    check_image(boot, config, &elf);
    if (config->memory > PLATFORM_MMIO_BASE)
        boot_fail(FILE_NAME ":%u: vm %s: memory = %lluM: a guest may have at most %lluM", config->line_memory, config->name,
                  (unsigned long long)(config->memory >> 20), (unsigned long long)(PLATFORM_MMIO_BASE >> 20));
    for (u32 i = 0; i < elf.count; i++)
        if (!range_inside(elf.segment[i].paddr, elf.segment[i].mem_size, 0, config->memory))
            boot_fail(FILE_NAME ":%u: vm %s: image %s does not fit: it needs memory up to %lluM, memory = %lluM",
                      config->line_memory, config->name, config->image,
                      (unsigned long long)((elf.segment[i].paddr + elf.segment[i].mem_size + MIB(1) - 1) >> 20),
                      (unsigned long long)(config->memory >> 20));
}

/* A BAR smaller than a page shares it with whatever lies beside it: that must not be another device. */
static const struct pci_device *bar_neighbour(const struct pci_device *dev)
{
    for (u32 i = 0; i < 6; i++) {
        const struct pci_bar *bar = &dev->bar[i];
        if (!bar->size || !bar->memory)
            continue;
        u64 first = PAGE_DOWN(bar->address), bytes = PAGE_UP(bar->address + bar->size) - first;
        for (u32 d = 0; d < pci_device_count; d++)
            for (u32 b = 0; b < 6 && &pci_devices[d] != dev; b++)
                if (pci_devices[d].bar[b].size && pci_devices[d].bar[b].memory &&
                    ranges_overlap(first, bytes, pci_devices[d].bar[b].address, pci_devices[d].bar[b].size))
                    return &pci_devices[d];
    }
    return NULL;
}

static void check_device(const struct manifest_vm *config)
{
    struct pci_device *dev = start_find_device(&config->device);
    const struct manifest_device *want = &config->device;
    const struct pci_device *neighbour;

    if (!dev && want->kind == MANIFEST_DEVICE_PCI) {
        struct pci_device *taken = pci_find_address(want->bdf);
        boot_fail(FILE_NAME ":%u: vm %s: device pci:%02x:%02x.%x %s", config->line_device, config->name, want->bdf >> 8,
                  want->bdf >> 3 & 31, want->bdf & 7,
                  !taken            ? "is not in this machine"
                  : taken->assigned ? "already belongs to another driver VM"
                                    : "is a bridge");
    }
    if (!dev)
        boot_fail(FILE_NAME ":%u: vm %s: no free device of class %06x in this machine", config->line_device, config->name,
                  want->class_code);
    neighbour = bar_neighbour(dev);
    if (neighbour)
        boot_fail(FILE_NAME ":%u: vm %s: a page of the device's registers also holds registers of %02x:%02x.%x",
                  config->line_device, config->name, neighbour->bdf >> 8, neighbour->bdf >> 3 & 31, neighbour->bdf & 7);
    if (!iommu_present() && !config->dma_unprotected)
        boot_fail(FILE_NAME ":%u: vm %s: this machine has no IOMMU, so the device could reach all memory; "
                            "'dma = unprotected' accepts that",
                  config->line_device, config->name);
    dev->assigned = true; /* for the duplicates check of those that follow */
}

static void check_memory(const struct manifest *manifest)
{
    u64 free = frames_free_count() * PAGE_SIZE, sum = 0;

    for (u32 i = 0; i < manifest->vm_count; i++) {
        const struct manifest_vm *config = &manifest->vm[i];
        bool driver = config->kind == MANIFEST_DRIVER; /* twice: its RAM and the pristine copy */
        u64 need = driver ? 2 * config->memory + DRIVER_OVERHEAD : config->memory + GUEST_OVERHEAD;
        if (!add_u64(sum, need, &sum) || sum > free)
            boot_fail(FILE_NAME ":%u: vm %s: memory = %lluM does not add up: %lluM are free, the VMs up to this one need %lluM",
                      config->line_memory, config->name, (unsigned long long)(config->memory >> 20),
                      (unsigned long long)(free >> 20), (unsigned long long)(sum >> 20));
        if (config->memory > frames_largest_run(MIB(2)) * PAGE_SIZE)
            boot_fail(FILE_NAME ":%u: vm %s: memory = %lluM: the largest piece of free memory has %lluM", config->line_memory,
                      config->name, (unsigned long long)(config->memory >> 20),
                      (unsigned long long)(frames_largest_run(MIB(2)) * PAGE_SIZE >> 20));
    }
}

void plan_check(const struct boot_info *boot, const struct manifest *manifest)
{
    for (u32 i = 0; i < manifest->vm_count; i++) {
        const struct manifest_vm *config = &manifest->vm[i];
        if (config->kind == MANIFEST_GUEST) {
            check_guest(boot, config);
            continue;
        }
        check_driver_image(boot, config);
        check_device(config);
    }
    check_memory(manifest);
    for (u32 i = 0; i < pci_device_count; i++)
        pci_devices[i].assigned = false;
}
