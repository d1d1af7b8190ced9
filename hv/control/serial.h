/* A 16550 (PC16550D data sheet, 8), polled, at its first port. Context: whoever owns the port. */
#pragma once

#include "shared/x86/io.h"

#define SERIAL_DATA_READY 0x01u
#define SERIAL_TRANSMITTER_EMPTY 0x20u

static inline void serial_init(u16 port)
{
    io_out8(port + 1, 0);    /* no interrupts */
    io_out8(port + 3, 0x80); /* line control: divisor latch */
    io_out8(port + 0, 1);    /* 115200 baud */
    io_out8(port + 1, 0);
    io_out8(port + 3, 0x03); /* 8n1 */
    io_out8(port + 2, 0xc7); /* FIFOs on and cleared; level 14: QEMU hands over no more bytes at once than that */
    io_out8(port + 4, 0x03); /* DTR, RTS */
}

static inline bool serial_status(u16 port, u8 bit)
{
    return io_in8(port + 5) & bit;
}
