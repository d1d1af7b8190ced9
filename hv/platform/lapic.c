/*
 * The local APIC of the guest's vCPU, in x2APIC mode for good (SDM 3A 10.12): registers by MSR, priorities, the timer.
 *
 * One vCPU with ID 0, so every interrupt message either addresses it or nobody. All are edge-triggered; SMI, INIT and
 * SIPI are not delivered. CPUID offers the TSC deadline, so the count modes of the timer are left out: their
 * registers read zero, and nothing ever counts. No error is ever reported in ESR.
 */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"

/* Registers: MSR index - 0x800 (SDM 3A table 10-6). */
enum lapic_register {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_LDR = 0x0d,
    REG_SVR = 0x0f,
    REG_ISR = 0x10, /* eight words each of ISR, TMR, IRR */
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_TIMER = 0x32, /* the first of six local vectors: thermal, performance, LINT0, LINT1, error follow */
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define LVTS 6u
#define LVT_MASKED (1u << 16)
#define TIMER_MODE (3u << 17) /* SDM 3A 10.5.1 */
#define TIMER_DEADLINE (2u << 17)
#define IN_DEADLINE_MODE(lapic) (((lapic)->reg[REG_TIMER] & TIMER_MODE) == TIMER_DEADLINE)

#define SVR_ENABLED (1u << 8)
#define SVR_WRITABLE 0x1ffu
#define VERSION (0x14u | (LVTS - 1) << 16) /* no EOI-broadcast suppression */

#define ICR_LOGICAL (1u << 11)
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3) /* none, self, all, all but self */
#define ICR_ALL_BUT_SELF 3u
#define ICR_WRITABLE 0xffffffff000ccfffull /* SDM 3A figure 10-28; the rest is reserved */
#define EVERYONE 0xffffffffu
#define MESSAGE_MODE(low) ((low) >> 8 & 7)
#define MODE_LOWEST 1u /* lowest priority; 0 is fixed */
#define MODE_NMI 4u

static const u32 lvt_writable[LVTS] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

static int highest_bit(const u64 words[8])
{
    for (int word = 7; word >= 0; word--)
        if (words[word])
            return word * 32 + 63 - __builtin_clzll(words[word]);
    return -1;
}

int lapic_highest_request(const struct lapic *lapic)
{
    return highest_bit(lapic->reg + REG_IRR);
}

/* SDM 3A 10.8.3.1: the class that an interrupt must exceed to be taken */
static u64 processor_priority(const struct lapic *lapic)
{
    int serviced = highest_bit(lapic->reg + REG_ISR);
    u64 class = serviced < 0 ? 0 : (u64)serviced & 0xf0;
    return (lapic->reg[REG_TPR] & 0xf0) >= class ? lapic->reg[REG_TPR] : class;
}

int platform_pending_vector(struct vm *vm)
{
    const struct lapic *lapic = &vm->platform->lapic;
    int vector = lapic_highest_request(lapic);
    return vector >= 0 && (u64)vector >> 4 > processor_priority(lapic) >> 4 ? vector : -1;
}

void platform_accept_vector(struct vm *vm, u8 vector)
{
    struct lapic *lapic = &vm->platform->lapic;
    lapic->reg[REG_IRR + vector / 32] &= ~(1ull << vector % 32);
    lapic->reg[REG_ISR + vector / 32] |= 1ull << vector % 32;
    vm->platform->stats.interrupts++;
    pv_eoi_offer(vm);
}

/*
 * A new request; lost while the APIC is disabled by software. Vectors below 16 are illegal (SDM 3A 10.5.2).
 *
 * The vCPU must look at it. In guest mode (on another CPU then) it must leave, also when the request has to wait behind
 * an interrupt whose end the guest may report without an exit: platform_after_exit() then withdraws that offer.
 */
static void request(struct vm *vm, u8 vector)
{
    struct platform *platform = vm->platform;
    if (!(platform->lapic.reg[REG_SVR] & SVR_ENABLED) || vector < 16)
        return;
    platform->lapic.reg[REG_IRR + vector / 32] |= 1ull << vector % 32;
    if (__atomic_load_n(&vm->vcpu.in_guest, __ATOMIC_ACQUIRE)) {
        if (platform->pv_eoi_offered || platform_pending_vector(vm) >= 0)
            vcpu_kick(&vm->vcpu);
        return;
    }
    platform_after_exit(vm);
    if (platform_pending_vector(vm) >= 0)
        vcpu_wake(&vm->vcpu);
}

/* Neither priorities nor the software's enable bit hold it back (SDM 3A 10.4.7.2). */
static void request_nmi(struct vm *vm)
{
    vm->platform->lapic.nmi = true;
    if (__atomic_load_n(&vm->vcpu.in_guest, __ATOMIC_ACQUIRE))
        vcpu_kick(&vm->vcpu);
    else
        vcpu_wake(&vm->vcpu);
}

bool platform_nmi_pending(const struct vm *vm)
{
    return vm->platform->lapic.nmi;
}

void platform_accept_nmi(struct vm *vm)
{
    vm->platform->lapic.nmi = false;
}

void lapic_end_interrupt(struct vm *vm)
{
    struct lapic *lapic = &vm->platform->lapic;
    int vector = highest_bit(lapic->reg + REG_ISR);
    if (vector >= 0)
        lapic->reg[REG_ISR + vector / 32] &= ~(1ull << vector % 32);
}

/*
 * A message from anywhere; `low` is laid out alike in ICR and MSI data: vector, mode. As a logical destination, ID 0 is
 * bit 0 of cluster 0 (SDM 3A 10.12.10.2). What does not address this CPU has no receiver and is lost.
 */
