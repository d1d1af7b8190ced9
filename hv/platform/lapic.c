/*
 * The local APIC of the guest's vCPU, in x2APIC mode for good (SDM 3A 10.12): registers by MSR, priorities, the timer.
 *
 * One vCPU with ID 0, so every interrupt message either addresses it or nobody. NMI, SMI, INIT and SIPI are not
 * delivered.
 */
#include "hv/core/hypervisor.h"
#include "hv/platform/state.h"
#include "shared/lib/string.h"

/* Registers: MSR index - 0x800 (SDM 3A table 10-6). */
enum lapic_register {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_LDR = 0x0d,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_TIMER = 0x32, /* the first of six local vectors: thermal, performance, LINT0, LINT1 follow */
    REG_ERROR = 0x37,
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_LAPIC 0x800u

#define LVTS 6u
#define LVT_MASKED (1u << 16)
#define TIMER_MODE (3u << 17) /* SDM 3A 10.5.1 */
#define TIMER_PERIODIC (1u << 17)
#define TIMER_DEADLINE (2u << 17)

#define SVR_ENABLED (1u << 8)
#define SVR_WRITABLE 0x1ffu
#define ESR_SEND_ILLEGAL (1u << 5)
#define ESR_RECEIVE_ILLEGAL (1u << 6)
#define VERSION (0x14u | (LVTS - 1) << 16) /* no EOI-broadcast suppression */

#define ICR_MODE(icr) ((u32)(icr) >> 8 & 7)
#define ICR_LOGICAL (1u << 11)
#define ICR_SHORTHAND(icr) ((u32)(icr) >> 18 & 3)
#define ICR_WRITABLE 0xffffffff000ccfffull /* SDM 3A figure 10-28; the rest is reserved */
#define MODE_FIXED 0u
#define MODE_LOWEST 1u

#define BUS_KHZ 1000000ull   /* the count modes' clock before the divider: 1 GHz, as KVM's */
#define PERIOD_MIN_US 100ull /* a shorter period would keep the host busy with nothing else */

static const u32 lvt_writable[LVTS] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

static int highest_bit(const u32 bits[8])
{
    for (int word = 7; word >= 0; word--) {
        if (bits[word])
            return word * 32 + 31 - __builtin_clz(bits[word]);
    }
    return -1;
}

static void set_bit(u32 bits[8], u8 vector, bool value)
{
    u32 mask = 1u << vector % 32;
    bits[vector / 32] = value ? bits[vector / 32] | mask : bits[vector / 32] & ~mask;
}

bool lapic_is_level(const struct lapic *lapic, u8 vector)
{
    return lapic->reg[REG_TMR + vector / 32] >> vector % 32 & 1;
}

bool lapic_anything_requested(const struct lapic *lapic)
{
    return highest_bit(lapic->reg + REG_IRR) >= 0;
}

/* SDM 3A 10.8.3.1: the class that an interrupt must exceed to be taken */
static u32 processor_priority(const struct lapic *lapic)
{
    int serviced = highest_bit(lapic->reg + REG_ISR);
    u32 class = serviced < 0 ? 0 : (u32)serviced & 0xf0;
    return (lapic->reg[REG_TPR] & 0xf0) >= class ? lapic->reg[REG_TPR] : class;
}

int platform_pending_vector(struct vm *vm)
{
    const struct lapic *lapic = &vm->platform->lapic;
    int vector = highest_bit(lapic->reg + REG_IRR);
    return vector >= 0 && (u32)vector >> 4 > processor_priority(lapic) >> 4 ? vector : -1;
}

void platform_accept_vector(struct vm *vm, u8 vector)
{
    struct lapic *lapic = &vm->platform->lapic;
    set_bit(lapic->reg + REG_IRR, vector, false);
    set_bit(lapic->reg + REG_ISR, vector, true);
    vm->platform->stats.interrupts++;
    pv_eoi_offer(vm, vector);
}

/*
 * A new request: make the vCPU look at it. In guest mode (on another CPU then) it must leave, also when the request has
 * to wait behind an interrupt whose end the guest may report without an exit: platform_after_exit() then withdraws that
 * offer.
 */
static void notify(struct vm *vm)
{
    struct vcpu *vcpu = &vm->vcpu;
    if (__atomic_load_n(&vcpu->in_guest, __ATOMIC_ACQUIRE)) {
        if (vm->platform->pv_eoi.offered || platform_pending_vector(vm) >= 0)
            vcpu_kick(vcpu);
        return;
    }
    pv_eoi_collect(vm);
    if (platform_pending_vector(vm) >= 0)
        vcpu_wake(vcpu);
}

/* SDM 3A 10.5.3. An error of a kind that is pending already raises nothing, which also ends the recursion over a bad
 * error vector. */
static void report_error(struct vm *vm, u32 error)
{
    struct lapic *lapic = &vm->platform->lapic;
    if (lapic->esr_pending & error)
        return;
    lapic->esr_pending |= error;
    if (!(lapic->reg[REG_ERROR] & LVT_MASKED))
        (void)lapic_raise(vm, (u8)lapic->reg[REG_ERROR], false);
}

bool lapic_raise(struct vm *vm, u8 vector, bool level)
{
    struct lapic *lapic = &vm->platform->lapic;
    if (!(lapic->reg[REG_SVR] & SVR_ENABLED))
        return false;
    if (vector < 16) {
        report_error(vm, ESR_RECEIVE_ILLEGAL);
        return false;
    }
    set_bit(lapic->reg + REG_IRR, vector, true);
    set_bit(lapic->reg + REG_TMR, vector, level);
    notify(vm);
    return true;
}

void lapic_end_interrupt(struct vm *vm)
{
    struct lapic *lapic = &vm->platform->lapic;
    int vector = highest_bit(lapic->reg + REG_ISR);
    if (vector < 0)
        return;
    set_bit(lapic->reg + REG_ISR, (u8)vector, false);
    if (lapic_is_level(lapic, (u8)vector))
        ioapic_end_interrupt(vm, (u8)vector);
}

/* SDM 3A 10.12.9, 10.12.10.2: ID 0 is bit 0 of cluster 0 */
bool lapic_is_destination(u32 destination, bool logical)
{
    if (destination == 0xffffffff)
        return true;
    return logical ? destination >> 16 == 0 && (destination & 1) : destination == 0;
}

void platform_message(struct vm *vm, u64 address, u32 data)
{
    /* SDM 3A 10.11.1: destination in bits 19:12, 255 is everyone; a logical one reaches cluster 0 only */
    u32 destination = (u32)(address >> 12) & 0xff;
    u32 mode = data >> 8 & 7;
    if (address >> 20 != PLATFORM_LAPIC_BASE >> 20 || (mode != MODE_FIXED && mode != MODE_LOWEST))
        return;
    if (destination == 0xff || lapic_is_destination(destination, address & 4))
        (void)lapic_raise(vm, (u8)data, false);
}

static void raise_ipi(struct vm *vm, u8 vector)
{
    if (vector < 16)
        report_error(vm, ESR_SEND_ILLEGAL);
    else
        (void)lapic_raise(vm, vector, false);
}

/* SDM 3A 10.6.1. What does not address this CPU has no receiver and is lost, INIT and SIPI among it. */
static bool send_ipi(struct vm *vm, u64 icr)
{
    static const u8 shorthand_hits[4] = {0, 1, 1, 0}; /* none: by destination; self; all; all but self */
    if (icr & ~ICR_WRITABLE)
        return false;
    vm->platform->lapic.icr = icr;
    bool here = ICR_SHORTHAND(icr) ? shorthand_hits[ICR_SHORTHAND(icr)]
                                   : lapic_is_destination((u32)(icr >> 32), icr & ICR_LOGICAL);
    if (here && (ICR_MODE(icr) == MODE_FIXED || ICR_MODE(icr) == MODE_LOWEST))
        raise_ipi(vm, (u8)icr);
    return true;
}

/* ---- timer (SDM 3A 10.5.4) ---- */

static u32 divider_shift(const struct lapic *lapic)
{
    u32 code = (lapic->reg[REG_DIVIDE] & 3) | (lapic->reg[REG_DIVIDE] >> 1 & 4);
    return (code + 1) & 7;
}

/* 32 bits of count, 7 of divider, at most 23 of tsc_khz: no overflow. */
static u64 count_ticks(const struct lapic *lapic)
{
    return ((u64)lapic->reg[REG_INITIAL_COUNT] << divider_shift(lapic)) * tsc_khz / BUS_KHZ;
}

static bool in_deadline_mode(const struct lapic *lapic)
{
    return (lapic->reg[REG_TIMER] & TIMER_MODE) == TIMER_DEADLINE;
}

static void write_initial_count(struct lapic *lapic, u32 count)
{
    if (in_deadline_mode(lapic))
        return;
    lapic->reg[REG_INITIAL_COUNT] = count;
    lapic->deadline = count ? tsc_now() + count_ticks(lapic) : 0;
}

static u32 read_current_count(const struct lapic *lapic)
{
    u64 now = tsc_now();
    if (in_deadline_mode(lapic) || lapic->deadline <= now)
        return 0;
    u64 left = (lapic->deadline - now) * BUS_KHZ / tsc_khz >> divider_shift(lapic);
    return left < lapic->reg[REG_INITIAL_COUNT] ? (u32)left : lapic->reg[REG_INITIAL_COUNT];
}

static void write_lvt(struct lapic *lapic, u32 reg, u32 value)
{
    value &= lvt_writable[reg - REG_TIMER];
    if (!(lapic->reg[REG_SVR] & SVR_ENABLED))
        value |= LVT_MASKED;
    /* 10.5.4.1: a change between the deadline mode and the others disarms the timer. */
    if (reg == REG_TIMER && ((value & TIMER_MODE) == TIMER_DEADLINE) != in_deadline_mode(lapic)) {
        lapic->deadline = 0;
        lapic->reg[REG_INITIAL_COUNT] = 0;
    }
    lapic->reg[reg] = value;
}

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
    if ((lapic->reg[REG_TIMER] & TIMER_MODE) == TIMER_PERIODIC && lapic->reg[REG_INITIAL_COUNT]) {
        u64 ticks = count_ticks(lapic), shortest = tsc_from_us(PERIOD_MIN_US);
        u64 period = ticks > shortest ? ticks : shortest;
        lapic->deadline += period;
        if (lapic->deadline <= now) /* periods that were missed are lost, not made up for in a burst */
            lapic->deadline = now + period;
    } else {
        lapic->deadline = 0;
    }
    if (lapic->reg[REG_TIMER] & LVT_MASKED)
        return;
    vm->platform->stats.timer_interrupts++;
    (void)lapic_raise(vm, (u8)lapic->reg[REG_TIMER], false);
}

