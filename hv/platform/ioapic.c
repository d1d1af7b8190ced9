/*
 * One IOAPIC with 24 pins at 0xFEC00000 (82093AA data sheet, version 0x11): index register at 0x00, data window at
 * 0x10, both for 32-bit accesses. All pins are edge-triggered, whatever trigger mode or polarity an entry names: the
 * one that is wired, the serial port's, is so on every PC.
 */
#include "hv/platform/state.h"

#define WINDOW_SELECT 0x00u
#define WINDOW_DATA 0x10u

#define REG_VERSION 0x01u
#define REG_TABLE 0x10u
#define VERSION (0x11u | (IOAPIC_PINS - 1) << 16)

/* An entry has two halves: the lower one's bits 10:0 are as in the data of a message, the upper one's 31:24 say to
 * whom. */
#define ENTRY_MESSAGE 0x7ffu
#define ENTRY_LOGICAL (1u << 11)
#define ENTRY_MASKED (1u << 16)
/* Not the delivery status, remote IRR and trigger mode. */
static const u32 entry_writable[2] = {0x00012fff, 0xff000000};
#define MESSAGE_LOGICAL 4u

/* An entry is a message in another layout. An edge at a masked pin is lost, as the data sheet says. */
void ioapic_set_pin(struct vm *vm, u32 pin, bool level)
{
    struct ioapic *ioapic = &vm->platform->ioapic;
    u32 low = ioapic->entry[pin][0], high = ioapic->entry[pin][1];
    bool rising = level && !(ioapic->level >> pin & 1);
    ioapic->level = (ioapic->level & ~(1u << pin)) | (u32)level << pin;
    if (rising && !(low & ENTRY_MASKED))
        platform_message(vm, PLATFORM_LAPIC_BASE | high >> 24 << 12 | (low & ENTRY_LOGICAL ? MESSAGE_LOGICAL : 0),
                         low & ENTRY_MESSAGE);
}

static u32 read_register(const struct ioapic *ioapic)
{
    u32 half = ioapic->select - REG_TABLE; /* wraps for the others */
    if (half < IOAPIC_PINS * 2)
        return ioapic->entry[half / 2][half % 2];
    return ioapic->select == REG_VERSION ? VERSION : 0; /* its ID is 0 */
}

static void write_register(struct ioapic *ioapic, u32 value)
{
    u32 half = ioapic->select - REG_TABLE;
    if (half < IOAPIC_PINS * 2)
        ioapic->entry[half / 2][half % 2] = value & entry_writable[half % 2];
}

void ioapic_memory(struct ioapic *ioapic, u32 offset, u8 width, bool write, u64 *value)
{
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
        write_register(ioapic, (u32)in);
    else if (offset == WINDOW_DATA)
        *value = read_register(ioapic);
}

/* The rest is zero already. */
void ioapic_reset(struct ioapic *ioapic)
{
    for (u32 pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->entry[pin][0] = ENTRY_MASKED;
}
