/* Finding the unit, its registers, its queue, and the order in which it is switched on (VT-d 11.4 GCMD_REG, 6.5.2). */
#include "hv/iommu/unit.h"

#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/printf.h"

#define ANSWER_WAIT_US 1000000u      /* trusted hardware: anything beyond is a dead unit */
#define CACHE_LINE 64u               /* SDM 2A CLFLUSH; 64 on every CPU with VT-d */
#define QUEUE_ENTRIES 256u           /* one page */
#define WINDOW_SIZE (5 * PAGE_SIZE)  /* fault records begin in the first 16 KiB and take one page at most */
#define FAULT_STATUS_QUEUE (7u << 4) /* queue error, completion error, time-out error */
#define PROTECTED_ENABLE (1u << 31)
#define PROTECTED_STATUS (1u << 0)
#define TABLE_BITS 48u /* of PAGE_TABLE_REACH */

struct iommu_unit iommu_unit;

static struct vtd_entry *queue;
static volatile u32 *queue_done; /* the unit writes the number of the last wait descriptor here */
static u32 queue_tail, queue_number;

u32 unit_read32(u32 offset)
{
    return *(volatile u32 *)(iommu_unit.registers + offset);
}

u64 unit_read64(u32 offset)
{
    return *(volatile u64 *)(iommu_unit.registers + offset);
}

void unit_write32(u32 offset, u32 value)
{
    *(volatile u32 *)(iommu_unit.registers + offset) = value;
}

void unit_write64(u32 offset, u64 value)
{
    *(volatile u64 *)(iommu_unit.registers + offset) = value;
}

static void wait_register(u32 offset, u32 mask, u32 wanted)
{
    if (!WAIT_UNTIL((unit_read32(offset) & mask) == wanted, ANSWER_WAIT_US))
        panic("VT-d unit at 0x%lx: register 0x%x stays 0x%x", iommu_unit.base, offset, unit_read32(offset));
}

void unit_command(u32 bit, bool on)
{
    /* The register holds levels and one-shot commands together: repeat the levels only, and never COMPATIBILITY. */
    const u32 levels = VTD_TRANSLATION | VTD_QUEUE | VTD_REMAP_INTERRUPTS;
    u32 state = unit_read32(VTD_STATUS) & levels;

    unit_write32(VTD_COMMAND, on ? state | bit : state & ~bit);
    wait_register(VTD_STATUS, bit, on ? bit : 0);
}

void unit_publish(const void *at, u64 size)
{
    if (!(iommu_unit.extended & ECAP_COHERENT))
        for (u64 line = (u64)at & ~(CACHE_LINE - 1ull); line < (u64)at + size; line += CACHE_LINE)
            __asm__ volatile("clflush %0" : : "m"(*(const char *)line) : "memory");
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* a locked instruction orders CLFLUSH (SDM 2A) */
}

