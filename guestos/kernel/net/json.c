#include "guestos/kernel/net/json.h"

#include "shared/lib/string.h"

#define LARGEST (~0ull >> 4) /* more digits than this holds are no number that anybody here means */

/* The string whose first character after the quotation mark is at `from`: where its closing mark stands, or `size`. */
static u32 end_of_string(const char *text, u32 size, u32 from)
{
    u32 at = from;

    while (at < size && text[at] != '"')
        at += text[at] == '\\' ? 2 : 1;
    return at < size ? at : size;
}

static u32 skip_blanks(const char *text, u32 size, u32 at)
{
    while (at < size && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n'))
        at++;
    return at;
}

static bool is_word(const char *text, u32 size, u32 at, const char *word)
{
    u32 length = (u32)strlen(word);

    return size - at >= length && memcmp(text + at, word, length) == 0;
}

static bool read_value(const char *text, u32 size, u32 at, i64 *value)
{
    bool negative = at < size && text[at] == '-';
    u64 number = 0;
    u32 first = at + negative;

    if (is_word(text, size, at, "true") || is_word(text, size, at, "false")) {
        *value = text[at] == 't';
        return true;
    }
    for (at = first; at < size && text[at] >= '0' && text[at] <= '9'; at++) {
        number = number * 10 + (u64)(text[at] - '0');
        if (number > LARGEST)
            return false;
    }
    *value = negative ? -(i64)number : (i64)number;
    return at > first;
}

bool json_find_number(const char *text, u32 size, u32 *at, const char *key, i64 *value)
{
    u32 length = (u32)strlen(key);

    for (u32 i = *at; i < size; i++) {
        if (text[i] != '"')
            continue;
        u32 name = i + 1, end = end_of_string(text, size, name);
        if (end == size)
            return false;
        i = end;
        u32 colon = skip_blanks(text, size, end + 1);
        if (colon >= size || text[colon] != ':' || end - name != length || memcmp(text + name, key, length) != 0)
            continue;
        if (read_value(text, size, skip_blanks(text, size, colon + 1), value)) {
            *at = colon + 1;
            return true;
        }
    }
    return false;
}
