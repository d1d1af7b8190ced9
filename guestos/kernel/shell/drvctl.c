#include "guestos/kernel/shell/drvctl.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/virtio_console.h"
#include "guestos/kernel/shell/drvctl_text.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define ANSWER_US 5000000u

static char line[DRVCTL_LINE];
static u32 line_length;

/* The next line of what arrives. */
static status_t next_line(u64 deadline)
{
    line_length = 0;
    for (;;) {
        char c;
        u32 received;
        status_t status = vcon_receive(&c, 1, &received, deadline);
        if (status != OK)
            return status;
        if (c == '\n')
            break;
        if (line_length < DRVCTL_LINE - 1 && c != '\r')
            line[line_length++] = c;
    }
    line[line_length] = '\0';
    return OK;
}

static status_t exchange(const char *command, void (*take)(const char *line, void *context), void *context)
{
    static char text[1200];
    u64 deadline = clock_us() + ANSWER_US;

    bh_snprintf(text, sizeof(text), "%s\n", command);
    status_t status = vcon_send(text, (u32)strlen(text), deadline);
    while (status == OK && (status = next_line(deadline)) == OK) {
        if (strcmp(line, "ok") == 0)
            return OK;
        if (drvctl_is(line, "error"))
            return ERR_DENIED;
        take(line, context);
    }
    return status;
}

status_t drvctl_ask(const char *command, void (*take)(const char *line, void *context), void *context, char *why,
                    u32 size)
{
    status_t status = vcon_error();

    if (status != OK)
        return status;
    status = exchange(command, take, context);
    if (status == ERR_DENIED)
        (void)str_copy(why, size, line + (line_length > 6 ? 6 : line_length)); /* behind "error " */
    else if (status != OK && vcon_restart() != OK)
        return ERR_IO;
    return status;
}