/* ---- registers ---- */

#define REG_BIT(reg) (1ull << (reg))
#define REG_BITS(first, count) (((1ull << (count)) - 1) << (first))
#define READ_WRITE                                                                                                     \
    (REG_BIT(REG_TPR) | REG_BIT(REG_SVR) | REG_BIT(REG_ESR) | REG_BIT(REG_ICR) | REG_BITS(REG_TIMER, LVTS) |           \
     REG_BIT(REG_INITIAL_COUNT) | REG_BIT(REG_DIVIDE))
#define READABLE                                                                                                       \
    (READ_WRITE | REG_BIT(REG_ID) | REG_BIT(REG_VERSION) | REG_BIT(REG_PPR) | REG_BIT(REG_LDR) |                       \
     REG_BITS(REG_ISR, 24) | REG_BIT(REG_CURRENT_COUNT))
#define WRITABLE (READ_WRITE | REG_BIT(REG_EOI) | REG_BIT(REG_SELF_IPI))

/* reg is one of READABLE */
static u64 read_register(const struct lapic *lapic, u32 reg)
{
    switch (reg) {
    case REG_PPR:
        return processor_priority(lapic);
    case REG_ICR:
        return lapic->icr;
    case REG_CURRENT_COUNT:
        return read_current_count(lapic);
    default:
        return lapic->reg[reg];
    }
}

