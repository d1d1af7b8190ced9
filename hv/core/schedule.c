/* The run loop of each CPU. */
#include "hv/core/schedule.h"

#include "hv/arch/x86/cpu/apic.h"
#include "hv/arch/x86/cpu/interrupts.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vendor.h"
#include "hv/control/console.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/start.h"
#include "hv/exit/dispatch.h"
#include "hv/exit/hypercall.h"
#include "hv/iommu/iommu.h"
#include "hv/platform/platform.h"

u32 schedule_home(const struct vm *vm)
{
    if (cpu_count < 2)
        return 0;
    return vm == main_guest ? cpu_count - 1 : vm->id % (cpu_count - 1);
}

static void console_poll(void)
{
    static bool held;
    static u8 byte;

    for (u32 i = 0; i < 64 && (held || console_get(&byte)); i++) {
        held = !platform_console_input(main_guest, byte);
        if (held)
            return; /* the guest's FIFO is full: the byte waits here, the rest in the UART */
    }
}

static void drain_iommu_faults(void)
{
    static bool more; /* the unit does not interrupt again for what a drain that was cut short has left */
    bool overflow;

    if (!interrupt_take(this_cpu(), VECTOR_IOMMU) && !more)
        return;
    more = iommu_drain_faults(recovery_iommu_fault, &overflow) >= IOMMU_DRAIN_MAX;
    if (overflow)
        event_add(EVENT_IOMMU_FAULT, EVENT_NO_VM, "more DMA faults came than the unit records");
}

/* Time-driven work for the whole machine, on the first CPU. True: come back soon. */
static bool tick(void)
{
    console_poll();
    platform_tick(main_guest);
    start_guest_when_ready();
    return control_poll();
}

static void serve_driver(struct cpu *cpu, struct driver *driver, u64 now, bool ticks)
{
    if (inject_interrupt(driver, driver->irq_vector && interrupt_take(cpu, (u8)driver->irq_vector))) {
        driver->device_interrupts++;
        driver_signal(driver, DRIVER_EVENT_INTERRUPT);
    }
    if (ticks)
        recovery_tick(driver, now);
    if (recovery_due(driver, now))
        recovery_run(driver);
}

/* What interrupts and time have brought. Lock held. */
static void take_events(struct cpu *cpu)
{
    u64 now = tsc_now();
    bool ticks = now >= cpu->next_tick;

    if (interrupt_take(cpu, VECTOR_TIMER))
        cpu->timer_armed = ~0ull;
    interrupt_take(cpu, VECTOR_KICK);
    drain_iommu_faults();
    if (ticks) {
        cpu->ticks++;
        cpu->next_tick = now + tsc_from_us(cpu->id == 0 && tick() ? TICK_INPUT_US : TICK_US);
    }
    if (main_guest->vcpu.cpu == cpu->id && now >= platform_timer_deadline(main_guest))
        platform_timer_expire(main_guest, now);
    for (u32 i = 0; i < driver_count; i++)
        if (drivers[i]->vm->vcpu.cpu == cpu->id)
            serve_driver(cpu, drivers[i], now, ticks);
}

/* Out of guest mode, where the vCPU goes, or out of idleness (NULL), when there is work again. */
static void arm_timer(struct cpu *cpu, struct vcpu *vcpu)
{
    u64 deadline = cpu->next_tick;

    if (main_guest->vcpu.cpu == cpu->id && platform_timer_deadline(main_guest) < deadline)
        deadline = platform_timer_deadline(main_guest);
    /* What the APIC's timer was set to for idleness stays: it costs one exit. */
    if ((vcpu && vendor->set_deadline && vendor->set_deadline(vcpu, deadline)) || deadline == cpu->timer_armed)
        return;
    cpu->timer_armed = deadline;
    /* QEMU's TCG, which has no such timer, may forget an interrupt, and a guest that spins would then run for ever: one
     * that is armed at each entry anew may as well ask again (docs/decisions/014). */
    apic_timer_arm(deadline, vendor->set_deadline == NULL);
}

