#include "guestos/kernel/shell/line.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "shared/lib/string.h"

#define HISTORY 16u
#define KEY_BACKSPACE 0x08
#define KEY_DELETE 0x7f
#define KEY_ERASE_LINE 0x15
#define KEY_ESCAPE 0x1b

static char history[HISTORY][LINE_MAX];
static u32 history_count; /* lines ever remembered; line n is in history[n % HISTORY] */
static char last_end;     /* CR LF, as some terminals send it, is one end of line */

static void erase(size_t *length)
{
    for (; *length > 0; --*length)
        console_print("\b \b");
}

static void show(char *line, size_t *length, const char *text)
{
    erase(length);
    str_copy(line, LINE_MAX, text);
    *length = strlen(line);
    console_print("%s", line);
}

/* The rest of an escape sequence: ESC [ A is up, ESC [ B down (ECMA-48 8.3.22); anything else is swallowed. */
static void edit_escape(char *line, size_t *length, u32 *position)
{
    if (console_read() != '[')
        return;
    char key = console_read();
    u32 oldest = history_count > HISTORY ? history_count - HISTORY : 0;
    if (key == 'A' && *position > oldest) {
        --*position;
        show(line, length, history[*position % HISTORY]);
    } else if (key == 'B' && *position < history_count) {
        ++*position;
        show(line, length, *position < history_count ? history[*position % HISTORY] : "");
    }
}

static void remember(const char *line)
{
    if (line[0] == '\0' || (history_count > 0 && strcmp(history[(history_count - 1) % HISTORY], line) == 0))
        return;
    str_copy(history[history_count++ % HISTORY], LINE_MAX, line);
}

/* Any key but end of line. */
static void edit(char key, char *line, size_t *length, u32 *position)
{
    if ((key == KEY_BACKSPACE || key == KEY_DELETE) && *length > 0) {
        --*length;
        console_print("\b \b");
    } else if (key == KEY_ERASE_LINE) {
        erase(length);
    } else if (key == KEY_ESCAPE) {
        edit_escape(line, length, position);
    } else if (key >= ' ' && key < KEY_DELETE && *length + 1 < LINE_MAX) {
        line[(*length)++] = key;
        console_print("%c", key);
    }
}

void line_read(const char *prompt, char *line)
{
    size_t length = 0;
    u32 position = history_count;

    console_print("%s", prompt);
    for (;;) {
        char key = console_read();
        bool second_half = key == '\n' && last_end == '\r';
        last_end = key;
        if (second_half)
            continue;
        if (key == '\r' || key == '\n')
            break;
        if (key == UART_INTERRUPT) {
            console_print("^C\n%s", prompt);
            length = 0;
            continue;
        }
        edit(key, line, &length, &position);
    }
    line[length] = '\0';
    console_print("\n");
    remember(line);
}