static void write_svr(struct lapic *lapic, u32 value)
{
    lapic->reg[REG_SVR] = value & SVR_WRITABLE;
    if (lapic->reg[REG_SVR] & SVR_ENABLED)
        return;
    for (u32 i = 0; i < LVTS; i++) /* SDM 3A 10.4.7.2 */
        lapic->reg[REG_TIMER + i] |= LVT_MASKED;
}

/* The guest ends an interrupt with an exit; an offer to do it without one is void then. */
static void write_eoi(struct vm *vm)
{
    vm->platform->stats.eoi_exits++;
    pv_eoi_withdraw(vm);
    lapic_end_interrupt(vm);
}

/* reg is one of WRITABLE, but not the ICR */
static void write_register(struct vm *vm, u32 reg, u32 value)
{
    struct lapic *lapic = &vm->platform->lapic;
    switch (reg) {
    case REG_TPR:
        lapic->reg[REG_TPR] = value;
        break;
    case REG_EOI:
        write_eoi(vm);
        break;
    case REG_SVR:
        write_svr(lapic, value);
        break;
    case REG_ESR:
        lapic->reg[REG_ESR] = lapic->esr_pending;
        lapic->esr_pending = 0;
        break;
    case REG_INITIAL_COUNT:
        write_initial_count(lapic, value);
        break;
    case REG_DIVIDE:
        lapic->reg[REG_DIVIDE] = value & 0xb;
        break;
    case REG_SELF_IPI:
        raise_ipi(vm, (u8)value);
        break;
    default:
        write_lvt(lapic, reg, value);
        break;
    }
}

