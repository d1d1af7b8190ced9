/* The nine calls of a driver VM, one function each, one table. */
#include "hv/exit/hypercall.h"

#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "hv/relay/relay.h"

#define WAIT_MAX_US 3600000000ull /* longer is for ever; keeps tsc_from_us() far from overflow */
#define WAIT_FOREVER (~0ull)
#define LOG_MAX 200u
#define LOG_PIECE 95u /* what one event holds */
#define LOG_LINES 50u /* in 100 ms */

struct hypercall_arguments {
    u64 a, b, c;
};

static i64 result(status_t status)
{
    return -(i64)status;
}

/* Event bits for the driver, pending ones cleared. The page is read-only to the VM; the exchange is for other CPUs'
 * sake. */
static u32 take_events(struct driver *driver)
{
    struct driver_events *events = hpa_to_ptr(driver->events_page);
    u32 bits = __atomic_exchange_n(&events->pending, 0, __ATOMIC_ACQ_REL);

    /* The request bit follows the ring, not history: a spurious wake-up for cells that are consumed is nobody's gain.
     */
    return relay_driver_has_work(driver->relay) ? bits | DRIVER_EVENT_REQUEST : bits;
}

/*
 * A level-triggered line was masked when it came (cpu/ioapic.h). When an earlier `wait` has told the driver, it has
 * silenced its device by now; what is still pending here has not been told.
 */
static void rearm_interrupt(struct driver *driver)
{
    const struct driver_events *events = hpa_to_ptr(driver->events_page);

    if (driver->interrupt == DRIVER_INTX && !(events->pending & DRIVER_EVENT_INTERRUPT))
        ioapic_open(driver->irq_vector, true);
}

static i64 call_wait(struct driver *driver, const struct hypercall_arguments *args)
{
    u64 timeout_us = args->a;

    (void)relay_complete(driver->relay);
    if (driver->recovery.pending)
        return 0; /* it never runs again to see this */
    rearm_interrupt(driver);
    (void)relay_forward(driver->relay);
    u32 bits = take_events(driver);
    if (bits != 0 || timeout_us == 0)
        return bits;

    /* Kicks on, then look again: what the guest added in between raised no kick (VirtIO 1.2 2.7.10). */
    if (relay_arm_kicks(driver->relay)) {
        relay_want_kicks(driver->relay, false);
        (void)relay_forward(driver->relay);
        return take_events(driver) | DRIVER_EVENT_REQUEST;
    }
    driver->waiting = true;
    driver->wait_deadline = timeout_us > WAIT_MAX_US ? WAIT_FOREVER : tsc_now() + tsc_from_us(timeout_us);
    vcpu_block(&driver->vm->vcpu);
    return 0; /* replaced by hypercall_wait_return() */
}

void hypercall_wait_return(struct driver *driver)
{
    driver->waiting = false;
    relay_want_kicks(driver->relay, false);
    (void)relay_forward(driver->relay);
    driver->vm->vcpu.regs.rax = take_events(driver);
}

bool driver_wait_expired(const struct driver *driver, u64 now)
{
    return driver->waiting && driver->wait_deadline != WAIT_FOREVER && now >= driver->wait_deadline;
}

static i64 call_offer(struct driver *driver, const struct hypercall_arguments *args)
{
    struct driver_offer offer; /* the VM has one vCPU, but its device writes memory, too: check and use this copy */
    status_t status = vm_read(driver->vm, GPA(args->a), &offer, sizeof(offer));

    return result(status == OK ? recovery_offer(driver, &offer) : status);
}

static i64 call_config(struct driver *driver, const struct hypercall_arguments *args)
{
    u8 config[DRIVER_CONFIG_SIZE];

    if (driver->state != DRIVER_RUNNING)
        return result(ERR_STATE);
    if (args->b > sizeof(config))
        return result(ERR_RANGE);
    status_t status = vm_read(driver->vm, GPA(args->a), config, args->b);
    return result(status == OK ? relay_config(driver->relay, config, (u32)args->b) : status);
}

static i64 call_stash(struct driver *driver, const struct hypercall_arguments *args)
{
    if (args->a > DRIVER_STASH_SIZE)
        return result(ERR_RANGE);
    driver->stash_length = (u32)args->a;
    driver->stash_checksum = recovery_checksum(hpa_to_ptr(driver->stash_page), driver->stash_length);
    return 0;
}