/* The queue is empty between calls: each descriptor is followed by one to wait for, and that is sat out. */
void unit_invalidate(struct vtd_entry descriptor)
{
    queue[queue_tail] = descriptor;
    queue[queue_tail + 1] = vtd_wait(ptr_to_hpa((const void *)queue_done), ++queue_number);
    queue_tail = (queue_tail + 2) % QUEUE_ENTRIES;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    unit_write64(VTD_QUEUE_TAIL, queue_tail * sizeof(struct vtd_entry));
    (void)WAIT_UNTIL(*queue_done == queue_number || (unit_read32(VTD_FAULT_STATUS) & FAULT_STATUS_QUEUE),
                     ANSWER_WAIT_US);
    if (*queue_done != queue_number)
        panic("VT-d unit at 0x%lx: invalidation failed, fault status 0x%x", iommu_unit.base,
              unit_read32(VTD_FAULT_STATUS));
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static void queue_start(void)
{
    queue = boot_frames(1, "the VT-d queue");
    queue_done = boot_frames(1, "the VT-d queue");
    queue_tail = 0;
    unit_write64(VTD_QUEUE_TAIL, 0);
    unit_write64(VTD_QUEUE_ADDRESS, ptr_to_hpa(queue).v); /* size field 0: one page of descriptors of 128 bits */
    unit_command(VTD_QUEUE, true);
}

static status_t map_unit(u64 base)
{
    iommu_unit = (struct iommu_unit){.base = base, .registers = paging_map_device(HPA(base), WINDOW_SIZE)};
    u64 cap = iommu_unit.capability = unit_read64(VTD_CAPABILITY);
    u64 ecap = iommu_unit.extended = unit_read64(VTD_EXTENDED);

    /* All units since 2010 pass. Where nothing answers, all bits are ones: a write buffer to be flushed, too. */
    if (!(ecap & ECAP_QUEUE) || !(cap & CAP_PAGE_SELECTIVE) || !(cap & CAP_LEVELS_4) || (cap & CAP_WRITE_BUFFER) ||
        CAP_DOMAINS(cap) <= IOMMU_MAX_DOMAINS) {
        hv_log("VT-d unit at 0x%lx: lacks queued or page-selective invalidation, tables for 48 bits or domains, "
               "or has a write buffer (0x%lx 0x%lx)",
               base, cap, ecap);
        return ERR_UNSUPPORTED;
    }
    iommu_unit.address_bits = CAP_ADDRESS_BITS(cap) < TABLE_BITS ? CAP_ADDRESS_BITS(cap) : TABLE_BITS;
    iommu_unit.present = true;
    return OK;
}

static status_t find_unit(const void *dmar, u32 dmar_size, struct dmar_info *info)
{
    const char *flaw = dmar_parse(dmar, dmar_size, info);

    if (flaw) {
        hv_log("ACPI DMAR: %s", flaw);
        return ERR_FORMAT;
    }
    if (info->unit_count == 0)
        return ERR_NOT_FOUND;
    if (info->unit_count == 1 && info->unit_segment == 0)
        return map_unit(info->unit_base);
    hv_log("VT-d: %u units, the last at 0x%lx for segment %u: only one, for all devices of segment 0, is supported",
           info->unit_count, info->unit_base, info->unit_segment);
    return ERR_UNSUPPORTED;
}

status_t iommu_init(const void *dmar, u32 dmar_size, u8 fault_vector, u32 apic_id)
{
    struct dmar_info info;

    if (!dmar)
        return ERR_NOT_FOUND;
    if (apic_id >= 0xff)
        return ERR_RANGE;
    status_t status = find_unit(dmar, dmar_size, &info);
    if (status != OK)
        return status;

    /* What firmware left on goes off first; no device masters the bus yet (pci_enumerate), so no window opens. */
    unit_command(VTD_TRANSLATION, false);
    unit_command(VTD_REMAP_INTERRUPTS, false);
    unit_command(VTD_QUEUE, false);
    queue_start();
    domain_init();
    fault_init(fault_vector, (u8)apic_id);
    unit_command(VTD_TRANSLATION, true);

    /* Firmware's protected memory regions would block DMA that the tables allow (VT-d 11.4, PMEN_REG). */
    if (iommu_unit.capability & CAP_PROTECTED_MEMORY) {
        unit_write32(VTD_PROTECTED_MEMORY, unit_read32(VTD_PROTECTED_MEMORY) & ~PROTECTED_ENABLE);
        wait_register(VTD_PROTECTED_MEMORY, PROTECTED_STATUS, 0);
    }
    if (info.interrupt_remapping && (iommu_unit.extended & ECAP_INTERRUPTS))
        interrupt_remap_init(&info);
    return OK;
}

bool iommu_present(void)
{
    return iommu_unit.present;
}

const char *iommu_description(void)
{
    static const char *const superpages[] = {"4K only", "2M", "1G", "2M+1G"};
    static char text[112];
    u64 cap = iommu_unit.capability;

    if (!iommu_unit.present)
        return "none";
    bh_snprintf(text, sizeof(text), "VT-d at 0x%lx, %u-bit, %s pages, %sinterrupt remapping, %u domains",
                iommu_unit.base, iommu_unit.address_bits, superpages[CAP_SUPERPAGES(cap)],
                iommu_unit.remaps_interrupts ? "" : "no ", CAP_DOMAINS(cap));
    return text;
}
