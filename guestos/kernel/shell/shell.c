#include "guestos/kernel/shell/shell.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_blk.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/line.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define STATUS_WORD "$?"

static int last_status;
static bool show_status;
static char status_text_buffer[12];

void shell_show_status(bool show)
{
    show_status = show;
}

/* Copy the word at `in` to *store without its quotes, terminate it, and return what follows it. */
static const char *copy_word(const char *in, char **store)
{
    bool quoted = false;

    for (; *in != '\0' && (quoted || strchr(" \t;", *in) == NULL); in++) {
        if (*in == '"')
            quoted = !quoted;
        else
            *(*store)++ = *in;
    }
    *(*store)++ = '\0';
    return in;
}

/* Take one command (up to ';' outside quotes) off *text and copy its words to store. -1: more words than ARGS_MAX. */
static int split_words(const char **text, char *store, char *word[ARGS_MAX])
{
    const char *in = *text;
    int count = 0;

    for (;;) {
        while (*in == ' ' || *in == '\t')
            in++;
        if (*in == '\0' || *in == ';')
            break;
        if (count == ARGS_MAX) {
            *text = "";
            return -1;
        }
        word[count++] = store;
        in = copy_word(in, &store);
    }
    *text = *in == ';' ? in + 1 : in;
    return count;
}

static const struct shell_command *find_command(const char *name)
{
    for (u32 i = 0; i < shell_command_count; i++)
        if (strcmp(shell_commands[i].name, name) == 0)
            return &shell_commands[i];
    return NULL;
}

static int run_command(int count, char **word)
{
    const struct shell_command *command = find_command(word[0]);

    if (command == NULL) {
        console_print("%s: no such command; try help\n", word[0]);
        return SHELL_NOT_FOUND;
    }
    struct args args = {.usage = command->usage, .count = count - 1};
    for (int i = 1; i < count; i++)
        args.value[i - 1] = strcmp(word[i], STATUS_WORD) == 0 ? status_text_buffer : word[i];
    u64 mark = arena_mark();
    uart_clear_interrupted();
    int status = command->run(&args);
    /* The command's buffers end here; a device that still holds a request must not write to them later. */
    for (u32 i = 0; i < blk_count(); i++) {
        struct blk *disk = blk_get(i);
        if (blk_in_flight(disk) == 0)
            continue;
        status_t restarted = blk_restart(disk);
        console_print("shell: requests were left in flight, %s reset: %s\n", blk_get_info(disk)->name,
                      status_text(restarted));
    }
    arena_release(mark);
    return status;
}

static void run_line(const char *line)
{
    static char store[2 * LINE_MAX]; /* each word grows by its terminator at most */

    while (*line != '\0') {
        char *word[ARGS_MAX];
        int count = split_words(&line, store, word);
        if (count == 0)
            continue;
        bh_snprintf(status_text_buffer, sizeof(status_text_buffer), "%d", last_status);
        if (count < 0)
            console_print("shell: too many words\n");
        last_status = count < 0 ? SHELL_USAGE : run_command(count, word);
        if (show_status)
            console_print("[status %d]\n", last_status);
        if (last_status == SHELL_INTERRUPTED)
            break;
    }
}

void shell_run(void)
{
    static char line[LINE_MAX];

    for (;;) {
        line_read(SHELL_PROMPT, line);
        run_line(line);
    }
}
