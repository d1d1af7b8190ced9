/* Arguments of a shell command: named options are taken out, what is left is positional. One thread. */
#pragma once

#include "shared/lib/types.h"

#define ARGS_MAX 32

struct args {
    const char *usage;
    int count; /* without the command's own name */
    char *value[ARGS_MAX];
    bool bad; /* an option had no or a malformed value */
};

/* A number, decimal or 0x-hex, with an optional K, M or G (powers of 1024). */
NODISCARD bool args_parse_number(const char *text, u64 *out);

/* Take the flag `name` out; whether it was there. */
bool args_take_flag(struct args *args, const char *name);

/* Take `name VALUE` out and store the value; *out keeps its default when the option is absent. Whether it was there. */
bool args_take_number(struct args *args, const char *name, u64 *out);

/* The same for `name TEXT`. */
bool args_take_text(struct args *args, const char *name, const char **out);

/* Take the first positional out. There must be one. */
char *args_shift(struct args *args);

/* Positional number `index` into *out. False when there is none or it is malformed. */
NODISCARD bool args_number(const struct args *args, int index, u64 *out);

/* After all options were taken: min..max positionals are left and no option was bad or unknown. Else prints the usage.
 */
NODISCARD bool args_check(const struct args *args, int min, int max);
