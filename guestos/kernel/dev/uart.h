/* The 16550 UART at 0x3f8: polled output, interrupt-driven input. */
#pragma once

#include "shared/lib/types.h"

#define UART_INTERRUPT 0x03u /* Ctrl-C */

/* 115200 8N1, FIFO on, interrupts off. Returns false when no UART answers. */
bool uart_init(void);

/* Route its interrupt through the IOAPIC; without one, read it in the timer tick. After clock_init. */
void uart_enable_input(void);

/* Send size bytes; waits for the transmitter. */
void uart_write(const char *text, size_t size);

/* The next character received, or -1. */
int uart_read(void);

/* Whether Ctrl-C has arrived since uart_clear_interrupted. Ctrl-C also drops what was typed before it. */
bool uart_interrupted(void);
void uart_clear_interrupted(void);
