/* COM1. */
#include "hv/control/console.h"

#include "hv/control/serial.h"

#define PORT 0x3f8u
#define SPIN_LIMIT 100000u /* a UART that never drains must not stop the machine */

static bool column_zero = true;

void console_init(void)
{
    serial_init(PORT);
}

void console_guest_put(u8 byte)
{
    for (u32 i = 0; i < SPIN_LIMIT && !serial_status(PORT, SERIAL_TRANSMITTER_EMPTY); i++)
        ;
    io_out8(PORT, byte);
    column_zero = byte == '\n';
}

static void put(const char *text)
{
    for (; *text; text++)
        console_guest_put((u8)*text);
}

void console_line(const char *text)
{
    put(column_zero ? "" : "\n\r"); /* which no guest prints: tools put its line together again */
    put(text);
    put("\r\n");
}

bool console_get(u8 *byte)
{
    if (!serial_status(PORT, SERIAL_DATA_READY))
        return false;
    *byte = io_in8(PORT);
    return true;
}
