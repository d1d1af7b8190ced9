/* http: fetch a file and say how fast and what it was; serve files in the background. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/net/connection.h"
#include "guestos/kernel/net/http_server.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/url.h"
#include "guestos/kernel/shell/command_net.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/sha256.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define HEAD_MAX 4096u
#define IDLE_US 60000000u /* without a byte for so long, a transfer is given up */

typedef unsigned long long number; /* what %llu takes */

struct transfer {
    char head[HEAD_MAX];
    u32 head_size;
    bool has_head;
    status_t error; /* of the head */
    struct http_response response;
    bool hashes;
    struct sha256 hash;
    u64 bytes; /* of the body */
    u64 longest_gap_us, last_us;
    struct connection connection;
};

static struct transfer transfer;

static void take_body(struct transfer *t, const u8 *data, u32 size)
{
    t->bytes += size;
    if (t->hashes)
        sha256_update(&t->hash, data, size);
}

/* Collect the head; whatever follows it in the same piece is body. */
static void take_head(struct transfer *t, const u8 *data, u32 size)
{
    u32 before = t->head_size;
    u32 part = size < HEAD_MAX - before ? size : HEAD_MAX - before;

    memcpy(t->head + before, data, part);
    t->head_size += part;
    t->error = http_parse_response(t->head, t->head_size, &t->response);
    if (t->error == ERR_BUSY && t->head_size < HEAD_MAX)
        return;
    t->has_head = true;
    if (t->error == OK)
        take_body(t, data + (t->response.size - before), size - (t->response.size - before));
}

static void on_data(void *context, const u8 *data, u32 size)
{
    struct transfer *t = context;
    u64 now = clock_us();

    if (now - t->last_us > t->longest_gap_us)
        t->longest_gap_us = now - t->last_us;
    t->last_us = now;
    if (t->has_head)
        take_body(t, data, size);
    else
        take_head(t, data, size);
}

static bool is_over(void *context)
{
    const struct transfer *t = context;

    return t->connection.finished ||
           (t->has_head && (t->error != OK || (t->response.has_length && t->bytes >= t->response.length)));
}

/* Wait for the end, patiently as long as something comes. */
static status_t receive(struct transfer *t)
{
    for (;;) {
        u64 before = t->bytes;
        switch (net_wait(is_over, t, IDLE_US)) {
        case NET_DONE:
            return OK;
        case NET_INTERRUPTED:
            return ERR_STATE;
        default:
            if (t->bytes == before)
                return ERR_TIMEOUT;
        }
    }
}

static status_t judge(const struct transfer *t)
{
    if (!t->has_head)
        return t->connection.lost ? ERR_IO : ERR_FORMAT;
    if (t->error != OK)
        return t->error == ERR_BUSY ? ERR_RANGE : t->error;
    if (t->response.has_length && t->bytes != t->response.length)
        return ERR_IO; /* shorter or longer than announced */
    return t->connection.lost ? ERR_IO : OK;
}

static void report(struct transfer *t, u64 us)
{
    char digest[2 * SHA256_SIZE + 1] = "";
    u64 rate = stream_rate_tenths(t->bytes, us);

    if (t->hashes)
        sha256_finish_hex(&t->hash, digest);
    console_print("http: status %u, %llu bytes in %llu ms, %llu.%llu MB/s%s%s\n", t->response.status, (number)t->bytes,
                  (number)us / 1000, (number)rate / 10, (number)rate % 10, t->hashes ? ", sha256 " : "", digest);
    console_print("json {\"status\":%u,\"bytes\":%llu,\"elapsed_us\":%llu,\"mb_per_s\":%llu.%llu,"
                  "\"longest_gap_us\":%llu,\"sha256\":\"%s\"}\n",
                  t->response.status, (number)t->bytes, (number)us, (number)rate / 10, (number)rate % 10,
                  (number)t->longest_gap_us, digest);
}

static status_t fetch(struct transfer *t, const struct url *url)
{
    char request[URL_PATH_MAX + URL_HOST_MAX + 64];
    status_t status = connection_open(&t->connection, url->host, url->port);

    if (status != OK)
        return status;
    /* Version 1.0: the answer then comes as it is, without chunks. */
    int size = bh_snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: guestos\r\n\r\n",
                           url->path, url->host);
    t->last_us = clock_us();
    status = connection_send(&t->connection, request, (u32)size);
    if (status == OK)
        status = receive(t);
    connection_close(&t->connection);
    return status == OK ? judge(t) : status;
}

static int command_http_get(struct args *args)
{
    static struct url url;
    bool hashes = args_take_flag(args, "sha256"), discards = args_take_flag(args, "discard");

    if (!args_check(args, 1, 1) || (hashes && discards)) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    status_t status = url_parse(args->value[0], &url);
    if (status != OK) {
        console_print("http: not a URL that this understands: %s\n", status_text(status));
        return SHELL_USAGE;
    }
    memset(&transfer, 0, sizeof(transfer));
    transfer.hashes = !discards;
    transfer.connection.received = on_data;
    transfer.connection.context = &transfer;
    sha256_init(&transfer.hash);
    u64 start = clock_us();
    status = fetch(&transfer, &url);
    if (transfer.has_head && transfer.error == OK)
        report(&transfer, clock_us() - start);
    if (status != OK)
        return command_failed("http", args->value[0], status);
    return transfer.response.status == 200 ? SHELL_OK : SHELL_FAILED;
}

static int command_http_serve(struct args *args)
{
    u64 port = 80;

    if (!args_check(args, 0, 1))
        return SHELL_USAGE;
    if ((args->count == 1 && !args_number(args, 0, &port)) || port == 0 || port > 65535) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    status_t status = http_server_start((u16)port);
    if (status != OK)
        return command_failed("http", "serve", status);
    console_print("http: serving on port %llu until `http stop`\n", (number)port);
    return SHELL_OK;
}

static int command_http_stop(struct args *args)
{
    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    status_t status = http_server_stop();
    if (status == OK)
        return SHELL_OK;
    console_print("http: nothing is served\n");
    return SHELL_FAILED;
}

int command_http(struct args *args)
{
    static const struct shell_command subcommands[] = {
        {"get", "http get URL [sha256|discard]", "fetch, and print bytes, rate and SHA-256", command_http_get},
        {"serve", "http serve [PORT]", "serve / and files like /100M in the background", command_http_serve},
        {"stop", "http stop", "serve no more", command_http_stop},
    };

    return command_run_sub(args, subcommands, ARRAY_SIZE(subcommands));
}
