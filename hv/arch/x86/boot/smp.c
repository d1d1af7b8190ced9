/* Start-up of the other CPUs. */
#include "hv/arch/x86/boot/smp.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/interrupts.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/paging/paging.h"
#include "hv/arch/x86/vendor.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

#define ARRIVAL_MAX_US 100000u

extern const char trampoline_start[], trampoline_end[];
extern const u64 trampoline_cr3, trampoline_stack, trampoline_entry;

static struct cpu *starting; /* waited for; taken by the CPU that arrives, or back when it does not come */
static void (*run_loop)(void);

static void cpu_arrived(void)
{
    struct cpu *cpu = __atomic_exchange_n(&starting, NULL, __ATOMIC_ACQ_REL);

    while (!cpu) /* too late: the others go on without it */
        __asm__ volatile("cli; hlt");
    cpu_init(cpu);
    apic_init_cpu();
    vcpu_vendor_init(cpu);
    /* Only now does the boot CPU go on: until then it allocates no frames and writes no log. */
    __atomic_store_n(&cpu->online, true, __ATOMIC_RELEASE);
    run_loop();
}

/* A free page below 1 MiB: the SIPI vector names a page number of eight bits. Page 0 is left alone. */
static u64 low_page(const struct boot_info *boot)
{
    for (u32 i = 0; i < boot->memory_count; i++) {
        const struct boot_memory *m = &boot->memory[i];
        u64 page = m->base ? m->base : PAGE_SIZE;
        if (m->kind == BOOT_MEMORY_FREE && page + PAGE_SIZE <= m->base + m->size && page + PAGE_SIZE <= MIB(1))
            return page;
    }
    return 0;
}

static void patch(u8 *copy, const u64 *field, u64 value)
{
    memcpy(copy + ((const char *)field - trampoline_start), &value, sizeof(value));
}

static status_t start_one(struct cpu *cpu, u64 page)
{
    u8 *copy = hpa_to_ptr(HPA(page));
    status_t status = paging_create_stack(cpu->id, &cpu->stack_top);

    if (status != OK)
        return status;
    memcpy(copy, trampoline_start, (size_t)(trampoline_end - trampoline_start));
    patch(copy, &trampoline_cr3, paging_root());
    patch(copy, &trampoline_stack, (u64)cpu->stack_top);
    patch(copy, &trampoline_entry, (u64)cpu_arrived);
    __atomic_store_n(&starting, cpu, __ATOMIC_RELEASE);
    apic_start_cpu(cpu->apic_id, (u8)(page / PAGE_SIZE));

    (void)WAIT_UNTIL(!__atomic_load_n(&starting, __ATOMIC_ACQUIRE), ARRIVAL_MAX_US);
    if (__atomic_exchange_n(&starting, NULL, __ATOMIC_ACQ_REL))
        return ERR_TIMEOUT;
    while (!__atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE))
        cpu_pause();
    return OK;
}

status_t smp_start(const struct acpi_info *acpi, const struct boot_info *boot, void (*run)(void))
{
    u64 page = low_page(boot);
    status_t status;

    run_loop = run;
    if (!page || acpi->cpu_count < 2)
        return OK;
    status = paging_map_trampoline(HPA(page));
    for (u32 i = 0; status == OK && i < acpi->cpu_count && cpu_count < CPU_MAX; i++) {
        if (acpi->cpu_apic_id[i] == apic_id())
            continue;
        struct cpu *cpu = &cpus[cpu_count];
        cpu->id = cpu_count;
        cpu->apic_id = acpi->cpu_apic_id[i];
        status = start_one(cpu, page);
        cpu_count += status == OK;
    }
    if (status == ERR_TIMEOUT) {
        /* It may still come, over the trampoline: that stays as it is, so no other CPU is started. */
        hv_log("CPU with APIC id %u does not start; going on with %u", cpus[cpu_count].apic_id, cpu_count);
        return OK;
    }
    paging_unmap_trampoline(HPA(page));
    return status;
}