static struct vcpu *pick_driver(struct cpu *cpu)
{
    for (u32 i = 0; i < driver_count; i++) {
        u32 n = (cpu->next_driver + i) % driver_count;
        struct vcpu *vcpu = &drivers[n]->vm->vcpu;
        if (vcpu->cpu == cpu->id && vcpu->state == VCPU_RUNNABLE) {
            cpu->next_driver = n + 1;
            return vcpu;
        }
    }
    return NULL;
}

static struct vcpu *pick(struct cpu *cpu)
{
    struct vcpu *guest = &main_guest->vcpu;
    struct vcpu *driver = pick_driver(cpu);

    if (guest->cpu != cpu->id || guest->state != VCPU_RUNNABLE)
        return driver;
    if (!driver || (cpu->guest_waits && tsc_now() - cpu->guest_waits > tsc_from_us(GUEST_PATIENCE_US))) {
        cpu->guest_waits = 0;
        return guest;
    }
    if (!cpu->guest_waits)
        cpu->guest_waits = tsc_now();
    return driver;
}

/* Give the CPU's vector state to this vCPU; the hypervisor itself never uses it. */
static void load_fpu(struct cpu *cpu, struct vcpu *vcpu)
{
    if (cpu->loaded == vcpu)
        return;
    if (cpu->loaded)
        __asm__ volatile("fxsave64 (%0)" ::"r"(cpu->loaded->fpu) : "memory");
    __asm__ volatile("fxrstor64 (%0)" ::"r"(vcpu->fpu) : "memory");
    cpu->loaded = vcpu;
}

/* Last steps before the entry, lock held. False: it cannot run after all. */
static bool prepare(struct cpu *cpu, struct vcpu *vcpu)
{
    struct driver *driver = vcpu->vm->driver;

    if (!driver)
        exit_guest_prepare(vcpu);
    else if (driver->waiting)
        hypercall_wait_return(driver);
    if (driver && driver->recovery.inject_armed)
        inject_apply(driver);
    if (driver && (vcpu->state != VCPU_RUNNABLE || driver->recovery.pending))
        return false;
    if (driver && !driver->entered)
        driver->entered = tsc_now();
    load_fpu(cpu, vcpu);
    vcpu->stops_at_entry = vcpu->stops;
    vcpu->in_guest = true;
    return true;
}

static void run_once(struct vcpu *vcpu)
{
    struct vcpu_exit exit;
    u64 entered = tsc_now();

    vendor->enter(vcpu, &exit);
    vcpu->run_ticks += tsc_now() - entered;
    __atomic_store_n(&vcpu->in_guest, false, __ATOMIC_RELEASE);
    hv_lock();
    vcpu->exits++;
    vcpu->exits_by_kind[exit.kind]++;
    exit_dispatch(vcpu, &exit);
    hv_unlock();
}

static void idle(struct cpu *cpu)
{
    u64 since = tsc_now();

    interrupts_wait();
    cpu->idle += tsc_now() - since;
}

static bool ticks_here(const struct cpu *cpu)
{
    bool ticks = cpu->id == 0;

    for (u32 i = 0; i < driver_count; i++)
        ticks |= drivers[i]->vm->vcpu.cpu == cpu->id;
    return ticks;
}

void schedule_run(void)
{
    struct cpu *cpu = this_cpu();

    cpu->next_tick = ticks_here(cpu) ? tsc_now() : ~0ull;
    for (;;) {
        interrupts_window();
        hv_lock();
        take_events(cpu);
        struct vcpu *vcpu = pick(cpu);
        bool ready = vcpu && prepare(cpu, vcpu);
        if (ready || !vcpu)
            arm_timer(cpu, vcpu);
        hv_unlock();
        if (ready)
            run_once(vcpu);
        else if (!vcpu)
            idle(cpu);
    }
}
