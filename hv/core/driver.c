/* Driver VMs: start, events, DMA. */
#include "hv/core/driver.h"

#include "hv/arch/x86/vendor.h"
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

struct driver *drivers[VM_MAX];
u32 driver_count;

struct driver *driver_by_bdf(u16 bdf)
{
    for (u32 i = 0; i < driver_count; i++)
        if (drivers[i]->pci->bdf == bdf)
            return drivers[i];
    return NULL;
}

static void fill_info(struct driver *driver)
{
    struct driver_info *info = hpa_to_ptr(driver->info_page);

    *info = (struct driver_info){.abi_version = DRIVER_ABI_VERSION,
                                 .vendor_call = vendor->hypercall_kind,
                                 .generation = driver->generation,
                                 .queue_count = RING_MAX_QUEUES,
                                 .ram_size = driver->vm->ram_size,
                                 .tsc_khz = tsc_khz,
                                 .window_size = main_guest->ram_size,
                                 .interrupts = driver->irq_vector ? 1 : 0,
                                 .stash_length = driver->stash_length,
                                 .pci_bdf = driver->pci->bdf,
                                 .pci_vendor = driver->pci->vendor,
                                 .pci_device = driver->pci->device,
                                 .pci_class = driver->pci->class_code};
    if (!driver->domain && driver->config->dma == MANIFEST_DMA_UNPROTECTED) { /* the device sees host addresses */
        info->dma_ram_offset = driver->vm->ram.v;
        info->dma_window_offset = main_guest->ram.v - DRIVER_WINDOW_BASE;
    }
    str_copy(info->name, sizeof(info->name), driver->vm->name);
    for (u32 i = 0; i < 6; i++) {
        const struct pci_bar *bar = &driver->pci->bar[i];
        if (bar->size)
            info->bar[i] = (struct driver_bar){.address = driver_bar_address(driver->pci, i),
                                               .size = bar->size,
                                               .kind = bar->memory ? DRIVER_BAR_MEMORY : DRIVER_BAR_PORTS};
    }
}

/*
 * The RAM that was prepared becomes the VM's, for its CPU and its device, and the dead one's is the next to be
 * prepared. Its place in both tables is the same, so that they need no frame. The device is blocked, and what its
 * domain's IOTLB held went with that; the vCPU is reset, which flushes its nested translations before the next entry.
 */
static void exchange_memory(struct driver *driver)
{
    struct vm *vm = driver->vm;
    struct iommu_domain *domain = driver->domain;
    hpa_t dead = vm->ram;

    vm->ram = driver->next_ram;
    driver->next_ram = dead;
    driver->next_clean = 0;
    ASSERT_HV(page_table_unmap(&vm->npt, 0, vm->ram_size) == OK &&
              page_table_map(&vm->npt, 0, vm->ram, vm->ram_size, PAGE_READ | PAGE_WRITE | PAGE_EXECUTE) == OK);
    if (!domain)
        return;
    ASSERT_HV(iommu_unmap(domain, IOVA(0), vm->ram_size) == OK &&
              iommu_map(domain, IOVA(0), vm->ram, vm->ram_size, PAGE_READ | PAGE_WRITE) == OK);
    iommu_flush_pages(domain, IOVA(0), vm->ram_size / PAGE_SIZE);
}

void driver_start(struct driver *driver)
{
    struct vm *vm = driver->vm;
    const struct vcpu_start start = {
        .long64 = true, .entry = driver->image.entry, .cr3 = DRIVER_PML4_ADDRESS, .gdt = DRIVER_GDT_ADDRESS};

    /* Nothing is prepared where it was all the last one's, nor from another image. */
    if (!driver->config->spare || driver->image.memory != driver->running.memory)
        driver->next_clean = 0;
    driver->running = driver->image;
    driver_restore_memory(driver, vm->ram_size);
    memcpy(driver->crash_memory + vm->ram_size, hpa_to_ptr(driver->info_page), PAGE_SIZE);
    if (driver->config->spare)
        exchange_memory(driver);
    fill_info(driver);
    driver->state = DRIVER_STARTING;
    driver->started = tsc_now();
    driver->entered = 0;
    driver->run_before = vm->vcpu.run_ticks;
    vendor->reset(&vm->vcpu, &start);
    vm->vcpu.regs = driver->running.regs;
    vm->vcpu.state = VCPU_BLOCKED;
    vcpu_wake(&vm->vcpu);
    event_add(EVENT_START, vm->id, "started, generation %u", driver->generation);
}

void driver_signal(struct driver *driver, u32 events)
{
    struct driver_events *page = hpa_to_ptr(driver->events_page);

    __atomic_fetch_or(&page->pending, events, __ATOMIC_RELEASE);
    if (driver->waiting)
        vcpu_wake(&driver->vm->vcpu);
}

status_t driver_enable_dma(struct driver *driver)
{
    if (driver->state != DRIVER_STARTING && driver->state != DRIVER_RUNNING)
        return ERR_STATE;
    if (driver->config->dma == MANIFEST_DMA_NONE || (!driver->domain && driver->config->dma == MANIFEST_DMA_ISOLATED))
        return ERR_DENIED;
    /* What was recorded until now was the predecessor's DMA, refused by the blocking domain: an event, no fault. */
    bool overflow;
    if (driver->domain && iommu_is_blocked(driver->pci->bdf))
        iommu_drain_faults(recovery_iommu_fault, &overflow);
    status_t status = driver->domain ? iommu_attach(driver->pci->bdf, driver->domain) : OK;
    if (status == OK)
        pci_set_bus_master(driver->pci, true);
    return status;
}
