/* Driver VMs: start from the pristine image, events, DMA. */
#include "hv/core/driver.h"

#include "hv/arch/x86/vendor.h"
#include "hv/control/control.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/elf.h"
#include "shared/lib/string.h"

struct driver *drivers[VM_MAX];
u32 driver_count;

/* Below DRIVER_LOAD_ADDRESS, in the VM's own RAM: it may destroy them, and then has destroyed itself. */
#define PML4_ADDRESS 0x1000ull
#define PDPT_ADDRESS 0x2000ull
#define GDT_ADDRESS 0x3000ull
#define ENTRY_TABLE 0x7ull /* present, writable, user */
#define ENTRY_1G 0x83ull   /* present, writable, large */

struct driver *driver_by_bdf(u16 bdf)
{
    for (u32 i = 0; i < driver_count; i++)
        if (drivers[i]->pci->bdf == bdf)
            return drivers[i];
    return NULL;
}

static void build_start_tables(u8 *memory)
{
    u64 *pml4 = (u64 *)(memory + PML4_ADDRESS);
    u64 *pdpt = (u64 *)(memory + PDPT_ADDRESS);
    u64 *gdt = (u64 *)(memory + GDT_ADDRESS);

    pml4[0] = PDPT_ADDRESS | ENTRY_TABLE;
    for (u64 i = 0; i < 512; i++)
        pdpt[i] = i << 30 | ENTRY_1G;
    gdt[1] = 0x00af9b000000ffffull;
    gdt[2] = 0x00cf93000000ffffull;
}

void driver_create_pristine(struct driver *driver)
{
    u64 size = driver->vm->ram_size, end = GDT_ADDRESS + PAGE_SIZE;
    struct elf_image elf;
    const char *why;

    /* Checked by plan_check(), and nobody writes loader memory since: a failure here is our own bug. */
    ASSERT_HV(elf_parse(driver->image, driver->image_size, &elf, &why) == OK);
    for (u32 i = 0; i < elf.count; i++)
        if (end < elf.segment[i].paddr + elf.segment[i].file_size)
            end = elf.segment[i].paddr + elf.segment[i].file_size;
    driver->entry = elf.entry;
    driver->pristine_size = PAGE_UP(end) + (PAGE_UP(end) & PAGE_SIZE);
    /*
     * Both copies begin at odd page numbers, where the VM's RAM begins at an even one: pages that are compared or
     * copied then never fall on one entry of a direct-mapped TLB, as QEMU's is. Measured there: 0.4 ms instead of 4 ms
     * for 1 MiB, as the time from the `reset` to the `start` event (scripts/bulkhead inject blk0 crash, then `events`
     * on the control port).
     */
    u64 room = driver->pristine_size + size + size / PAGE_SIZE + 5 * PAGE_SIZE;
    hpa_t copies = ptr_to_hpa(boot_frames(room / PAGE_SIZE, "copies of drivers"));
    driver->pristine = hpa_to_ptr(HPA(copies.v | PAGE_SIZE));
    driver->crash_memory = driver->pristine + driver->pristine_size + 2 * PAGE_SIZE;
    driver->crash_kept = driver->crash_memory + size + PAGE_SIZE;
    for (u32 i = 0; i < elf.count; i++) {
        driver->image_bytes += elf.segment[i].file_size;
        memcpy(driver->pristine + elf.segment[i].paddr, (const u8 *)driver->image + elf.segment[i].offset,
               elf.segment[i].file_size);
    }
    build_start_tables(driver->pristine);
    memset(hpa_to_ptr(driver->vm->ram), 0, size);
}

const u64 *driver_pristine_page(const struct driver *driver, u64 at)
{
    return (const u64 *)(driver->pristine + (at < driver->pristine_size ? at : driver->pristine_size));
}

/* zeros: b holds nothing else, and need not be read. Two loops, each without that question. */
static inline __attribute__((always_inline)) bool page_differs(const u64 *a, const u64 *b, bool zeros)
{
    u64 difference = 0;

    for (const u64 *end = a + PAGE_SIZE / sizeof(u64); a < end && !difference; a += 8, b += 8)
#pragma GCC unroll 8
        for (u32 i = 0; i < 8; i++)
            difference |= zeros ? a[i] : a[i] ^ b[i];
    return difference;
}

/*
 * Reading is cheaper than writing, and under emulation a store into a page of code throws its translation away. Both
 * copies in one loop: there it is three times as fast as memcpy() twice.
 */
static void restore_memory(struct driver *driver)
{
    u8 *memory = hpa_to_ptr(driver->vm->ram);

    for (u64 at = 0; at < driver->vm->ram_size; at += PAGE_SIZE) {
        u64 *page = (u64 *)(memory + at), *left = (u64 *)(driver->crash_memory + at);
        const u64 *clean = driver_pristine_page(driver, at);
        bool differs = at < driver->pristine_size ? page_differs(page, clean, false) : page_differs(page, clean, true);
        driver->crash_kept[at / PAGE_SIZE] = differs;
        for (u32 i = 0; differs && i < PAGE_SIZE / sizeof(u64); i++) {
            left[i] = page[i];
            page[i] = clean[i];
        }
    }
    memcpy(driver->crash_memory + driver->vm->ram_size, hpa_to_ptr(driver->info_page), PAGE_SIZE);
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

void driver_start(struct driver *driver)
{
    struct vm *vm = driver->vm;

    restore_memory(driver);
    fill_info(driver);
    driver->state = DRIVER_STARTING;
    driver->started = tsc_now();
    driver->entered = 0;
    driver->run_before = vm->vcpu.run_ticks;
    vendor->reset_long64(&vm->vcpu, driver->entry, vm->ram_size, PML4_ADDRESS, GDT_ADDRESS);
    vm->vcpu.regs.rdi = DRIVER_INFO_ADDRESS;
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
