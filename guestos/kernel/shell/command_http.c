/* http: fetch files, several at once if wanted, and say how fast and what they were; serve files in the background. */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/net/connection.h"
#include "guestos/kernel/net/http_server.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/url.h"
#include "guestos/kernel/shell/command_net.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/disk_writer.h"
#include "guestos/kernel/shell/sha256.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define HEAD_MAX 4096u
#define MAX_TRANSFERS 4u
#define IDLE_US 60000000u /* without a byte for so long, a transfer is given up */

typedef unsigned long long number; /* what %llu takes */

struct transfer {
    struct url url;
    char head[HEAD_MAX];
    u32 head_size;
    bool has_head;
    status_t error; /* of the head */
    struct http_response response;
    bool hashes, writes; /* what is done with the body */
    struct sha256 hash;
    char digest[2 * SHA256_SIZE + 1];
    u64 bytes; /* of the body */
    u64 start_us, end_us, longest_gap_us, last_us;
    struct connection connection;
};

static struct transfer transfers[MAX_TRANSFERS];
static u32 count; /* of them that take part */

static void take_body(struct transfer *t, const u8 *data, u32 size)
{
    t->bytes += size;
    if (t->hashes)
        sha256_update(&t->hash, data, size);
    if (!t->writes || t->response.status != 200)
        return;
    disk_writer_add(data, size);
    t->connection.hold = disk_writer_is_tight();
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

static bool is_over(const struct transfer *t)
{
    return t->connection.finished ||
           (t->has_head && (t->error != OK || (t->response.has_length && t->bytes >= t->response.length)));
}

static bool all_are_over(void *context)
{
    bool over = true;

    (void)context;
    for (u32 i = 0; i < count; i++) {
        struct transfer *t = &transfers[i];
        if (t->connection.held > 0 && disk_writer_is_tight())
            disk_writer_drain();
        if (t->connection.held > 0 && !disk_writer_is_tight())
            connection_release(&t->connection);
        if (!is_over(t))
            over = false;
        else if (t->end_us == 0)
            t->end_us = clock_us();
    }
    return over;
}

static u64 total_bytes(void)
{
    u64 bytes = 0;

    for (u32 i = 0; i < count; i++)
        bytes += transfers[i].bytes;
    return bytes;
}

/* Wait for the end, patiently as long as something comes. */
static status_t receive(void)
{
    for (;;) {
        u64 before = total_bytes();
        switch (net_wait(all_are_over, NULL, IDLE_US)) {
        case NET_DONE:
            return OK;
        case NET_INTERRUPTED:
            return ERR_STATE;
        default:
            if (total_bytes() == before)
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

/* The members of an object, without its braces. */
static void print_members(const struct transfer *t)
{
    u64 us = t->end_us - t->start_us, rate = stream_rate_tenths(t->bytes, us);

    console_print("\"status\":%u,\"bytes\":%llu,\"elapsed_us\":%llu,\"mb_per_s\":%llu.%llu,\"longest_gap_us\":%llu,"
                  "\"sha256\":\"%s\"",
                  t->response.status, (number)t->bytes, (number)us, (number)rate / 10, (number)rate % 10,
                  (number)t->longest_gap_us, t->digest);
}

/* For people a line each; one object: that of the only file, or one with all of them. */
static void report(void)
{
    for (u32 i = 0; i < count; i++) {
        const struct transfer *t = &transfers[i];
        u64 us = t->end_us - t->start_us, rate = stream_rate_tenths(t->bytes, us);
        console_print("http: status %u, %llu bytes in %llu ms, %llu.%llu MB/s%s%s\n", t->response.status,
                      (number)t->bytes, (number)us / 1000, (number)rate / 10, (number)rate % 10,
                      t->hashes ? ", sha256 " : "", t->digest);
    }
    console_print("json {");
    if (count > 1)
        console_print("\"bytes\":%llu,\"files\":[{", (number)total_bytes());
    for (u32 i = 0; i < count; i++) {
        if (i > 0)
            console_print("},{");
        print_members(&transfers[i]);
    }
    console_print(count > 1 ? "}]}\n" : "}\n");
}

/* Connect and ask; the answer comes later. */
static status_t ask(struct transfer *t)
{
    char request[URL_PATH_MAX + URL_HOST_MAX + 64];

    t->start_us = clock_us();
    status_t status = connection_open(&t->connection, t->url.host, t->url.port);
    if (status != OK)
        return status;
    /* Version 1.0: the answer then comes as it is, without chunks. */
    int size = bh_snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: guestos\r\n\r\n",
                           t->url.path, t->url.host);
    t->last_us = clock_us();
    return connection_send(&t->connection, request, (u32)size);
}

/* All transfers, from their beginning to their end. *failed: the one to which the status belongs. */
static status_t fetch(u32 *failed)
{
    status_t status = OK;
    bool reportable = true;

    for (*failed = 0; *failed < count && status == OK; ++*failed)
        status = ask(&transfers[*failed]);
    *failed -= status != OK;
    if (status == OK) {
        *failed = 0;
        status = receive();
    }
    for (u32 i = 0; i < count; i++) {
        struct transfer *t = &transfers[i];
        connection_close(&t->connection);
        if (t->end_us == 0)
            t->end_us = clock_us();
        reportable = reportable && t->has_head && t->error == OK;
        if (t->hashes)
            sha256_finish_hex(&t->hash, t->digest);
        if (status == OK && (status = judge(t)) != OK)
            *failed = i;
    }
    if (reportable)
        report();
    return status;
}

/* The words that are left are URLs. */
static bool prepare(struct args *args, struct netif *netif, bool hashes, bool writes)
{
    memset(transfers, 0, sizeof(transfers));
    for (count = 0; count < (u32)args->count; count++) {
        struct transfer *t = &transfers[count];
        status_t status = url_parse(args->value[count], &t->url);
        if (status != OK) {
            console_print("http: not a URL that this understands: %s\n", status_text(status));
            return false;
        }
        t->hashes = hashes;
        t->writes = writes;
        t->connection.received = on_data;
        t->connection.context = t;
        t->connection.netif = netif;
        sha256_init(&t->hash);
    }
    return true;
}

static int command_http_get(struct args *args)
{
    bool hashes = args_take_flag(args, "sha256"), discards = args_take_flag(args, "discard");
    const char *to = NULL;
    struct netif *netif;
    u32 failed;

    bool writes = args_take_text(args, "--to", &to);
    if (!command_take_card(args, &netif))
        return SHELL_FAILED;
    if (!args_check(args, 1, writes ? 1 : MAX_TRANSFERS) || (hashes && discards)) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    if (!prepare(args, netif, !discards, writes))
        return SHELL_USAGE;
    struct blk *disk = writes ? stream_find_disk(to) : NULL;
    if (writes && (disk == NULL || !disk_writer_open(disk)))
        return SHELL_FAILED;
    status_t status = fetch(&failed);
    if (status != OK)
        return command_failed("http", args->value[failed], status);
    for (u32 i = 0; i < count; i++)
        if (transfers[i].response.status != 200)
            return SHELL_FAILED;
    return writes ? disk_writer_finish() : SHELL_OK;
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
        {"get", "http get URL... [sha256|discard] [--to /dev/vda] [--if net1]",
         "fetch, several at once; print bytes, rate and SHA-256; --to: write to a disk", command_http_get},
        {"serve", "http serve [PORT]", "serve / and files like /100M in the background", command_http_serve},
        {"stop", "http stop", "serve no more", command_http_stop},
    };

    return command_run_sub(args, subcommands, ARRAY_SIZE(subcommands));
}