static i64 call_log(struct driver *driver, const struct hypercall_arguments *args)
{
    char text[LOG_MAX + 1];

    if (args->b > LOG_MAX)
        return result(ERR_RANGE);
    status_t status = vm_read(driver->vm, GPA(args->a), text, args->b);
    if (status != OK)
        return result(status);
    if (!rate_allows(&driver->recovery.log_rate, LOG_LINES))
        return result(ERR_BUSY);
    u32 length = (u32)args->b;
    for (u32 i = 0; i < length; i++)
        text[i] = text[i] < ' ' || text[i] > '~' ? '?' : text[i];
    text[length] = '\0';
    /* An event is shorter than a line and cuts it: the rest follows in the next one. */
    for (u32 at = 0; at < length; at += LOG_PIECE)
        event_add(EVENT_DRIVER_LOG, driver->vm->id, "%s", text + at);
    return 0;
}

static i64 call_time(struct driver *driver, const struct hypercall_arguments *args)
{
    (void)driver;
    (void)args;
    return (i64)time_us();
}

static i64 call_fault(struct driver *driver, const struct hypercall_arguments *args)
{
    u64 kind = args->a, detail = args->b;
    u64 rip = detail & 0xffffffffffffffull; /* of an exception, below its vector */

    if (kind == DRIVER_FAULT_EXCEPTION)
        recovery_report(driver, FAULT_EXCEPTION, detail, rip, "exception %lu at 0x%lx", detail >> 56, rip);
    else if (kind == DRIVER_FAULT_ASSERT)
        recovery_report(driver, FAULT_DECLARED, kind, detail, "assertion in line %lu", detail);
    else if (kind == DRIVER_FAULT_DEVICE)
        recovery_report(driver, FAULT_DECLARED, kind, detail, "its device fails, code 0x%lx", detail);
    else
        recovery_report(driver, FAULT_DECLARED, kind, detail, "gave up on itself, code 0x%lx detail 0x%lx", kind,
                        detail);
    return 0;
}

static i64 call_pci_read(struct driver *driver, const struct hypercall_arguments *args)
{
    u32 value;

    if ((args->a | args->b) >> 32)
        return result(ERR_INVALID);
    status_t status = pci_driver_read(driver->pci, (u32)args->a, (u32)args->b, &value);
    return status == OK ? (i64)value : result(status);
}

static i64 call_pci_write(struct driver *driver, const struct hypercall_arguments *args)
{
    bool bus_master = false;

    if ((args->a | args->b | args->c) >> 32)
        return result(ERR_INVALID);
    status_t status = pci_driver_write(driver->pci, (u32)args->a, (u32)args->b, (u32)args->c, &bus_master);
    if (status == OK && bus_master)
        status = driver_enable_dma(driver);
    return result(status);
}

/* What the first of an image finds after it is what its successors find. */
static i64 call_ready(struct driver *driver, const struct hypercall_arguments *args)
{
    (void)args;
    driver_ready(driver);
    return 0;
}

void hypercall_dispatch(struct vcpu *vcpu)
{
    static i64 (*const calls[])(struct driver *, const struct hypercall_arguments *) = {
        [HYPERCALL_WAIT] = call_wait,   [HYPERCALL_OFFER] = call_offer,       [HYPERCALL_CONFIG] = call_config,
        [HYPERCALL_STASH] = call_stash, [HYPERCALL_LOG] = call_log,           [HYPERCALL_TIME] = call_time,
        [HYPERCALL_FAULT] = call_fault, [HYPERCALL_PCI_READ] = call_pci_read, [HYPERCALL_PCI_WRITE] = call_pci_write,
        [HYPERCALL_READY] = call_ready,
    };
    struct driver *driver = vcpu->vm->driver;
    const struct hypercall_arguments args = {.a = vcpu->regs.rdi, .b = vcpu->regs.rsi, .c = vcpu->regs.rdx};
    u64 number = vcpu->regs.rax;

    driver->hypercalls++;
    /* Reported from elsewhere while it was in guest mode: it is about to be stopped, and must not change device or
     * relay now. */
    if (driver->recovery.pending)
        return;
    if (number >= ARRAY_SIZE(calls) || calls[number] == NULL)
        vcpu->regs.rax = (u64)result(ERR_INVALID);
    else
        vcpu->regs.rax = (u64)calls[number](driver, &args);
}
