/* http URLs and the first lines of HTTP messages (RFC 9110, 9112). Pure. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define URL_HOST_MAX 128u
#define URL_PATH_MAX 384u

struct url {
    char host[URL_HOST_MAX]; /* a name or an IPv4 address */
    u16 port;
    char path[URL_PATH_MAX]; /* begins with '/', query included */
};

/* [http://]HOST[:PORT][/PATH]. ERR_UNSUPPORTED: another scheme, or user information. ERR_FORMAT, ERR_RANGE (too long).
 */
NODISCARD status_t url_parse(const char *text, struct url *url);

struct http_response {
    u32 status; /* 200 and so on */
    bool has_length;
    u64 length; /* of the body */
    u32 size;   /* of the head, with the empty line that ends it */
};

/* ERR_BUSY: the head does not end within `size` bytes. ERR_FORMAT. ERR_UNSUPPORTED: a transfer coding. */
NODISCARD status_t http_parse_response(const char *head, u32 size, struct http_response *response);

struct http_request {
    bool only_head; /* HEAD instead of GET */
    char path[URL_PATH_MAX];
    u32 size;
};

/* The same errors; ERR_UNSUPPORTED: another method. ERR_RANGE: the path is too long. */
NODISCARD status_t http_parse_request(const char *head, u32 size, struct http_request *request);

/* Bytes that a path like "/100M", "/64K" or "/12345" asks for (powers of 1024). False: it is none. */
NODISCARD bool http_parse_size(const char *path, u64 *bytes);
