/*
 * A main guest for the tests of hv/platform: RAM on the heap, a vCPU that only notes what is asked of it, two relays
 * that note their last access. Included once a program, after its SOURCES, which are all of hv/platform.
 */
#pragma once

#include "hv/arch/x86/vendor.h"
#include "hv/control/console.h"
#include "hv/control/control.h"
#include "hv/platform/state.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"
#include "tests/unit/random.h"

#define MACHINE_RAM MIB(8)

static struct {
    struct vm vm;
    struct manifest_vm config;
    u8 *ram;
    u32 wakes, kicks, stops;
    u64 entry; /* of the last reset() */
    u8 output[64];
    u32 output_length;
    const char *failed;
    u32 in_flight;
    u32 relay_resets;
} machine;

struct relay {
    u32 offset, width, value;
    bool write;
    u16 port;
    u64 memory;
};
static struct relay machine_relay[2];
struct relay *relays[VM_MAX];

void *vm_ram(const struct vm *vm, gpa_t gpa, u64 len)
{
    return gpa.v <= vm->ram_size && len <= vm->ram_size - gpa.v ? machine.ram + gpa.v : NULL;
}
status_t vm_read(const struct vm *vm, gpa_t gpa, void *out, u64 len)
{
    const void *from = vm_ram(vm, gpa, len);
    return from ? (memcpy(out, from, len), OK) : ERR_RANGE;
}
status_t vm_write(const struct vm *vm, gpa_t gpa, const void *data, u64 len)
{
    void *to = vm_ram(vm, gpa, len);
    return to ? (memcpy(to, data, len), OK) : ERR_RANGE;
}
void vm_fail(struct vm *vm, const char *reason, u64 detail)
{
    (void)vm;
    (void)detail;
    machine.failed = reason;
}
void vcpu_wake(struct vcpu *vcpu)
{
    machine.wakes++;
    if (vcpu->state == VCPU_BLOCKED)
        vcpu->state = VCPU_RUNNABLE;
}
void vcpu_kick(struct vcpu *vcpu)
{
    assert_true(vcpu->in_guest);
    machine.kicks++;
}
void vcpu_stop(struct vcpu *vcpu)
{
    machine.stops++;
    vcpu->state = VCPU_STOPPED;
}
static void reset(struct vcpu *vcpu, const struct vcpu_start *start)
{
    assert_false(start->long64);
    memset(&vcpu->regs, 0, sizeof(vcpu->regs));
    machine.entry = start->entry;
}
static const struct vcpu_vendor machine_vendor = {.name = "fake", .reset = reset};
const struct vcpu_vendor *vendor = &machine_vendor;

void event_add(enum event_kind kind, u32 vm, const char *fmt, ...)
{
    (void)vm;
    (void)fmt;
    assert_true(kind < EVENT_KINDS);
}
void console_guest_put(u8 byte)
{
    machine.output[machine.output_length++ % sizeof(machine.output)] = byte;
}

static void fake_access(struct relay *relay, u32 offset, u32 width, bool write, u32 *value)
{
    relay->offset = offset;
    relay->width = width;
    relay->write = write;
    if (write)
        relay->value = *value;
    else
        *value = relay->value;
}
void relay_pci_config(struct relay *relay, u32 offset, u32 width, bool write, u32 *value)
{
    assert_true(offset + width <= 256 && offset % width == 0);
    fake_access(relay, offset, width, write, value);
}
bool relay_port(struct relay *relay, u16 port, u32 width, bool write, u32 *value)
{
    if (!relay->port || port < relay->port || port - relay->port >= 0x100)
        return false;
    fake_access(relay, port - relay->port, width, write, value);
    return true;
}
bool relay_memory(struct relay *relay, gpa_t address, u32 width, bool write, u64 *value)
{
    u32 low = (u32)*value;
    if (!relay->memory || address.v < relay->memory || address.v - relay->memory >= PAGE_SIZE)
        return false;
    fake_access(relay, (u32)(address.v - relay->memory), width, write, &low);
    *value = low;
    return true;
}
void relay_guest_reset(struct relay *relay)
{
    (void)relay;
    machine.relay_resets++;
}
u32 relay_in_flight(const struct relay *relay)
{
    return relay == &machine_relay[0] ? machine.in_flight : 0;
}

/* ---- a guest image: ELF64 with one segment and a PVH note ---- */

