/*
 * The control port: COM2, polled. Nothing here waits for the
 * other side. A command runs when the answer before it has left, so one buffer that holds the longest answer is enough.
 */
#include "hv/control/control.h"
#include "hv/control/serial.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/string.h"

#define PORT 0x2f8u
#define LINE_SIZE 256u       /* with its end */
#define OUTPUT_SIZE KIB(512) /* `events` at its longest: 2,048 lines of less than 256 bytes */
/* Per poll, so per millisecond. The lock is held meanwhile, and what a character costs an emulated UART differs widely.
 */
#define INPUT_AT_ONCE 256u
#define OUTPUT_AT_ONCE 1024u
#define OUTPUT_TIME_US 250u
#define HURRY 10u /* polls without input, until the sender is thought to have ended */

static char *output; /* NULL: the port is off */
static u32 output_length, output_sent;
static bool output_cut;
static const char cut_note[] = "\nerror the answer is too long\n";
static char line[LINE_SIZE];
static u32 line_length;
static const char *line_refused; /* why, or NULL */

void control_init(void)
{
    serial_init(PORT);
    output = boot_frames(OUTPUT_SIZE / PAGE_SIZE, "the control port's buffer");
}

/* Drops the rest of an answer that leaves no room for the note about it. */
static void put(const char *text)
{
    u32 length = (u32)strlen(text);

    output_cut |= length > OUTPUT_SIZE - sizeof(cut_note) - output_length;
    if (output_cut)
        return;
    memcpy(output + output_length, text, length);
    output_length += length;
}

static void end_line(void)
{
    line[line_length] = '\0';
    if (line_refused != NULL)
        put(line_refused);
    else if (line_length > 0)
        control_execute(line, put);
    if (output_cut) {
        memcpy(output + output_length, cut_note, sizeof(cut_note) - 1);
        output_length += sizeof(cut_note) - 1;
    }
    line_length = 0;
    line_refused = NULL;
    output_cut = false;
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
        if (!serial_status(PORT, SERIAL_TRANSMITTER_EMPTY))
            return;
        io_out8(PORT, (u8)output[output_sent++]);
    }
}

bool control_poll(void)
{
    static u32 hurry; /* polls after the last input, whose sender may need a moment for more */
    u32 taken = 0;

    if (output == NULL)
        return false;
    push_output();
    if (output_sent < output_length)
        return false;
    output_sent = output_length = 0;
    for (; taken < INPUT_AT_ONCE && output_length == 0 && serial_status(PORT, SERIAL_DATA_READY); taken++)
        take_input(io_in8(PORT));
    hurry = taken > 0 ? HURRY : hurry - (hurry > 0);
    return hurry > 0;
}
