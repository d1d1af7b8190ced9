#include "guestos/kernel/dev/uart.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/arch/ioapic.h"

/* PC16550D data sheet, table II. */
#define UART_PORT 0x3f8u
#define UART_IRQ 4u
#define UART_DATA (UART_PORT + 0)
#define UART_IER (UART_PORT + 1)
#define UART_FCR (UART_PORT + 2)
#define UART_LCR (UART_PORT + 3)
#define UART_MCR (UART_PORT + 4)
#define UART_LSR (UART_PORT + 5)

#define IER_RECEIVED 0x01u
#define FCR_ENABLE_CLEAR 0x07u
#define LCR_DIVISOR 0x80u
#define LCR_8N1 0x03u
#define MCR_DTR_RTS_OUT2 0x0bu /* OUT2 gates the interrupt line on a PC */
#define LSR_RECEIVED 0x01u
#define LSR_TRANSMIT_EMPTY 0x20u
#define FIFO_SIZE 16u
#define INPUT_SIZE 1024u /* power of two: a script may type a whole session ahead */
#define POLL_US 10000u

static char input[INPUT_SIZE];
static volatile u32 input_head, input_tail; /* written by the interrupt handler, and by uart_read */
static volatile bool interrupted;
static bool present;

bool uart_init(void)
{
    io_out8(UART_IER, 0);
    io_out8(UART_LCR, LCR_DIVISOR);
    io_out8(UART_DATA, 1); /* 115200 baud */
    io_out8(UART_IER, 0);
    io_out8(UART_LCR, LCR_8N1);
    io_out8(UART_FCR, FCR_ENABLE_CLEAR);
    io_out8(UART_MCR, MCR_DTR_RTS_OUT2);
    present = io_in8(UART_LSR) != 0xff; /* an empty port reads as ones */
    return present;
}

static void receive(void)
{
    /* The line is edge-triggered: whatever is not read now gives no further edge. */
    while ((io_in8(UART_LSR) & LSR_RECEIVED) != 0) {
        char c = (char)io_in8(UART_DATA);
        if (c == UART_INTERRUPT) {
            interrupted = true;
            input_tail = input_head;
        }
        if (input_head - input_tail < INPUT_SIZE)
            input[input_head++ % INPUT_SIZE] = c;
    }
}

static void on_interrupt(void *unused)
{
    (void)unused;
    receive();
}

void uart_enable_input(void)
{
    if (!present)
        return;
    interrupt_set_handler(VECTOR_UART, on_interrupt, NULL);
    if (ioapic_route_irq(UART_IRQ, VECTOR_UART) != OK)
        clock_set_tick(POLL_US, receive);
    io_out8(UART_IER, IER_RECEIVED);
    receive();
}

void uart_write(const char *text, size_t size)
{
    while (present && size > 0) {
        while ((io_in8(UART_LSR) & LSR_TRANSMIT_EMPTY) == 0)
            cpu_pause();
        /* Once empty, the FIFO takes sixteen: one status read, which may be an exit, for all of them. */
        for (u32 i = 0; i < FIFO_SIZE && size > 0; i++, size--)
            io_out8(UART_DATA, (u8)*text++);
    }
}

int uart_read(void)
{
    if (input_tail == input_head)
        return -1;
    return (unsigned char)input[input_tail++ % INPUT_SIZE];
}

bool uart_interrupted(void)
{
    return interrupted;
}

void uart_clear_interrupted(void)
{
    interrupted = false;
}
