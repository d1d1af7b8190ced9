/*
 * The shell: one line, commands separated by ';', words separated by blanks, "double quotes" for blanks in a word, $?
 * for the last status. Statuses: 0 success, 1 failure, 2 wrong usage, 127 no such command, 130 interrupted by Ctrl-C.
 */
#pragma once

#include "guestos/kernel/shell/args.h"

#define SHELL_PROMPT "guestos> "

enum shell_status {
    SHELL_OK = 0,
    SHELL_FAILED = 1,
    SHELL_USAGE = 2,
    SHELL_NOT_FOUND = 127,
    SHELL_INTERRUPTED = 130,
};

struct shell_command {
    const char *name;
    const char *usage;
    const char *help;
    int (*run)(struct args *args);
};

extern const struct shell_command shell_commands[];
extern const u32 shell_command_count;

/* Read and run lines for ever. */
__attribute__((noreturn)) void shell_run(void);

/* `status on`: print "[status N]" after each command. */
void shell_show_status(bool show);
