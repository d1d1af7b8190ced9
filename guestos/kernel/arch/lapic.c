#include "guestos/kernel/arch/lapic.h"

#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/paging.h"

/* Register offsets of the memory-mapped form; the MSR is MSR_X2APIC + offset / 16 (SDM 3A 11.4.1, 11.12.1). */
#define LAPIC_ID 0x20u
#define LAPIC_TPR 0x80u
#define LAPIC_EOI 0xb0u
#define LAPIC_SVR 0xf0u
#define LAPIC_LVT_TIMER 0x320u
#define LAPIC_LVT_LINT0 0x350u
#define LAPIC_LVT_LINT1 0x360u
#define LAPIC_LVT_ERROR 0x370u
#define LAPIC_TIMER_INITIAL 0x380u
#define LAPIC_TIMER_CURRENT 0x390u
#define LAPIC_TIMER_DIVIDE 0x3e0u

#define SVR_ENABLE 0x100u
#define LVT_MASKED 0x10000u
#define LVT_TSC_DEADLINE 0x40000u
#define DIVIDE_BY_1 0xbu
#define APIC_BASE_ENABLE (1ull << 11)
#define APIC_BASE_X2APIC (1ull << 10)
#define CPUID_1_ECX_X2APIC (1u << 21)
#define CPUID_1_ECX_HYPERVISOR (1u << 31)

#define PIC_MASTER_MASK 0x21u /* 8259A data sheet, OCW1 */
#define PIC_SLAVE_MASK 0xa1u
#define CPUID_KVM_SIGNATURE 0x40000000u
#define CPUID_KVM_FEATURES 0x40000001u
#define KVM_FEATURE_PV_EOI (1u << 6)
#define KVM_MSR_ENABLED 1u

static bool x2apic;
static volatile u8 *mapped;
/* Shared with the hypervisor: bit 0 set means "this interrupt needs no EOI"; whoever clears it has done the EOI. */
static u32 pv_eoi_flag;
static bool pv_eoi;

static u32 read(u32 reg)
{
    return x2apic ? (u32)cpu_read_msr(MSR_X2APIC + reg / 16) : *(volatile u32 *)(mapped + reg);
}

static void write(u32 reg, u32 value)
{
    if (x2apic)
        cpu_write_msr(MSR_X2APIC + reg / 16, value);
    else
        *(volatile u32 *)(mapped + reg) = value;
}

/* Linux, Documentation/virt/kvm/x86/cpuid.rst and msr.rst: MSR_KVM_PV_EOI_EN. */
static void enable_pv_eoi(void)
{
    if ((cpu_cpuid(1).ecx & CPUID_1_ECX_HYPERVISOR) == 0)
        return;
    struct cpuid_result r = cpu_cpuid(CPUID_KVM_SIGNATURE);
    if (r.ebx != 0x4b4d564b || r.ecx != 0x564b4d56 || r.edx != 0x4d) /* "KVMKVMKVM" */
        return;
    if ((cpu_cpuid(CPUID_KVM_FEATURES).eax & KVM_FEATURE_PV_EOI) == 0)
        return;
    cpu_write_msr(MSR_KVM_PV_EOI, (u64)&pv_eoi_flag | KVM_MSR_ENABLED);
    pv_eoi = true;
}

/*
 * Firmware may have left the 8259s on, wired to LINT0. They are masked before LINT0 is: the other way round, QEMU 7.2
 * (TCG) keeps an interrupt pending that no controller can name any more, and delivers it as #GP with error code -14.
 */
static void mask_legacy_pic(void)
{
    if (!acpi_get()->legacy_pic)
        return;
    cpu_out8(PIC_MASTER_MASK, 0xff);
    cpu_out8(PIC_SLAVE_MASK, 0xff);
}

void lapic_init(void)
{
    u64 base = cpu_read_msr(MSR_APIC_BASE);

    x2apic = (cpu_cpuid(1).ecx & CPUID_1_ECX_X2APIC) != 0;
    base |= APIC_BASE_ENABLE;
    cpu_write_msr(MSR_APIC_BASE, base);
    /* Only through the enabled xAPIC state may x2APIC be entered (SDM 3A 11.12.5). */
    if (x2apic)
        cpu_write_msr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
    else
        mapped = paging_map_device(base & 0x000ffffffffff000ull, PAGE_SIZE);
    write(LAPIC_TPR, 0);
    write(LAPIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    mask_legacy_pic();
    write(LAPIC_LVT_LINT0, LVT_MASKED);
    write(LAPIC_LVT_LINT1, LVT_MASKED);
    write(LAPIC_LVT_ERROR, LVT_MASKED);
    write(LAPIC_LVT_TIMER, LVT_MASKED);
    enable_pv_eoi();
}

void lapic_end_interrupt(void)
{
    if (pv_eoi) {
        bool done;
        /* One instruction: the hypervisor may look at the flag between any two. */
        __asm__ volatile("btrl $0, %0" : "+m"(pv_eoi_flag), "=@ccc"(done) : : "memory");
        if (done)
            return;
    }
    write(LAPIC_EOI, 0);
}

u32 lapic_id(void)
{
    return x2apic ? read(LAPIC_ID) : read(LAPIC_ID) >> 24;
}

const char *lapic_mode(void)
{
    return x2apic ? "x2APIC" : "xAPIC";
}

void lapic_timer_start(u32 count)
{
    write(LAPIC_TIMER_INITIAL, count);
}

u32 lapic_timer_remaining(void)
{
    return read(LAPIC_TIMER_CURRENT);
}

void lapic_timer_configure(u8 vector, bool tsc_deadline)
{
    if (tsc_deadline) {
        write(LAPIC_LVT_TIMER, LVT_TSC_DEADLINE | vector);
        /* The LVT write must be seen before the first deadline (SDM 3A 11.5.4.1); matters for the memory-mapped form.
         */
        __asm__ volatile("mfence" : : : "memory");
        return;
    }
    write(LAPIC_TIMER_DIVIDE, DIVIDE_BY_1);
    write(LAPIC_LVT_TIMER, vector);
}
