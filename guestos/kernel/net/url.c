#include "guestos/kernel/net/url.h"

#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define SCHEME "http://"
#define HTTP_PORT 80u

/* Take up to `max` digits off *at. False: there is none, or more than max, or other things make it too large. */
static bool take_number(const char **at, u64 max, u64 *out)
{
    const char *from = *at;
    u64 value = 0;

    for (; **at >= '0' && **at <= '9'; (*at)++) {
        value = value * 10 + (u64)(**at - '0');
        if (value > max)
            return false;
    }
    *out = value;
    return *at != from;
}

static bool is_host_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
}

status_t url_parse(const char *text, struct url *url)
{
    const char *at = text;
    u64 port = HTTP_PORT;
    u32 size = 0;

    if (strncmp(at, SCHEME, sizeof(SCHEME) - 1) == 0)
        at += sizeof(SCHEME) - 1;
    for (const char *c = at; *c != '\0' && *c != '/'; c++)
        if (*c == '@')
            return ERR_UNSUPPORTED;
    for (; is_host_character(*at); at++) {
        if (size + 1 >= URL_HOST_MAX)
            return ERR_RANGE;
        url->host[size++] = *at;
    }
    url->host[size] = '\0';
    if (at[0] == ':' && at[1] == '/' && at[2] == '/')
        return ERR_UNSUPPORTED; /* what looked like a host was another scheme */
    if (*at == ':') {
        at++;
        if (!take_number(&at, 65535, &port) || port == 0)
            return ERR_FORMAT;
    }
    if (size == 0 || (*at != '\0' && *at != '/'))
        return ERR_FORMAT;
    url->port = (u16)port;
    for (const char *c = at; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~')
            return ERR_FORMAT; /* it would break the request's first line */
    return str_copy(url->path, sizeof(url->path), *at == '\0' ? "/" : at) ? OK : ERR_RANGE;
}

/* Where the head ends, after its empty line; 0: not within size. A lone line feed ends a line, too (RFC 9112, 2.2). */
static u32 find_end(const char *head, u32 size)
{
    for (u32 i = 0, line = 0; i < size; i++) {
        if (head[i] != '\n')
            continue;
        if (i == line || (i == line + 1 && head[line] == '\r'))
            return i + 1;
        line = i + 1;
    }
    return 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The value of the field `name` (lower case, with its colon) when the line at `line` is that field; else NULL. */
static const char *field_value(const char *line, const char *end, const char *name)
{
    for (; *name != '\0'; name++, line++)
        if (line >= end || lower(*line) != *name)
            return NULL;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    return line;
}

static status_t read_field(const char *line, const char *end, struct http_response *response)
{
    const char *value = field_value(line, end, "content-length:");
    u64 length;

    if (value != NULL) {
        /* The line feed at `end` stops the digits. */
        if (!take_number(&value, ~0ull / 16, &length) || (*value != '\r' && *value != '\n') ||
            (response->has_length && response->length != length))
            return ERR_FORMAT;
        response->has_length = true;
        response->length = length;
    }
    return field_value(line, end, "transfer-encoding:") != NULL ? ERR_UNSUPPORTED : OK;
}

status_t http_parse_response(const char *head, u32 size, struct http_response *response)
{
    u32 end = find_end(head, size), line = 0;
    u64 number;

    *response = (struct http_response){.size = end};
    if (end == 0)
        return ERR_BUSY;
    const char *at = head + 9;
    /* "HTTP/1.1 200 ..." */
    if (end < 14 || strncmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ' || !take_number(&at, 999, &number))
        return ERR_FORMAT;
    response->status = (u32)number;
    for (u32 i = 0; i < end; i++) {
        if (head[i] != '\n')
            continue;
        status_t status = line == 0 ? OK : read_field(head + line, head + i, response);
        if (status != OK)
            return status;
        line = i + 1;
    }
    return OK;
}

status_t http_parse_request(const char *head, u32 size, struct http_request *request)
{
    u32 end = find_end(head, size), length = 0, at = 4;

    *request = (struct http_request){.size = end};
    if (end == 0)
        return ERR_BUSY;
    if (end > 5 && strncmp(head, "HEAD ", 5) == 0) {
        request->only_head = true;
        at = 5;
    } else if (end <= 4 || strncmp(head, "GET ", 4) != 0) {
        return ERR_UNSUPPORTED;
    }
    for (; at < end && head[at] > ' ' && head[at] <= '~'; at++) {
        if (length + 1 >= URL_PATH_MAX)
            return ERR_RANGE;
        request->path[length++] = head[at];
    }
    return length > 0 && request->path[0] == '/' && head[at] == ' ' ? OK : ERR_FORMAT;
}

bool http_parse_size(const char *path, u64 *bytes)
{
    const char *at = path + 1;
    u64 unit = 1, value;

    if (path[0] != '/' || !take_number(&at, ~0ull / 16, &value))
        return false;
    if (*at == 'K' || *at == 'M' || *at == 'G') {
        unit = *at == 'K' ? KIB(1) : *at == 'M' ? MIB(1) : GIB(1);
        at++;
    }
    return *at == '\0' && mul_u64(value, unit, bytes);
}
