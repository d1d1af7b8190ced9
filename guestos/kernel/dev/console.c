#include "guestos/kernel/dev/console.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/panic.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define LINE_SIZE 512u

static void print_args(const char *format, va_list args)
{
    static char line[LINE_SIZE], wire[2 * LINE_SIZE];
    size_t size = 0;

    bh_vsnprintf(line, sizeof(line), format, args);
    for (const char *c = line; *c != '\0'; c++) {
        if (*c == '\n')
            wire[size++] = '\r';
        wire[size++] = *c;
    }
    uart_write(wire, size);
}

void console_print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_args(format, args);
    va_end(args);
}

void panic(const char *format, ...)
{
    va_list args;

    cpu_disable_interrupts();
    console_print("\nguestos: panic: ");
    va_start(args, format);
    print_args(format, args);
    va_end(args);
    console_print("\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

char console_read(void)
{
    for (;;) {
        u64 serial = interrupt_serial();
        background_run();
        int c = uart_read();
        if (c >= 0)
            return (char)c;
        interrupt_wait(serial);
    }
}

bool console_sleep(u64 us)
{
    u64 deadline = clock_us() + us;

    while (clock_us() < deadline) {
        u64 serial = interrupt_serial();
        background_run();
        if (uart_interrupted())
            return false;
        clock_wait_until(serial, deadline);
    }
    return true;
}
