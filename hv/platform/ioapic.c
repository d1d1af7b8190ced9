/*
 * One IOAPIC with 24 pins at 0xFEC00000 (82093AA data sheet, version 0x11): index register at 0x00, data window at
 * 0x10, both for 32-bit accesses. Pins are driven by asserted / not asserted, whatever polarity an entry names.
 */
#include "hv/platform/state.h"
#include "shared/lib/string.h"

#define WINDOW_SELECT 0x00u
#define WINDOW_DATA 0x10u

#define REG_ID 0x00u
#define REG_VERSION 0x01u
#define REG_ARBITRATION 0x02u
#define REG_TABLE 0x10u
#define VERSION (0x11u | (IOAPIC_PINS - 1) << 16)

#define ENTRY_MODE(entry) ((u32)((entry) >> 8) & 7)
#define ENTRY_LOGICAL (1ull << 11)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL (1ull << 15)
#define ENTRY_MASKED (1ull << 16)
#define ENTRY_WRITABLE 0xff0000000001afffull /* not the delivery status, not remote IRR */
#define MODE_LOWEST 1u

static bool entry_delivers_here(u64 entry)
{
    u32 destination = (u32)(entry >> 56);
    return ENTRY_MODE(entry) <= MODE_LOWEST &&
           (destination == 0xff || lapic_is_destination(destination, entry & ENTRY_LOGICAL));
}

/* An asserted level-triggered pin interrupts once, then again after its EOI (remote IRR between). */
static void deliver(struct vm *vm, u32 pin)
{
    u64 *entry = &vm->platform->ioapic.entry[pin];
    bool level = *entry & ENTRY_LEVEL;
    if (*entry & ENTRY_MASKED || (level && *entry & ENTRY_REMOTE_IRR) || !entry_delivers_here(*entry))
        return;
    if (lapic_raise(vm, (u8)*entry, level) && level)
        *entry |= ENTRY_REMOTE_IRR;
}

static void deliver_level(struct vm *vm, u32 pin)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    if (ioapic->entry[pin] & ENTRY_LEVEL && ioapic->level >> pin & 1)
        deliver(vm, pin);
}

void ioapic_set_pin(struct vm *vm, u32 pin, bool level)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    bool was = ioapic->level >> pin & 1;
    ioapic->level = (ioapic->level & ~(1u << pin)) | (u32)level << pin;
    if (level && !was) /* an edge at a masked pin is lost, as the data sheet says */
        deliver(vm, pin);
}

void ioapic_end_interrupt(struct vm *vm, u8 vector)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    for (u32 pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((u8)ioapic->entry[pin] != vector || !(ioapic->entry[pin] & ENTRY_REMOTE_IRR))
            continue;
        ioapic->entry[pin] &= ~ENTRY_REMOTE_IRR;
        deliver_level(vm, pin);
    }
}

static u32 read_register(const struct ioapic *ioapic)
{
    u32 index = ioapic->select - REG_TABLE; /* wraps for the others */
    if (index < IOAPIC_PINS * 2)
        return (u32)(ioapic->entry[index / 2] >> (index % 2 ? 32 : 0));
    if (ioapic->select == REG_ID || ioapic->select == REG_ARBITRATION)
        return ioapic->id;
    return ioapic->select == REG_VERSION ? VERSION : 0;
}

static void write_register(struct vm *vm, u32 value)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    u32 index = ioapic->select - REG_TABLE;
    if (ioapic->select == REG_ID)
        ioapic->id = value & 0x0f000000;
    if (index >= IOAPIC_PINS * 2)
        return;
    u64 *entry = &ioapic->entry[index / 2];
    u64 half = 0xffffffffull << (index % 2 ? 32 : 0);
    u64 wanted = (u64)value << (index % 2 ? 32 : 0);
    *entry = (*entry & ~(half & ENTRY_WRITABLE)) | (wanted & ENTRY_WRITABLE);
    if (!(*entry & ENTRY_LEVEL)) /* a switch to edge forgets the level interrupt in service */
        *entry &= ~ENTRY_REMOTE_IRR;
    deliver_level(vm, index / 2);
}

void ioapic_memory(struct vm *vm, u32 offset, u8 width, bool write, u64 *value)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    u64 in = *value;
    if (!write)
        *value = 0;
    if (width != sizeof(u32))
        return;
    if (offset == WINDOW_SELECT && write)
        ioapic->select = in & 0xff;
    else if (offset == WINDOW_SELECT)
        *value = ioapic->select;
    else if (offset == WINDOW_DATA && write)
        write_register(vm, (u32)in);
    else if (offset == WINDOW_DATA)
        *value = read_register(ioapic);
}

void ioapic_reset(struct ioapic *ioapic)
{
    memset(ioapic, 0, sizeof(*ioapic));
    for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->entry[pin] = ENTRY_MASKED;
}
