#include "guestos/kernel/net/connection.h"

#include "guestos/kernel/net/net.h"

#define CONNECT_US 20000000u
#define SEND_US 60000000u
#define FOR_EVER (~0ull / 4)
#define LARGEST_WRITE 0x8000u

static void on_error(void *arg, err_t error)
{
    struct connection *connection = arg;

    (void)error;
    connection->pcb = NULL; /* lwIP has freed it */
    connection->lost = connection->finished = true;
}

static err_t on_received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct connection *connection = arg;

    (void)error;
    if (p == NULL) {
        connection->finished = true;
        return ERR_OK;
    }
    for (const struct pbuf *q = p; q != NULL; q = q->next)
        connection->received(connection->context, q->payload, q->len);
    if (connection->hold)
        connection->held += p->tot_len;
    else
        tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
}

static void attach(struct connection *connection, struct tcp_pcb *pcb)
{
    connection->pcb = pcb;
    tcp_arg(pcb, connection);
    tcp_err(pcb, on_error);
    tcp_recv(pcb, on_received);
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct connection *connection = arg;

    (void)pcb;
    (void)error;
    connection->connected = true;
    return ERR_OK;
}

static bool is_connected_or_lost(void *context)
{
    const struct connection *connection = context;

    return connection->connected || connection->lost;
}

static status_t status_of_wait(enum net_wait_result result)
{
    return result == NET_DONE ? OK : result == NET_TIMEOUT ? ERR_TIMEOUT : ERR_STATE;
}

status_t connection_open(struct connection *connection, const char *host, u16 port)
{
    ip_addr_t address;
    status_t status = net_resolve(host, &address);

    if (status != OK)
        return status;
    struct tcp_pcb *pcb = tcp_new();
    if (pcb == NULL)
        return ERR_NO_MEMORY;
    attach(connection, pcb);
    tcp_bind_netif(pcb, connection->netif);
    if (tcp_connect(pcb, &address, port, on_connected) != ERR_OK) {
        connection_close(connection);
        return ERR_NOT_FOUND; /* no way there: no address yet, for one */
    }
    status = status_of_wait(net_wait(is_connected_or_lost, connection, CONNECT_US));
    if (status == OK && connection->lost)
        status = ERR_DENIED;
    if (status != OK)
        connection_close(connection);
    return status;
}

static err_t on_accepted(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct connection *connection = arg;

    if (error != ERR_OK || pcb == NULL)
        return ERR_VAL;
    if (connection->connected) {
        tcp_abort(pcb); /* one at a time */
        return ERR_ABRT;
    }
    attach(connection, pcb);
    connection->connected = true;
    return ERR_OK;
}

status_t connection_accept(struct connection *connection, u16 port)
{
    struct tcp_pcb *listener;
    status_t status = net_listen(port, 1, &listener);

    if (status != OK)
        return status;
    tcp_bind_netif(listener, connection->netif);
    tcp_arg(listener, connection);
    tcp_accept(listener, on_accepted);
    status = status_of_wait(net_wait(is_connected_or_lost, connection, FOR_EVER));
    tcp_close(listener);
    return status;
}

struct writing {
    struct connection *connection;
    const u8 *data;
    u32 left;
};

static bool write_some(void *context)
{
    struct writing *writing = context;
    struct tcp_pcb *pcb = writing->connection->pcb;

    while (pcb != NULL && writing->left > 0) {
        u32 size = writing->left < LARGEST_WRITE ? writing->left : LARGEST_WRITE;
        if (size > tcp_sndbuf(pcb))
            size = tcp_sndbuf(pcb);
        if (size == 0 || tcp_write(pcb, writing->data, (u16)size, TCP_WRITE_FLAG_COPY) != ERR_OK)
            break;
        writing->data += size;
        writing->left -= size;
    }
    if (pcb != NULL)
        tcp_output(pcb);
    return pcb == NULL || writing->left == 0;
}

status_t connection_send(struct connection *connection, const void *data, u32 size)
{
    struct writing writing = {connection, data, size};
    status_t status = status_of_wait(net_wait(write_some, &writing, SEND_US));

    return status == OK && writing.left > 0 ? ERR_IO : status;
}

void connection_release(struct connection *connection)
{
    connection->hold = false;
    while (connection->pcb != NULL && connection->held > 0) {
        u16 part = connection->held < LARGEST_WRITE ? (u16)connection->held : LARGEST_WRITE;
        tcp_recved(connection->pcb, part);
        connection->held -= part;
    }
}

void connection_finish(struct connection *connection)
{
    if (connection->pcb != NULL)
        tcp_shutdown(connection->pcb, 0, 1);
}

void connection_close(struct connection *connection)
{
    struct tcp_pcb *pcb = connection->pcb;

    connection->pcb = NULL;
    if (pcb == NULL)
        return;
    tcp_arg(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_recv(pcb, NULL);
    if (tcp_close(pcb) != ERR_OK)
        tcp_abort(pcb);
}