static void tsc_deadline_msr(struct lapic *lapic, bool write, u64 *value)
{
    bool armed_by_it = in_deadline_mode(lapic); /* 10.5.4.1: otherwise it reads zero and ignores writes */
    if (!write)
        *value = armed_by_it ? lapic->deadline : 0;
    else if (armed_by_it)
        lapic->deadline = *value;
}

bool lapic_msr(struct vm *vm, u32 index, bool write, u64 *value)
{
    struct lapic *lapic = &vm->platform->lapic;
    if (index == MSR_TSC_DEADLINE) {
        tsc_deadline_msr(lapic, write, value);
        return true;
    }
    u32 reg = index - MSR_LAPIC;
    if (reg >= 64 || !((write ? WRITABLE : READABLE) >> reg & 1))
        return false;
    if (!write) {
        *value = read_register(lapic, reg);
        return true;
    }
    if (reg == REG_ICR)
        return send_ipi(vm, *value);
    /* Reserved bits are #GP (10.12.1.2) where there are few others; local vectors and SVR drop what they do not have.
     */
    if (*value > (reg == REG_EOI || reg == REG_ESR ? 0 : reg == REG_TPR || reg == REG_SELF_IPI ? 0xff : 0xffffffff))
        return false;
    write_register(vm, reg, (u32)*value);
    return true;
}

/* SDM 3A 10.4.7.1, 10.12.5.1 */
void lapic_reset(struct lapic *lapic)
{
    memset(lapic, 0, sizeof(*lapic));
    lapic->reg[REG_VERSION] = VERSION;
    lapic->reg[REG_LDR] = 1; /* cluster 0, bit 0: derived from the ID (10.12.10.2) */
    write_svr(lapic, 0xff);
}
