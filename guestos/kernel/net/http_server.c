#include "guestos/kernel/net/http_server.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/net/lwip.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/url.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define MAX_CLIENTS 16u
#define REQUEST_MAX 2048u
#define HALF_SECONDS 2u /* of lwIP's poll interval of half a second each */
#define IDLE_POLLS 60u  /* a client that takes or says nothing for so many polls is dropped */
#define LARGEST_WRITE 0xf000u

typedef unsigned long long number; /* what %llu takes */

struct client {
    struct tcp_pcb *pcb; /* NULL: this place is free */
    char request[REQUEST_MAX];
    u32 size;
    bool answered;
    u64 position, length; /* of the file */
    u32 idle;
};

static struct client clients[MAX_CLIENTS];
static struct tcp_pcb *listener;
static u64 requests, bytes_sent;

static void release(struct client *client)
{
    struct tcp_pcb *pcb = client->pcb;

    client->pcb = NULL;
    tcp_arg(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
}

/* After this the caller must tell lwIP, by ERR_ABRT, when it was aborted. */
static err_t end(struct client *client)
{
    struct tcp_pcb *pcb = client->pcb;

    release(client);
    if (tcp_close(pcb) == ERR_OK)
        return ERR_OK;
    tcp_abort(pcb);
    return ERR_ABRT;
}

/* As much of the file as the send buffer takes, in place; the pattern starts anew where it ends. */
static err_t send_file(struct client *client)
{
    while (client->position < client->length) {
        u64 at = client->position % NET_PATTERN_BYTES, left = client->length - client->position;
        u64 size = NET_PATTERN_BYTES - at < left ? NET_PATTERN_BYTES - at : left;
        if (size > tcp_sndbuf(client->pcb))
            size = tcp_sndbuf(client->pcb);
        if (size > LARGEST_WRITE)
            size = LARGEST_WRITE;
        if (size == 0 || tcp_write(client->pcb, net_pattern() + at, (u16)size, TCP_WRITE_FLAG_MORE) != ERR_OK)
            break;
        client->position += size;
        bytes_sent += size;
    }
    tcp_output(client->pcb);
    return client->position == client->length ? end(client) : ERR_OK;
}

static u32 status_page(char *text, u32 size)
{
    struct nic_counters nic = nic_sum_counters();

    return (u32)bh_snprintf(text, size,
                            "guestos, up for %llu ms\n%llu requests served before, %llu bytes of files sent\n"
                            "received: %llu frames, %llu bytes; sent: %llu frames, %llu bytes\n"
                            "/SIZE (/100M, /64K, /12345) is a file of that size\n",
                            (number)clock_us() / 1000, (number)requests, (number)bytes_sent, (number)nic.rx_frames,
                            (number)nic.rx_bytes, (number)nic.tx_frames, (number)nic.tx_bytes);
}

static err_t send_head(struct client *client, const char *status, const char *type, u64 length)
{
    char head[256];
    int size = bh_snprintf(head, sizeof(head),
                           "HTTP/1.1 %s\r\nServer: guestos\r\nContent-Type: %s\r\nContent-Length: %llu\r\n"
                           "Connection: close\r\n\r\n",
                           status, type, (number)length);

    return tcp_write(client->pcb, head, (u16)size, TCP_WRITE_FLAG_COPY | TCP_WRITE_FLAG_MORE);
}

static err_t send_text(struct client *client, const char *status, const char *text, u32 size, bool only_head)
{
    err_t error = send_head(client, status, "text/plain", size);

    if (error == ERR_OK && !only_head)
        error = tcp_write(client->pcb, text, (u16)size, TCP_WRITE_FLAG_COPY);
    tcp_output(client->pcb);
    return end(client);
}

static err_t answer(struct client *client, status_t status, const struct http_request *request)
{
    char text[512];

    client->answered = true;
    requests++;
    if (status == ERR_UNSUPPORTED)
        return send_text(client, "501 Not Implemented", "only GET and HEAD\n", 18, false);
    if (status != OK)
        return send_text(client, "400 Bad Request", "malformed\n", 10, false);
    if (strcmp(request->path, "/") == 0)
        return send_text(client, "200 OK", text, status_page(text, sizeof(text)), request->only_head);
    if (!http_parse_size(request->path, &client->length))
        return send_text(client, "404 Not Found", "no such file\n", 13, request->only_head);
    if (send_head(client, "200 OK", "application/octet-stream", client->length) != ERR_OK)
        return end(client);
    if (request->only_head)
        client->length = 0;
    return send_file(client);
}

static err_t on_received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct client *client = arg;
    struct http_request request;

    (void)error;
    client->idle = 0;
    if (p == NULL) /* a client that closed its side may still read what it asked for */
        return client->answered ? ERR_OK : end(client);
    if (!client->answered)
        client->size += pbuf_copy_partial(p, client->request + client->size, (u16)(REQUEST_MAX - client->size), 0);
    tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    if (client->answered)
        return ERR_OK;
    status_t status = http_parse_request(client->request, client->size, &request);
    if (status == ERR_BUSY && client->size < REQUEST_MAX)
        return ERR_OK;
    return answer(client, status, &request);
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t size)
{
    struct client *client = arg;

    (void)pcb;
    (void)size;
    client->idle = 0;
    return client->answered ? send_file(client) : ERR_OK;
}

static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
    struct client *client = arg;

    if (++client->idle < IDLE_POLLS)
        return client->answered ? send_file(client) : ERR_OK;
    release(client);
    tcp_abort(pcb);
    return ERR_ABRT;
}

static void on_error(void *arg, err_t error)
{
    struct client *client = arg;

    (void)error;
    client->pcb = NULL; /* lwIP has freed it */
}

static err_t on_accepted(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    if (error != ERR_OK || pcb == NULL)
        return ERR_VAL;
    for (u32 i = 0; i < MAX_CLIENTS; i++) {
        if (clients[i].pcb != NULL)
            continue;
        clients[i].pcb = pcb;
        clients[i].size = clients[i].idle = 0;
        clients[i].answered = false;
        clients[i].position = clients[i].length = 0;
        tcp_arg(pcb, &clients[i]);
        tcp_err(pcb, on_error);
        tcp_recv(pcb, on_received);
        tcp_sent(pcb, on_sent);
        tcp_poll(pcb, on_poll, HALF_SECONDS);
        return ERR_OK;
    }
    tcp_abort(pcb);
    return ERR_ABRT;
}

status_t http_server_start(u16 port)
{
    if (listener != NULL)
        return ERR_EXISTS;
    status_t status = net_listen(port, MAX_CLIENTS, &listener);
    if (status != OK)
        return status;
    tcp_accept(listener, on_accepted);
    return OK;
}

status_t http_server_stop(void)
{
    if (listener == NULL)
        return ERR_STATE;
    tcp_close(listener);
    listener = NULL;
    return OK;
}
