/* VMs come to life. What can be wrong was found by plan.c; an error here is out of memory or our own. */
#include "hv/core/start.h"

#include "hv/arch/x86/vendor.h"
#include "hv/control/control.h"
#include "hv/core/cpu.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/schedule.h"
#include "hv/platform/platform.h"
#include "hv/relay/relay.h"

static struct vm vm_pool[VM_MAX];
static struct driver driver_pool[VM_MAX];
static bool guest_started;

static void must(status_t status, const struct vm *vm, const char *what)
{
    if (status != OK)
        boot_fail("vm %s: %s: %s", vm->name, what, status_text(status));
}

static struct vm *create_vm(const struct manifest_vm *config, struct driver *driver)
{
    struct vm *vm = &vm_pool[vm_count];

    vm->id = vm_count;
    vm->name = config->name;
    vm->config = config;
    vm->driver = driver;
    vm->ram_size = config->memory;
    must(frames_alloc(vm->ram_size / PAGE_SIZE, MIB(2), &vm->ram), vm, "memory");
    must(page_table_create(&vm->npt, vendor->nested_format), vm, "nested page table");
    must(page_table_map(&vm->npt, 0, vm->ram, vm->ram_size, PAGE_READ | PAGE_WRITE | PAGE_EXECUTE), vm, "memory map");
    if (!driver)
        main_guest = vm;
    vm->vcpu.vm = vm;
    vm->vcpu.cpu = schedule_home(vm);
    must(vendor->create(&vm->vcpu), vm, "virtual CPU");
    vms[vm_count++] = vm;
    return vm;
}

static void map_page(struct driver *driver, u64 at, hpa_t *page, u32 rights)
{
    *page = ptr_to_hpa(boot_frames(1, "contract pages"));
    must(page_table_map(&driver->vm->npt, at, *page, PAGE_SIZE, rights), driver->vm, "contract page");
}

static void assign_device(struct driver *driver)
{
    struct vm *vm = driver->vm;

    driver->pci = start_find_device(&driver->config->device);
    ASSERT_HV(driver->pci);
    driver->pci->assigned = true;
    if (driver->config->dma == MANIFEST_DMA_NONE)
        pci_withhold_dma(driver->pci);
    must(driver_map_bars(driver), vm, "device registers");
    driver->isolation = driver->config->dma == MANIFEST_DMA_NONE ? "no DMA" : "UNPROTECTED DMA";
    if (iommu_present() && driver->config->dma != MANIFEST_DMA_NONE && !driver->pci->past_iommu) {
        must(iommu_domain_create(&driver->domain), vm, "DMA domain");
        must(iommu_map(driver->domain, IOVA(0), vm->ram, vm->ram_size, PAGE_READ | PAGE_WRITE), vm, "DMA domain");
        driver->isolation = "iommu";
    }
    driver_interrupt_assign(driver);
}

static void create_driver(const struct boot_info *boot, const struct manifest_vm *config)
{
    struct driver *driver = &driver_pool[driver_count];
    u64 frames = frames_free_count;
    struct vm *vm = create_vm(config, driver);
    const struct boot_module *module = boot_find_module(boot, config->image);
    const char *why;

    driver->vm = vm;
    driver->config = config;
    driver->fallback = boot_find_module(boot, config->fallback);
    map_page(driver, DRIVER_INFO_ADDRESS, &driver->info_page, PAGE_READ);
    map_page(driver, DRIVER_EVENTS_ADDRESS, &driver->events_page, PAGE_READ);
    map_page(driver, DRIVER_STASH_ADDRESS, &driver->stash_page, PAGE_READ | PAGE_WRITE);
    driver->next_ram = vm->ram;
    if (config->spare)
        must(frames_alloc(vm->ram_size / PAGE_SIZE, MIB(2), &driver->next_ram), vm, "memory for a spare");
    must(driver_load(driver, hpa_to_ptr(HPA(module->base)), module->size, "manifest", &why), vm, "image");
    driver_create_crash(driver);
    assign_device(driver);
    must(relay_create(driver, &driver->relay), vm, "relay");
    driver->frames = frames - frames_free_count - driver_table_frames(driver);
    drivers[driver_count++] = driver;
    hv_log("%s: %s drives " BDF_FORMAT " [%04x:%04x class %06x], isolation %s, interrupts %s, reset %s, grants %s",
           vm->name, config->image, BDF_PARTS(driver->pci->bdf), driver->pci->vendor, driver->pci->device,
           driver->pci->class_code, driver->isolation, driver_interrupt_name[driver->interrupt],
           pci_reset_name[pci_reset_kind(driver->pci)], config->grants == MANIFEST_GRANTS_STRICT ? "strict" : "sticky");
    if (config->dma == MANIFEST_DMA_UNPROTECTED && !driver->domain)
        hv_log("WARNING: %s: UNPROTECTED DMA: its device can read and write all memory", vm->name);
}

static void create_guest(const struct boot_info *boot, const struct manifest_vm *config)
{
    struct vm *vm = create_vm(config, NULL);
    const struct boot_module *module = boot_find_module(boot, config->image);
    const char *why = "";

    if (platform_create(vm, hpa_to_ptr(HPA(module->base)), module->size, &why) != OK)
        boot_fail("manifest.ini:%u: vm %s: image %s: %s", config->line_image, vm->name, config->image, why);
    vm->vcpu.state = VCPU_STOPPED; /* until its devices are there */
    control_init_guest();
}

void start_vms(const struct boot_info *boot, const struct manifest *manifest)
{
    /* The guest first: relays need to know its memory. */
    for (u32 i = 0; i < manifest->vm_count; i++)
        if (manifest->vm[i].kind == MANIFEST_GUEST)
            create_guest(boot, &manifest->vm[i]);
    for (u32 i = 0; i < manifest->vm_count; i++)
        if (manifest->vm[i].kind == MANIFEST_DRIVER)
            create_driver(boot, &manifest->vm[i]);
}

void start_guest_when_ready(void)
{
    if (guest_started)
        return;
    for (u32 i = 0; i < driver_count; i++)
        if (drivers[i]->state != DRIVER_RUNNING && drivers[i]->state != DRIVER_FAILED)
            return;
    guest_started = true;
    hv_log("%s starts: %s, %luM, CPU %u", main_guest->name, main_guest->config->image, main_guest->ram_size >> 20,
           main_guest->vcpu.cpu);
    main_guest->vcpu.state = VCPU_BLOCKED;
    vcpu_wake(&main_guest->vcpu);
}
