/* Finding the unit, its registers, its queue, and the order in which it is switched on (VT-d 11.4 GCMD_REG, 6.5.2). */
#include "hv/iommu/unit.h"

#include "hv/arch/x86/paging/paging.h"
#include "hv/core/hypervisor.h"
#include "hv/iommu/dmar.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define ANSWER_WAIT_US 1000000u /* trusted hardware: anything beyond is a dead unit */
#define CACHE_LINE 64u          /* SDM 2A CLFLUSH; 64 on every CPU with VT-d */

struct iommu_unit iommu_unit;

static struct vtd_entry *queue;
static volatile u32 *queue_done; /* the unit writes the number of the last batch here */
static u32 queue_tail, queue_batch;
static char description[112];

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
    u64 end = tsc_now() + tsc_from_us(ANSWER_WAIT_US);

    while ((unit_read32(offset) & mask) != wanted) {
        if (tsc_now() >= end)
            panic("VT-d unit at 0x%llx: register 0x%x stays 0x%x", (unsigned long long)iommu_unit.base, offset,
                  unit_read32(offset));
        __builtin_ia32_pause();
    }
}

void unit_command(u32 bit, bool on)
{
    /* The register holds levels and one-shot commands together: repeat the levels only, and never COMPATIBILITY. */
    const u32 levels = VTD_TRANSLATION | VTD_ADVANCED_FAULT | VTD_QUEUE | VTD_REMAP_INTERRUPTS;
    u32 state = unit_read32(VTD_STATUS) & levels;

    unit_write32(VTD_COMMAND, on ? state | bit : state & ~bit);
    wait_register(VTD_STATUS, bit, on && bit != VTD_WRITE_BUFFER ? bit : 0);
}

/* In a function of its own: the instruction needs a target that the rest of the image is not built for (no SSE
 * registers used). */
__attribute__((target("sse2"))) static void flush_line(const void *line)
{
    __builtin_ia32_clflush(line);
}

void unit_publish(const void *at, u64 size)
{
    if (!(iommu_unit.extended & ECAP_COHERENT))
        for (u64 line = (u64)at & ~(CACHE_LINE - 1ull); line < (u64)at + size; line += CACHE_LINE)
            flush_line((const void *)line);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* a locked instruction orders CLFLUSH (SDM 2A) */
}

static void queue_put(struct vtd_entry descriptor)
{
    queue[queue_tail] = descriptor;
    queue_tail = (queue_tail + 1) % QUEUE_ENTRIES;
}

