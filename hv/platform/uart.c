/*
 * A 16550A at 0x3F8, IRQ 4 (PC16550D data sheet). The transmitter is always empty: a byte leaves for the console at
 * once. The receiver holds 16 bytes and interrupts from the first on; platform_console_input() refuses more, so it
 * never overruns. There is no loop-back, which Linux does not try on a PC's ports. Byte accesses only.
 */
#include "hv/control/console.h"
#include "hv/platform/state.h"

/* The third is the identification when read, FIFO control when written. The divisor's two bytes are in the place of the
 * first two while LCR says so. */
enum uart_register { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH, REG_DIVISOR };

#define IER_RECEIVED 1u
#define IER_TRANSMIT 2u
#define IER_WRITABLE 0x0fu

#define IIR_NONE 0x01u
#define IIR_TRANSMIT 0x02u
#define IIR_RECEIVED 0x04u
#define IIR_FIFO_ON 0xc0u

#define FCR_ENABLE 1u
#define FCR_CLEAR_RECEIVER 2u
#define LCR_DIVISOR_ACCESS 0x80u
#define LSR_DATA 0x01u
#define LSR_EMPTY 0x60u     /* holding register and transmitter */
#define MSR_CONNECTED 0xb0u /* CTS, DSR, DCD */

/* The interrupt of the highest priority (data sheet table IV), IIR_NONE when there is none. */
static u8 identify(const struct uart *uart)
{
    if (uart->reg[REG_IER] & IER_RECEIVED && uart->head != uart->tail)
        return IIR_RECEIVED;
    return uart->reg[REG_IER] & IER_TRANSMIT && uart->transmit_pending ? IIR_TRANSMIT : IIR_NONE;
}

static void update_pin(struct vm *vm)
{
    ioapic_set_pin(vm, PLATFORM_UART_IRQ, identify(&vm->platform->uart) != IIR_NONE);
}

bool platform_console_input(struct vm *vm, u8 byte)
{
    struct uart *uart = &vm->platform->uart;
    if (uart->tail - uart->head == UART_FIFO)
        return false;
    uart->fifo[uart->tail++ % UART_FIFO] = byte;
    vm->platform->stats.console_in++;
    update_pin(vm);
    return true;
}

static u8 read_iir(struct uart *uart)
{
    u8 iir = identify(uart);
    if (iir == IIR_TRANSMIT) /* read as the source: it is served */
        uart->transmit_pending = false;
    return iir | (uart->reg[REG_IIR_FCR] & FCR_ENABLE ? IIR_FIFO_ON : 0);
}

static u8 read_register(struct uart *uart, u32 reg)
{
    bool any = uart->head != uart->tail;

    if (reg == REG_DATA)
        return any ? uart->fifo[uart->head++ % UART_FIFO] : 0;
    if (reg == REG_IIR_FCR)
        return read_iir(uart);
    if (reg == REG_LSR)
        return LSR_EMPTY | (any ? LSR_DATA : 0);
    return reg == REG_MSR ? MSR_CONNECTED : uart->reg[reg];
}

static void write_register(struct vm *vm, u32 reg, u8 value)
{
    struct uart *uart = &vm->platform->uart;
    if (reg == REG_DATA) {
        /* Full, then empty again: the pin must fall in between, or the entry would miss the second of two writes. */
        uart->transmit_pending = false;
        update_pin(vm);
        uart->transmit_pending = true;
        vm->platform->stats.console_out++;
        console_guest_put(value);
        return;
    }
    if (reg == REG_IER && value & ~uart->reg[REG_IER] & IER_TRANSMIT) /* enabled while empty: interrupts at once */
        uart->transmit_pending = true;
    if (reg == REG_IIR_FCR && value & FCR_CLEAR_RECEIVER)
        uart->head = uart->tail;
    uart->reg[reg] = reg == REG_IER ? value & IER_WRITABLE : value; /* line and modem status are never read from here */
}

void uart_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value)
{
    struct uart *uart = &vm->platform->uart;
    bool divisor = offset <= REG_IER && uart->reg[REG_LCR] & LCR_DIVISOR_ACCESS;
    u32 reg = divisor ? offset + REG_DIVISOR : offset;
    if (width != 1)
        return;
    if (write)
        write_register(vm, reg, (u8)*value);
    else
        *value = read_register(uart, reg);
    update_pin(vm);
}
