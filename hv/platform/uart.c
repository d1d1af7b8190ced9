/*
 * A 16550A at 0x3F8, IRQ 4 (PC16550D data sheet). The transmitter is always empty: a byte leaves for the console at
 * once. The receiver holds 16 bytes; platform_console_input() refuses more, so only loop-back can overrun. Byte
 * accesses only.
 */
#include "hv/control/console.h"
#include "hv/platform/state.h"
#include "shared/lib/string.h"

enum uart_register { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RECEIVED 1u
#define IER_TRANSMIT 2u
#define IER_LINE 4u
#define IER_WRITABLE 0x0fu

#define IIR_NONE 0x01u
#define IIR_TRANSMIT 0x02u
#define IIR_RECEIVED 0x04u
#define IIR_LINE 0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO_ON 0xc0u

#define FCR_ENABLE 1u
#define FCR_CLEAR_RECEIVER 2u
#define LCR_DIVISOR_ACCESS 0x80u
#define MCR_LOOP 0x10u
#define LSR_DATA 0x01u
#define LSR_OVERRUN 0x02u
#define LSR_EMPTY 0x60u     /* holding register and transmitter */
#define MSR_CONNECTED 0xb0u /* CTS, DSR, DCD */

static u32 receiver_size(const struct uart *uart)
{
    return uart->reg[REG_IIR_FCR] & FCR_ENABLE ? UART_FIFO : 1;
}

/* The interrupt of the highest priority (data sheet table IV), IIR_NONE when there is none. */
static u8 identify(const struct uart *uart)
{
    static const u8 trigger[4] = {1, 4, 8, 14};
    if (uart->reg[REG_IER] & IER_LINE && uart->overrun)
        return IIR_LINE;
    if (uart->reg[REG_IER] & IER_RECEIVED && uart->count) {
        /* Below the trigger level the character time-out counts as over at once. */
        bool reached = !(uart->reg[REG_IIR_FCR] & FCR_ENABLE) || uart->count >= trigger[uart->reg[REG_IIR_FCR] >> 6];
        return reached ? IIR_RECEIVED : IIR_TIMEOUT;
    }
    if (uart->reg[REG_IER] & IER_TRANSMIT && uart->transmit_pending)
        return IIR_TRANSMIT;
    return IIR_NONE;
}

static void update_pin(struct vm *vm)
{
    ioapic_set_pin(vm, PLATFORM_UART_IRQ, identify(&vm->platform->uart) != IIR_NONE);
}

static bool receive(struct uart *uart, u8 byte)
{
    if (uart->count >= receiver_size(uart))
        return false;
    uart->fifo[(uart->head + uart->count++) % UART_FIFO] = byte;
    return true;
}

bool platform_console_input(struct vm *vm, u8 byte)
{
    struct uart *uart = &vm->platform->uart;
    if (uart->reg[REG_MCR] & MCR_LOOP || !receive(uart, byte)) /* in loop-back the line is cut off */
        return false;
    vm->platform->stats.console_in++;
    update_pin(vm);
    return true;
}

static void write_data(struct vm *vm, u8 byte)
{
    struct uart *uart = &vm->platform->uart;
    /* Full, then empty again: the pin must fall in between, or an edge-triggered entry would miss the second of two
     * writes. */
    uart->transmit_pending = false;
    update_pin(vm);
    if (uart->reg[REG_MCR] & MCR_LOOP) {
        if (!receive(uart, byte))
            uart->overrun = true;
    } else {
        vm->platform->stats.console_out++;
        console_guest_put(byte);
    }
    uart->transmit_pending = true;
}

static u8 read_data(struct uart *uart)
{
    if (!uart->count)
        return 0;
    u8 byte = uart->fifo[uart->head];
    uart->head = (uart->head + 1) % UART_FIFO;
    uart->count--;
    return byte;
}

static u8 read_iir(struct uart *uart)
{
    u8 iir = identify(uart);
    if (iir == IIR_TRANSMIT) /* read as the source: it is served */
        uart->transmit_pending = false;
    return iir | (uart->reg[REG_IIR_FCR] & FCR_ENABLE ? IIR_FIFO_ON : 0);
}

static u8 read_lsr(struct uart *uart)
{
    u8 lsr = LSR_EMPTY | (uart->count ? LSR_DATA : 0) | (uart->overrun ? LSR_OVERRUN : 0);
    uart->overrun = false;
    return lsr;
}

/* In loop-back the modem's inputs are its outputs: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
static u8 read_msr(const struct uart *uart)
{
    if (!(uart->reg[REG_MCR] & MCR_LOOP))
        return MSR_CONNECTED;
    return (u8)((uart->reg[REG_MCR] & 1) << 5 | (uart->reg[REG_MCR] & 2) << 3 | (uart->reg[REG_MCR] & 0xc) << 4);
}

static u8 read_register(struct uart *uart, u32 reg)
{
    if (uart->reg[REG_LCR] & LCR_DIVISOR_ACCESS && reg <= REG_IER)
        return uart->divisor[reg];
    switch (reg) {
    case REG_DATA:
        return read_data(uart);
    case REG_IIR_FCR:
        return read_iir(uart);
    case REG_LSR:
        return read_lsr(uart);
    case REG_MSR:
        return read_msr(uart);
    default:
        return uart->reg[reg];
    }
}

static void write_fcr(struct uart *uart, u8 value)
{
    /* Switching the FIFO on or off empties it, so that its count never exceeds receiver_size(). */
    if (value & FCR_CLEAR_RECEIVER || (value ^ uart->reg[REG_IIR_FCR]) & FCR_ENABLE)
        uart->count = 0;
    uart->reg[REG_IIR_FCR] = value & FCR_ENABLE ? value : 0;
}

static void write_register(struct vm *vm, u32 reg, u8 value)
{
    struct uart *uart = &vm->platform->uart;
    if (uart->reg[REG_LCR] & LCR_DIVISOR_ACCESS && reg <= REG_IER) {
        uart->divisor[reg] = value;
        return;
    }
    switch (reg) {
    case REG_DATA:
        write_data(vm, value);
        break;
    case REG_IER:
        if (value & ~uart->reg[REG_IER] & IER_TRANSMIT) /* enabled while empty: interrupts at once */
            uart->transmit_pending = true;
        uart->reg[REG_IER] = value & IER_WRITABLE;
        break;
    case REG_IIR_FCR:
        write_fcr(uart, value);
        break;
    default: /* line and modem status are never read from here */
        uart->reg[reg] = value;
        break;
    }
}

void uart_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value)
{
    if (width != 1)
        return;
    if (write)
        write_register(vm, offset, (u8)*value);
    else
        *value = read_register(&vm->platform->uart, offset);
    update_pin(vm);
}

void uart_reset(struct uart *uart)
{
    memset(uart, 0, sizeof(*uart));
    uart->divisor[0] = 1; /* 115200 baud */
}