static void deliver(struct vm *vm, u32 destination, bool logical, u32 low)
{
    bool here = logical ? destination >> 16 == 0 && destination & 1 : destination == 0;
    if (!here && destination != EVERYONE)
        return;
    if (MESSAGE_MODE(low) <= MODE_LOWEST)
        request(vm, (u8)low);
    else if (MESSAGE_MODE(low) == MODE_NMI)
        request_nmi(vm);
}

void platform_message(struct vm *vm, u64 address, u32 data)
{
    u32 destination = (u32)(address >> 12) & 0xff; /* SDM 3A 10.11.1: bits 19:12, 255 is everyone; bit 2 is logical */
    if (address >> 20 == PLATFORM_LAPIC_BASE >> 20)
        deliver(vm, destination == 0xff ? EVERYONE : destination, address & 4, data);
}

static bool send_ipi(struct vm *vm, u64 icr)
{
    if (icr & ~ICR_WRITABLE)
        return false;
    vm->platform->lapic.reg[REG_ICR] = icr;
    if (!ICR_SHORTHAND(icr))
        deliver(vm, (u32)(icr >> 32), icr & ICR_LOGICAL, (u32)icr);
    else if (ICR_SHORTHAND(icr) != ICR_ALL_BUT_SELF)
        deliver(vm, EVERYONE, false, (u32)icr);
    return true;
}

/* ---- timer (SDM 3A 10.5.4.1) ---- */

u64 platform_timer_deadline(struct vm *vm)
{
    u64 deadline = vm->platform->lapic.deadline;
    return deadline ? deadline : ~0ull;
}

void platform_timer_expire(struct vm *vm, u64 now)
{
    struct lapic *lapic = &vm->platform->lapic;
    if (!lapic->deadline || now < lapic->deadline)
        return;
    lapic->deadline = 0;
    if (lapic->reg[REG_TIMER] & LVT_MASKED)
        return;
    vm->platform->stats.timer_interrupts++;
    request(vm, (u8)lapic->reg[REG_TIMER]);
}

/* ---- registers ---- */

#define BIT(reg) (1ull << (reg))
#define BITS(first, last) ((2ull << (last)) - (1ull << (first)))
#define READ_WRITE                                                                                                     \
    (BIT(REG_TPR) | BIT(REG_SVR) | BIT(REG_ESR) | BIT(REG_ICR) | BITS(REG_TIMER, REG_INITIAL_COUNT) | BIT(REG_DIVIDE))
#define READABLE                                                                                                       \
    (READ_WRITE | BITS(REG_ID, REG_VERSION) | BIT(REG_PPR) | BIT(REG_LDR) | BITS(REG_ISR, REG_ESR) |                   \
     BIT(REG_CURRENT_COUNT))
#define WRITABLE (READ_WRITE | BIT(REG_EOI) | BIT(REG_SELF_IPI))

/* reg is one of WRITABLE. False: a reserved bit is set (10.12.1.2); local vectors and SVR drop theirs. */
static bool write_register(struct vm *vm, u32 reg, u64 value)
{
    struct lapic *lapic = &vm->platform->lapic;
    if (reg == REG_ICR)
        return send_ipi(vm, value);
    if (value > (reg == REG_EOI || reg == REG_ESR ? 0 : reg == REG_TPR || reg == REG_SELF_IPI ? 0xff : 0xffffffff))
        return false;
    if (reg == REG_TPR) {
        lapic->reg[REG_TPR] = value;
    } else if (reg == REG_EOI) {
        vm->platform->stats.eoi_exits++;
        pv_eoi_withdraw(vm); /* an offer to do it without an exit is void then */
        lapic_end_interrupt(vm);
    } else if (reg == REG_SVR) {
        lapic->reg[REG_SVR] = value & SVR_WRITABLE;
    } else if (reg == REG_SELF_IPI) {
        request(vm, (u8)value);
    } else if (reg >= REG_TIMER && reg < REG_TIMER + LVTS) {
        lapic->reg[reg] = value & lvt_writable[reg - REG_TIMER];
        if (!IN_DEADLINE_MODE(lapic)) /* leaving the mode disarms the timer */
            lapic->deadline = 0;
    }
    return true; /* ESR and the count modes' registers stay zero */
}

bool lapic_msr(struct vm *vm, u32 index, bool write, u64 *value)
{
    struct lapic *lapic = &vm->platform->lapic;
    u32 reg = index - MSR_X2APIC;
    if (index == MSR_TSC_DEADLINE && write && IN_DEADLINE_MODE(lapic)) /* else it reads zero and ignores writes */
        lapic->deadline = *value;
    if (index == MSR_TSC_DEADLINE && !write)
        *value = lapic->deadline;
    if (index == MSR_TSC_DEADLINE)
        return true;
    if (reg >= ARRAY_SIZE(lapic->reg) || !((write ? WRITABLE : READABLE) >> reg & 1))
        return false;
    if (write)
        return write_register(vm, reg, *value);
    *value = reg == REG_PPR ? processor_priority(lapic) : lapic->reg[reg];
    return true;
}

/* SDM 3A 10.4.7.1, 10.12.5.1; the rest is zero already */
void lapic_reset(struct lapic *lapic)
{
    lapic->reg[REG_VERSION] = VERSION;
    lapic->reg[REG_LDR] = 1; /* cluster 0, bit 0: derived from the ID (10.12.10.2) */
    lapic->reg[REG_SVR] = SVR_WRITABLE & ~SVR_ENABLED;
    for (u32 i = 0; i < LVTS; i++)
        lapic->reg[REG_TIMER + i] = LVT_MASKED;
}