struct machine_image {
    struct {
        u8 ident[16];
        u16 type, machine;
        u32 version;
        u64 entry, phoff, shoff;
        u32 flags;
        u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
    } header;
    struct {
        u32 type, flags;
        u64 offset, vaddr, paddr, filesz, memsz, align;
    } program[2];
    struct {
        u32 name_size, size, type;
        char name[4];
        u32 entry, padding;
    } note;
    u8 code[64];
};

static struct machine_image machine_image_at(u64 paddr, u64 memory)
{
    struct machine_image image = {
        .header = {.ident = {0x7f, 'E', 'L', 'F', 2, 1, 1},
                   .type = 2,
                   .machine = 62,
                   .version = 1,
                   .entry = paddr,
                   .phoff = offsetof(struct machine_image, program),
                   .ehsize = 64,
                   .phentsize = 56,
                   .phnum = 2},
        .program = {{1, 5, offsetof(struct machine_image, code), paddr, paddr, 64, memory, 8},
                    {4, 4, offsetof(struct machine_image, note), 0, 0, 24, 24, 4}},
        .note = {4, 4, 18, "Xen", (u32)paddr + 16, 0},
    };
    for (u32 i = 0; i < 64; i++)
        image.code[i] = (u8)(i + 1);
    return image;
}

static struct machine_image machine_default_image;

/* RAM with rubbish in it, so that a test sees what is written; no platform yet. */
static void machine_make(u64 ram_size)
{
    memset(&machine, 0, sizeof(machine));
    memset(machine_relay, 0, sizeof(machine_relay));
    memset(relays, 0, sizeof(relays));
    machine.ram = malloc(ram_size);
    assert_non_null(machine.ram);
    memset(machine.ram, 0xa5, ram_size);
    strcpy(machine.config.cmdline, "console=ttyS0 quiet");
    machine.vm = (struct vm){.name = "main", .config = &machine.config, .ram_size = ram_size};
    machine.vm.vcpu.vm = &machine.vm;
    relays[0] = &machine_relay[0];
    relays[2] = &machine_relay[1]; /* a hole between: a driver that never offered */
    fake_time_us = 1000000;
}

/* cmocka fixtures: a guest just started, its local APIC switched on. */
static inline int machine_setup(void **state)
{
    const char *why = "";
    u64 svr = 0x1ff;
    machine_make(MACHINE_RAM);
    machine_default_image = machine_image_at(MIB(1), 4096);
    status_t status = platform_create(&machine.vm, &machine_default_image, sizeof(machine_default_image), &why);
    if (status != OK)
        print_error("platform_create: %s\n", why);
    machine.vm.vcpu.state = VCPU_RUNNABLE;
    return status == OK && platform_msr(&machine.vm, 0x80f, true, &svr) ? 0 : -1;
}
static inline int machine_teardown(void **state)
{
    free(machine.ram);
    return 0;
}

/* ---- the guest's instructions ---- */

static inline u32 in(u16 port, u8 width)
{
    u32 value = 0x5a5a5a5a;
    platform_port(&machine.vm, port, width, false, &value);
    return value;
}
static inline void out(u16 port, u8 width, u32 value)
{
    platform_port(&machine.vm, port, width, true, &value);
}
static inline bool wrmsr(u32 index, u64 value)
{
    return platform_msr(&machine.vm, index, true, &value);
}
static inline bool rdmsr_ok(u32 index)
{
    u64 value;
    return platform_msr(&machine.vm, index, false, &value);
}
static inline u64 rdmsr(u32 index)
{
    u64 value = 0x5a5a5a5a;
    assert_true(platform_msr(&machine.vm, index, false, &value));
    return value;
}
/* Take what is pending, as the run loop does before an entry; -1 when nothing is. */
static inline int take_interrupt(void)
{
    int vector = platform_pending_vector(&machine.vm);
    if (vector >= 0)
        platform_accept_vector(&machine.vm, (u8)vector);
    return vector;
}
static inline void ioapic_write(u32 reg, u32 value)
{
    u64 select = reg, data = value;
    assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE), 4, true, &select));
    assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE + 0x10), 4, true, &data));
}
static inline u32 ioapic_read(u32 reg)
{
    u64 select = reg, data = 0;
    assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE), 4, true, &select));
    assert_true(platform_memory(&machine.vm, GPA(PLATFORM_IOAPIC_BASE + 0x10), 4, false, &data));
    return (u32)data;
}