/* The queue is empty between calls: each batch ends with a wait descriptor that this function sits out. */
void unit_invalidate(const struct vtd_entry *list, u32 count)
{
    u64 end = tsc_now() + tsc_from_us(ANSWER_WAIT_US);

    ASSERT_HV(count <= UNIT_BATCH);
    if (iommu_unit.capability & CAP_WRITE_BUFFER)
        unit_command(VTD_WRITE_BUFFER, true);
    for (u32 i = 0; i < count; i++)
        queue_put(list[i]);
    queue_batch++;
    queue_put(vtd_wait(ptr_to_hpa((const void *)queue_done), queue_batch));
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    unit_write64(VTD_QUEUE_TAIL, queue_tail * sizeof(struct vtd_entry));
    while (*queue_done != queue_batch) {
        if ((unit_read32(VTD_FAULT_STATUS) & FAULT_STATUS_QUEUE_ERRORS) || tsc_now() >= end)
            panic("VT-d unit at 0x%llx: invalidation failed, fault status 0x%x", (unsigned long long)iommu_unit.base,
                  unit_read32(VTD_FAULT_STATUS));
        __builtin_ia32_pause();
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/* What firmware left on goes off first; no device masters the bus yet (pci_enumerate), so no window opens. */
static void stop_firmware_state(void)
{
    const u32 left_on[] = {VTD_TRANSLATION, VTD_REMAP_INTERRUPTS, VTD_QUEUE};

    for (u32 i = 0; i < ARRAY_SIZE(left_on); i++)
        if (unit_read32(VTD_STATUS) & left_on[i])
            unit_command(left_on[i], false);
}

/* Protected memory regions would block DMA that the tables allow (VT-d 11.4, PMEN_REG). */
static void stop_protected_memory(void)
{
    if (!(iommu_unit.capability & (CAP_PROTECTED_LOW | CAP_PROTECTED_HIGH)))
        return;
    unit_write32(VTD_PROTECTED_MEMORY, unit_read32(VTD_PROTECTED_MEMORY) & ~PROTECTED_MEMORY_ENABLE);
    wait_register(VTD_PROTECTED_MEMORY, PROTECTED_MEMORY_STATUS, 0);
}

static status_t start_queue(void)
{
    hpa_t page, done;
    status_t status = frame_alloc(&page);

    if (status == OK)
        status = frame_alloc(&done);
    if (status != OK)
        return status;
    queue = hpa_to_ptr(page);
    queue_done = hpa_to_ptr(done);
    queue_tail = 0;
    unit_write64(VTD_QUEUE_TAIL, 0);
    unit_write64(VTD_QUEUE_ADDRESS, page.v); /* size field 0: one page, QUEUE_ENTRIES descriptors of 128 bits */
    unit_command(VTD_QUEUE, true);
    return OK;
}

static status_t map_unit(u64 base)
{
    iommu_unit = (struct iommu_unit){.base = base};
    iommu_unit.registers = paging_map_device(HPA(base), PAGE_SIZE);
    u64 cap = iommu_unit.capability = unit_read64(VTD_CAPABILITY);
    iommu_unit.extended = unit_read64(VTD_EXTENDED);

    if (!(iommu_unit.extended & ECAP_QUEUE) || !(cap & (CAP_LEVELS_3 | CAP_LEVELS_4)) || cap == ~0ull) {
        hv_log("VT-d unit at 0x%llx: no queued invalidation or no 3- or 4-level tables (0x%llx 0x%llx)",
               (unsigned long long)base, (unsigned long long)cap, (unsigned long long)iommu_unit.extended);
        return ERR_UNSUPPORTED;
    }
    iommu_unit.levels = cap & CAP_LEVELS_4 ? 4 : 3;
    u32 table_bits = iommu_unit.levels * 9 + 12;
    iommu_unit.address_bits = CAP_ADDRESS_BITS(cap) < table_bits ? CAP_ADDRESS_BITS(cap) : table_bits;

    u64 end = CAP_FAULT_OFFSET(cap) + CAP_FAULT_COUNT(cap) * FAULT_RECORD_SIZE;
    if (end > PAGE_SIZE) /* the fault records say where they are only now */
        iommu_unit.registers = paging_map_device(HPA(base), PAGE_UP(end));
    return OK;
}

static status_t find_unit(const void *dmar, u32 dmar_size, const struct dmar_unit **unit, struct dmar_info *info)
{
    const char *why;
    status_t status = dmar_parse(dmar, dmar_size, info, &why);

    if (status != OK) {
        hv_log("ACPI DMAR: %s", why);
        return status;
    }
    status = dmar_only_unit(info, unit);
    for (u32 i = 0; status != OK && i < info->unit_count; i++)
        hv_log("VT-d unit at 0x%llx, segment %u: only one unit, for all devices of segment 0, is supported",
               (unsigned long long)info->unit[i].base, info->unit[i].segment);
    for (u32 i = 0; i < info->reserved_count; i++) {
        const struct dmar_reserved *region = &info->reserved[i];
        hv_log("pci %02x:%02x.%x%s: firmware's reserved memory 0x%llx-0x%llx is not mapped for it", region->bdf >> 8,
               region->bdf >> 3 & 31, region->bdf & 7, region->behind_bridge ? " (a device behind it)" : "",
               (unsigned long long)region->base, (unsigned long long)region->limit);
    }
    return status;
}

static void describe(void)
{
    static const char *const superpages[] = {"4K only", "2M", "1G", "2M+1G"};
    u32 version = unit_read32(VTD_VERSION);

    bh_snprintf(description, sizeof(description),
                "VT-d %u.%u at 0x%llx, %u-bit, %s pages, %sinterrupt remapping, %u domains", version >> 4 & 15,
                version & 15, (unsigned long long)iommu_unit.base, iommu_unit.address_bits,
                superpages[CAP_SUPERPAGES(iommu_unit.capability)], iommu_unit.remaps_interrupts ? "" : "no ",
                1u << (4 + 2 * CAP_DOMAINS(iommu_unit.capability)));
}

status_t iommu_init(const void *dmar, u32 dmar_size, u8 fault_vector, u32 apic_id)
{
    struct dmar_info info;
    const struct dmar_unit *unit;

    if (!dmar)
        return ERR_NOT_FOUND;
    if (apic_id >= 0xff)
        return ERR_RANGE;
    status_t status = find_unit(dmar, dmar_size, &unit, &info);
    if (status == OK)
        status = map_unit(unit->base);
    if (status != OK)
        return status;

    stop_firmware_state();
    status = start_queue();
    if (status == OK)
        status = domain_init();
    if (status != OK)
        return status;
    fault_init(fault_vector, (u8)apic_id);

    /* The root table counts from SET_ROOT on; what was cached before goes, contexts first (VT-d 6.5). */
    struct vtd_entry contexts = vtd_invalidate_all_contexts();
    struct vtd_entry iotlb = vtd_invalidate_all_iotlb(iommu_unit.capability);
    unit_write64(VTD_ROOT_TABLE, domain_root_table().v);
    unit_command(VTD_SET_ROOT, true);
    unit_invalidate(&contexts, 1);
    unit_invalidate(&iotlb, 1);
    unit_command(VTD_TRANSLATION, true);
    stop_protected_memory();
    iommu_unit.present = true;

    if (info.interrupt_remapping && (iommu_unit.extended & ECAP_INTERRUPTS))
        status = interrupt_remap_init();
    describe();
    return status;
}

bool iommu_present(void)
{
    return iommu_unit.present;
}

const char *iommu_description(void)
{
    return iommu_unit.present ? description : "none";
}
