#include "guestos/kernel/shell/args.h"

#include "guestos/kernel/dev/console.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

bool args_parse_number(const char *text, u64 *out)
{
    char digits[24];
    u64 unit = 1, value;
    size_t length = strlen(text);

    if (length == 0 || length >= sizeof(digits))
        return false;
    memcpy(digits, text, length + 1);
    switch (digits[length - 1]) {
    case 'K':
        unit = KIB(1);
        break;
    case 'M':
        unit = MIB(1);
        break;
    case 'G':
        unit = GIB(1);
        break;
    }
    if (unit != 1)
        digits[length - 1] = '\0';
    return str_to_u64(digits, &value) && mul_u64(value, unit, out);
}

static int find(const struct args *args, const char *name)
{
    for (int i = 0; i < args->count; i++)
        if (strcmp(args->value[i], name) == 0)
            return i;
    return -1;
}

static void take_out(struct args *args, int at, int count)
{
    args->count -= count;
    for (int i = at; i < args->count; i++)
        args->value[i] = args->value[i + count];
}

char *args_shift(struct args *args)
{
    char *first = args->value[0];

    take_out(args, 0, 1);
    return first;
}

bool args_take_flag(struct args *args, const char *name)
{
    int at = find(args, name);

    if (at < 0)
        return false;
    take_out(args, at, 1);
    return true;
}

bool args_take_text(struct args *args, const char *name, const char **out)
{
    int at = find(args, name);

    if (at < 0)
        return false;
    if (at + 1 >= args->count) {
        args->bad = true;
        return false;
    }
    *out = args->value[at + 1];
    take_out(args, at, 2);
    return true;
}

bool args_take_number(struct args *args, const char *name, u64 *out)
{
    const char *text;
    u64 value;

    if (!args_take_text(args, name, &text))
        return false;
    if (!args_parse_number(text, &value)) {
        args->bad = true;
        return false;
    }
    *out = value;
    return true;
}

bool args_number(const struct args *args, int index, u64 *out)
{
    return index < args->count && args_parse_number(args->value[index], out);
}

bool args_check(const struct args *args, int min, int max)
{
    bool good = !args->bad && args->count >= min && args->count <= max;

    for (int i = 0; i < args->count; i++)
        good = good && strncmp(args->value[i], "--", 2) != 0;
    if (!good)
        console_print("usage: %s\n", args->usage);
    return good;
}
