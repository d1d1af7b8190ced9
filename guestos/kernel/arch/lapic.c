#include "guestos/kernel/arch/lapic.h"

#include "guestos/kernel/arch/acpi.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/paging.h"
#include "shared/x86/apic.h"

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
    return x2apic ? (u32)msr_read(MSR_X2APIC + reg / 16) : *(volatile u32 *)(mapped + reg);
}

static void write(u32 reg, u32 value)
{
    if (x2apic)
        msr_write(MSR_X2APIC + reg / 16, value);
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
    msr_write(MSR_KVM_PV_EOI, (u64)&pv_eoi_flag | KVM_MSR_ENABLED);
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
    io_out8(PIC_MASTER_MASK, 0xff);
    io_out8(PIC_SLAVE_MASK, 0xff);
}

void lapic_init(void)
{
    u64 base = msr_read(MSR_APIC_BASE);

    x2apic = (cpu_cpuid(1).ecx & CPUID_1_ECX_X2APIC) != 0;
    base |= APIC_BASE_ENABLE;
    msr_write(MSR_APIC_BASE, base);
    /* Only through the enabled xAPIC state may x2APIC be entered (SDM 3A 11.12.5). */
    if (x2apic)
        msr_write(MSR_APIC_BASE, base | APIC_BASE_EXTD);
    else
        mapped = paging_map_device(base & APIC_BASE_ADDRESS, PAGE_SIZE);
    write(APIC_TPR, 0);
    write(APIC_SPURIOUS, APIC_ENABLE | VECTOR_SPURIOUS);
    mask_legacy_pic();
    write(APIC_LVT_LINT0, APIC_MASKED);
    write(APIC_LVT_LINT1, APIC_MASKED);
    write(APIC_LVT_ERROR, APIC_MASKED);
    write(APIC_LVT_TIMER, APIC_MASKED);
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
    write(APIC_EOI, 0);
}

u32 lapic_id(void)
{
    return x2apic ? read(APIC_ID) : read(APIC_ID) >> 24;
}

const char *lapic_mode(void)
{
    return x2apic ? "x2APIC" : "xAPIC";
}

void lapic_timer_start(u32 count)
{
    write(APIC_TIMER_INITIAL, count);
}

u32 lapic_timer_remaining(void)
{
    return read(APIC_TIMER_CURRENT);
}

void lapic_timer_configure(u8 vector, bool tsc_deadline)
{
    if (tsc_deadline) {
        write(APIC_LVT_TIMER, APIC_TSC_DEADLINE | vector);
        /* The LVT write must be seen before the first deadline (SDM 3A 11.5.4.1); matters for the memory-mapped form.
         */
        __asm__ volatile("mfence" : : : "memory");
        return;
    }
    write(APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
    write(APIC_LVT_TIMER, vector);
}
