#include "guestos/kernel/shell/drvctl_text.h"

#include "shared/lib/string.h"

#define WORD_MAX 128u

bool drvctl_is(const char *line, const char *kind)
{
    size_t length = strlen(kind);

    return strncmp(line, kind, length) == 0 && (line[length] == ' ' || line[length] == '\0');
}

/* Copy [from, to) into text, cut to size. */
static void copy(char *text, u32 size, const char *from, const char *to)
{
    u32 length = (u64)(to - from) < size - 1 ? (u32)(to - from) : size - 1;

    memcpy(text, from, length);
    text[length] = '\0';
}

bool drvctl_next(const char **at, char *key, u32 key_size, char *value, u32 value_size)
{
    for (const char *word = *at; *word != '\0';) {
        const char *end = word;
        while (*end != '\0' && *end != ' ' && *end != '=')
            end++;
        if (*end != '=') { /* the kind, or blanks */
            word = *end == ' ' ? end + 1 : end;
            continue;
        }
        bool quoted = end[1] == '"';
        const char *from = end + 1 + quoted, *to = from;
        while (*to != '\0' && *to != (quoted ? '"' : ' '))
            to++;
        copy(key, key_size, word, end);
        copy(value, value_size, from, to);
        *at = *to == '\0' ? to : to + 1;
        return true;
    }
    return false;
}

bool drvctl_text(const char *line, const char *key, char *value, u32 size)
{
    char name[WORD_MAX];

    while (drvctl_next(&line, name, sizeof(name), value, size))
        if (strcmp(name, key) == 0)
            return true;
    value[0] = '\0';
    return false;
}

u64 drvctl_number(const char *line, const char *key)
{
    char text[24];
    u64 value;

    return drvctl_text(line, key, text, sizeof(text)) && str_to_u64(text, &value) ? value : 0;
}
