#include "shared/lib/printf.h"
#include "shared/lib/string.h"

/* Where the text goes. length counts what the whole text needs, also past the end of the buffer. */
struct sink {
    char *buf;
    size_t size;
    size_t length;
};

/* One conversion as written between % and its letter. */
struct spec {
    bool left;
    bool zero;
    size_t width;
    bool has_precision;
    size_t precision;
    char length; /* 0, 'H' for hh, 'h', 'l' (also for ll: both have 64 bits here) or 'z' */
    char conversion;
};

/* Widths beyond this are typing errors; the bound keeps the sums below from overflowing. */
#define WIDTH_MAX 4096u

static void put(struct sink *sink, char c)
{
    if (sink->length < sink->size)
        sink->buf[sink->length] = c;
    sink->length++;
}

static void put_repeated(struct sink *sink, char c, size_t count)
{
    while (count-- > 0)
        put(sink, c);
}

static void put_text(struct sink *sink, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        put(sink, text[i]);
}

/* [spaces] prefix [zeros] body [spaces]: the one layout that all conversions share. */
static void put_field(struct sink *sink, const struct spec *spec, const char *prefix, size_t zeros, const char *body,
                      size_t body_length)
{
    size_t used = strlen(prefix) + zeros + body_length;
    size_t pad = spec->width > used ? spec->width - used : 0;

    if (!spec->left)
        put_repeated(sink, ' ', pad);
    put_text(sink, prefix, strlen(prefix));
    put_repeated(sink, '0', zeros);
    put_text(sink, body, body_length);
    if (spec->left)
        put_repeated(sink, ' ', pad);
}

static void put_number(struct sink *sink, const struct spec *spec, const char *prefix, u64 value, u32 base)
{
    const char *digits = spec->conversion == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    char text[20]; /* 2^64 - 1 has 20 decimal digits */
    size_t start = sizeof(text);
    size_t zeros = 0;

    for (u64 rest = value; rest > 0; rest /= base)
        text[--start] = digits[rest % base];
    if (value == 0 && !(spec->has_precision && spec->precision == 0))
        text[--start] = '0'; /* with the precision 0, C prints nothing at all for a zero */

    size_t length = sizeof(text) - start;
    size_t used = strlen(prefix) + length;
    if (spec->has_precision)
        zeros = spec->precision > length ? spec->precision - length : 0;
    else if (spec->zero && !spec->left && spec->width > used)
        zeros = spec->width - used;
    put_field(sink, spec, prefix, zeros, text + start, length);
}

static i64 narrow_signed(char length, i64 value)
{
    switch (length) {
    case 'H':
        return (signed char)value;
    case 'h':
        return (short)value;
    default:
        return value;
    }
}

static u64 narrow_unsigned(char length, u64 value)
{
    switch (length) {
    case 'H':
        return (unsigned char)value;
    case 'h':
        return (unsigned short)value;
    default:
        return value;
    }
}

static size_t parse_decimal(const char **at)
{
    size_t value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        value = value * 10 + (size_t)(**at - '0');
        if (value > WIDTH_MAX)
            value = WIDTH_MAX;
    }
    return value;
}

static char parse_length(const char **at)
{
    char length = **at;

    if (length != 'h' && length != 'l' && length != 'z')
        return 0;
    (*at)++;
    if (length != 'z' && **at == length) {
        (*at)++;
        return length == 'h' ? 'H' : 'l';
    }
    return length;
}

/* Parse what follows a '%'. Returns what follows the conversion, NULL for one that is not known. */
static const char *parse_spec(const char *at, struct spec *spec)
{
    *spec = (struct spec){0};
    for (; *at == '-' || *at == '0'; at++) {
        spec->left |= *at == '-';
        spec->zero |= *at == '0';
    }
    spec->width = parse_decimal(&at);
    if (*at == '.') {
        at++;
        spec->has_precision = true;
        spec->precision = parse_decimal(&at);
    }
    spec->length = parse_length(&at);
    spec->conversion = *at;
    return *at != '\0' && strchr("csdiuxXp%", *at) != NULL ? at + 1 : NULL;
}

static void put_string(struct sink *sink, const struct spec *spec, const char *text)
{
    if (text == NULL)
        text = "(null)";
    size_t length = spec->has_precision ? strnlen(text, spec->precision) : strlen(text);
    put_field(sink, spec, "", 0, text, length);
}

static void put_conversion(struct sink *sink, const struct spec *spec, va_list *args)
{
    bool wide = spec->length == 'l' || spec->length == 'z';

    switch (spec->conversion) {
    case 'c': {
        char c = (char)va_arg(*args, int);
        put_field(sink, spec, "", 0, &c, 1);
        break;
    }
    case 's':
        put_string(sink, spec, va_arg(*args, const char *));
        break;
    case 'd':
    case 'i': {
        i64 value = narrow_signed(spec->length, wide ? va_arg(*args, i64) : va_arg(*args, int));
        /* Negated as unsigned: the smallest number has no positive twin. */
        put_number(sink, spec, value < 0 ? "-" : "", value < 0 ? 0 - (u64)value : (u64)value, 10);
        break;
    }
    case 'u':
    case 'x':
    case 'X': {
        u64 value = narrow_unsigned(spec->length, wide ? va_arg(*args, u64) : va_arg(*args, unsigned));
        put_number(sink, spec, "", value, spec->conversion == 'u' ? 10 : 16);
        break;
    }
    case 'p':
        put_number(sink, spec, "0x", (uintptr_t)va_arg(*args, void *), 16);
        break;
    default:
        put(sink, '%');
    }
}

int bh_vsnprintf(char *buf, size_t size, const char *fmt, va_list args)
{
    struct sink sink = {.buf = buf, .size = size};
    va_list rest; /* a va_list parameter may be a pointer; a copy of our own can be passed on by address */

    va_copy(rest, args);
    while (*fmt != '\0') {
        if (*fmt != '%') {
            put(&sink, *fmt++);
            continue;
        }
        struct spec spec;
        const char *next = parse_spec(fmt + 1, &spec);
        if (next == NULL) {
            /* The size of its argument is unknown, so nothing after it may be fetched: the rest as it stands. */
            put_text(&sink, fmt, strlen(fmt));
            break;
        }
        put_conversion(&sink, &spec, &rest);
        fmt = next;
    }
    va_end(rest);
    if (size > 0)
        buf[sink.length < size ? sink.length : size - 1] = '\0';
    return (int)sink.length;
}

int bh_snprintf(char *buf, size_t size, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    int length = bh_vsnprintf(buf, size, fmt, args);
    va_end(args);
    return length;
}
