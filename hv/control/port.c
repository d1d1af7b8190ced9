/*
 * The control ports: COM2, polled, and the main guest's console, which the manifest may allow. Nothing here waits for
 * the other side. A command runs when the answer before it has left, so one buffer that holds the longest answer is
 * enough.
 */
#include "hv/control/control.h"
#include "hv/control/serial.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"

#define PORT 0x2f8u
#define LINE_SIZE 256u        /* with its end */
#define OUTPUT_SIZE KIB(512)  /* `events` at its longest: 2,048 lines of less than 256 bytes */
#define GUEST_PERIOD_US 4000u /* between two looks at the guest's port; a command and its answer take two */
/* Per poll, so per millisecond. The lock is held meanwhile, and what a character costs an emulated UART differs widely.
 */
#define SERIAL_TIME_US 250u
#define HURRY 10u /* polls without input, until the sender is thought to have ended */

struct port {
    u32 (*move)(bool out, char *bytes, u32 size); /* give or take some of them; how many */
    enum manifest_control who;                    /* MANIFEST_CONTROL_NO: the operator */
    u32 length, sent;
    char *output; /* NULL: the port is off */
    bool too_long;
    u32 filled;
    char input[LINE_SIZE]; /* a line, and what came behind it */
};

static u32 serial_move(bool out, char *bytes, u32 size)
{
    u64 end = tsc_now() + tsc_from_us(SERIAL_TIME_US);
    u32 moved = 0;

    for (; moved < size && tsc_now() <= end; moved++)
        if (!serial_status(PORT, out ? SERIAL_TRANSMITTER_EMPTY : SERIAL_DATA_READY))
            break;
        else if (out)
            io_out8(PORT, (u8)bytes[moved]);
        else
            bytes[moved] = (char)io_in8(PORT);
    return moved;
}

static struct port serial = {.move = serial_move};
static struct port guest = {.move = relay_console_move};
static struct port *current; /* whose command runs */

void control_init(void)
{
    serial_init(PORT);
    serial.output = boot_frames(OUTPUT_SIZE / PAGE_SIZE, "the control port's buffer");
}

void control_init_guest(void)
{
    guest.who = main_guest->config->control;
    if (guest.who == MANIFEST_CONTROL_NO)
        return;
    relay_console_create();
    guest.output = boot_frames(OUTPUT_SIZE / PAGE_SIZE, "the guest's control port");
}

void control_reset_guest(void)
{
    guest = (struct port){.move = guest.move, .who = guest.who, .output = guest.output};
}

static void put(const char *text)
{
    u32 length = (u32)strlen(text);

    if (current->length + length <= OUTPUT_SIZE)
        memcpy(current->output + current->length, text, length);
    current->length += length; /* beyond the room: the answer is lost, and says so in the end */
}

/* input[length] ends the line. It is refused whole: half a command may be another command. */
static void end_line(struct port *port, u32 length)
{
    u32 at = 0;

    length -= length > 0 && port->input[length - 1] == '\r';
    port->input[length] = '\0';
    while (port->input[at] >= ' ' && port->input[at] <= '~')
        at++;
    if (port->too_long)
        put("error the line is too long\n");
    else if (at < length)
        put("error the line has unprintable characters\n");
    else if (length > 0)
        control_execute(port->input, port->who, put);
    if (port->length > OUTPUT_SIZE) {
        port->length = 0;
        put("error the answer is too long\n");
    }
    port->too_long = false;
}

/* How much came in. */
static u32 poll(struct port *port)
{
    u32 taken, end = 0;

    port->sent += port->move(true, port->output + port->sent, port->length - port->sent);
    if (port->sent < port->length)
        return 0;
    port->sent = port->length = 0;
    taken = port->move(false, port->input + port->filled, LINE_SIZE - port->filled);
    port->filled += taken;
    while (end < port->filled && port->input[end] != '\n')
        end++;
    if (end < port->filled) {
        current = port;
        end_line(port, end++);
        memmove(port->input, port->input + end, port->filled - end);
    } else if (end == LINE_SIZE) {
        port->too_long = true;
    } else {
        end = 0; /* the line's end is still to come */
    }
    port->filled -= end;
    return taken;
}

bool control_poll(void)
{
    static u64 guest_due;
    static u32 hurry; /* polls after the last input, whose sender may need a moment for more */

    if (guest.output != NULL && tsc_now() >= guest_due) {
        guest_due = tsc_now() + tsc_from_us(GUEST_PERIOD_US);
        (void)poll(&guest);
    }
    hurry = serial.output != NULL && poll(&serial) > 0 ? HURRY : hurry - (hurry > 0);
    return hurry > 0;
}
