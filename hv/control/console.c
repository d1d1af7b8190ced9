/* COM1, a 16550 (PC16550D data sheet, 8). */
#include "hv/control/console.h"

#include "hv/arch/x86/cpu/io.h"

#define PORT 0x3f8u
#define LSR (PORT + 5)
#define LSR_DATA 0x01u
#define LSR_THR_EMPTY 0x20u
#define SPIN_LIMIT 100000u /* a UART that never drains must not stop the machine */

static bool column_zero = true;

void console_init(void)
{
    io_out8(PORT + 1, 0);    /* no interrupts: polled */
    io_out8(PORT + 3, 0x80); /* DLAB */
    io_out8(PORT + 0, 1);    /* 115200 baud */
    io_out8(PORT + 1, 0);
    io_out8(PORT + 3, 0x03); /* 8n1 */
    io_out8(PORT + 2, 0x07); /* FIFOs on and cleared */
    io_out8(PORT + 4, 0x03); /* DTR, RTS */
}

static void put(u8 byte)
{
    for (u32 i = 0; i < SPIN_LIMIT && !(io_in8(LSR) & LSR_THR_EMPTY); i++)
        ;
    io_out8(PORT, byte);
    column_zero = byte == '\n';
}

void console_line(const char *text)
{
    /* LF CR instead of CR LF: scripts tell by it that the guest's line goes on behind this one, and join its parts. */
    if (!column_zero) {
        put('\n');
        put('\r');
    }
    while (*text)
        put((u8)*text++);
    put('\r');
    put('\n');
}

void console_guest_put(u8 byte)
{
    put(byte);
}

bool console_get(u8 *byte)
{
    if (!(io_in8(LSR) & LSR_DATA))
        return false;
    *byte = io_in8(PORT);
    return true;
}
