/*
 * The control port: a 16550 at COM2 (National Semiconductor PC16550D, section 8), polled. Nothing here waits for the
 * other side. A command runs when the answer before it has left, so one buffer that holds the longest answer is enough.
 */
#include "hv/arch/x86/cpu/io.h"
#include "hv/control/control.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

#define PORT 0x2f8u
#define DATA (PORT + 0)       /* receiver, transmitter; divisor low while DLAB */
#define INTERRUPTS (PORT + 1) /* enable; divisor high while DLAB */
#define FIFO (PORT + 2)
#define LINE_CONTROL (PORT + 3)
#define MODEM_CONTROL (PORT + 4)
#define LINE_STATUS (PORT + 5)
#define LINE_CONTROL_8N1 0x03u
#define LINE_CONTROL_DLAB 0x80u
#define FIFO_ENABLE_AND_CLEAR 0x07u
#define MODEM_DTR_RTS 0x03u
#define STATUS_DATA_READY 0x01u
#define STATUS_TRANSMITTER_EMPTY 0x20u

#define LINE_SIZE 256u       /* with its end */
#define OUTPUT_SIZE KIB(512) /* `events` at its longest: 2,048 lines of less than 256 bytes */
/* Per poll, so per millisecond. The lock is held meanwhile, and what a character costs an emulated UART differs widely.
 */
#define INPUT_AT_ONCE 256u
#define OUTPUT_AT_ONCE 1024u
#define OUTPUT_TIME_US 250u

static char *output; /* NULL: the port is off */
static u32 output_length, output_sent;
static bool output_cut;
static char line[LINE_SIZE];
static u32 line_length;
static const char *line_refused; /* why, or NULL */

void control_init(void)
{
    hpa_t buffer;

    if (frames_alloc(OUTPUT_SIZE / PAGE_SIZE, PAGE_SIZE, &buffer) != OK)
        boot_fail("no memory for the control port's buffer");
    io_out8(INTERRUPTS, 0);
    io_out8(LINE_CONTROL, LINE_CONTROL_DLAB);
    io_out8(DATA, 1); /* 115200 baud */
    io_out8(INTERRUPTS, 0);
    io_out8(LINE_CONTROL, LINE_CONTROL_8N1);
    io_out8(FIFO, FIFO_ENABLE_AND_CLEAR);
    io_out8(MODEM_CONTROL, MODEM_DTR_RTS);
    output = hpa_to_ptr(buffer);
}

static void put(const char *text)
{
    u32 length = (u32)strlen(text);

    if (output_cut || length > OUTPUT_SIZE - output_length) {
        output_cut = true;
        return;
    }
    memcpy(output + output_length, text, length);
    output_length += length;
}

static void execute(const char *text)
{
    static const char cut[] = "\nerror the answer is too long\n";

    control_execute(text, put);
    if (!output_cut)
        return;
    output_cut = false;
    if (output_length > OUTPUT_SIZE - sizeof(cut))
        output_length = OUTPUT_SIZE - sizeof(cut);
    put(cut);
}

static void end_line(void)
{
    line[line_length] = '\0';
    if (line_refused != NULL)
        put(line_refused);
    else if (line_length > 0)
        execute(line);
    line_length = 0;
    line_refused = NULL;
}

static void take_input(u8 c)
{
    if (c == '\r')
        return;
    /* Refused whole: half a command may be another command. */
    if (c == '\n')
        end_line();
    else if (c < ' ' || c > '~')
        line_refused = "error the line has unprintable characters\n";
    else if (line_length == LINE_SIZE - 1)
        line_refused = "error the line is too long\n";
    else
        line[line_length++] = (char)c;
}

static void push_output(void)
{
    u64 end = tsc_now() + tsc_from_us(OUTPUT_TIME_US);

    for (u32 i = 0; i < OUTPUT_AT_ONCE && output_sent < output_length && tsc_now() <= end; i++) {
        if (!(io_in8(LINE_STATUS) & STATUS_TRANSMITTER_EMPTY))
            return;
        io_out8(DATA, (u8)output[output_sent++]);
    }
}

void control_poll(void)
{
    if (output == NULL)
        return;
    push_output();
    if (output_sent < output_length)
        return;
    output_sent = output_length = 0;
    for (u32 i = 0; i < INPUT_AT_ONCE && output_length == 0 && (io_in8(LINE_STATUS) & STATUS_DATA_READY); i++)
        take_input(io_in8(DATA));
}
