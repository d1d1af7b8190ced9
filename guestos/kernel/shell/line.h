/* One line typed at the console, edited in place. */
#pragma once

#include "shared/lib/types.h"

#define LINE_MAX 512u

/*
 * Print the prompt and read a line into line[LINE_MAX], terminated. Backspace, Ctrl-U (erase), Ctrl-C (drop the line),
 * up and down arrows (history).
 */
void line_read(const char *prompt, char *line);
