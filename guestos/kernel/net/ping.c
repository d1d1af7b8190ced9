#include "guestos/kernel/net/ping.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/support.h"
#include "shared/lib/string.h"

#define INTERVAL_US 1000000u
#define REPLY_US 2000000u

/* The one request that is out. */
struct request {
    struct ping *ping;
    u16 id, sequence;
    u64 sent_us;
    bool replied;
};

static u8 payload_byte(u32 at)
{
    return (u8)(at * 7 + 1);
}

static bool payload_matches(struct pbuf *p, u16 offset, u64 size)
{
    for (u32 i = 0; i < size; i++)
        if (pbuf_get_at(p, (u16)(offset + i)) != payload_byte(i))
            return false;
    return true;
}

/* Sees every ICMP packet; 1 takes it, 0 leaves it to lwIP. */
static u8_t on_packet(void *arg, struct raw_pcb *pcb, struct pbuf *p, const ip_addr_t *from)
{
    struct request *request = arg;
    struct icmp_echo_hdr echo;
    u16 head = (u16)(ip_current_header_tot_len());

    (void)pcb;
    if (pbuf_copy_partial(p, &echo, sizeof(echo), head) != sizeof(echo) || echo.type != ICMP_ER ||
        echo.id != request->id || !ip_addr_cmp(from, &request->ping->address))
        return 0;
    if (echo.seqno == lwip_htons(request->sequence) && !request->replied &&
        p->tot_len == head + sizeof(echo) + request->ping->size &&
        payload_matches(p, (u16)(head + sizeof(echo)), request->ping->size)) {
        struct ping *ping = request->ping;
        u64 us = clock_us() - request->sent_us;
        request->replied = true;
        ping->received++;
        ping->total_us += us;
        ping->max_us = us > ping->max_us ? us : ping->max_us;
        ping->min_us = us < ping->min_us || ping->received == 1 ? us : ping->min_us;
        if (ping->reply != NULL)
            ping->reply(request->sequence, us);
    }
    pbuf_free(p);
    return 1;
}

static status_t send(struct raw_pcb *pcb, struct request *request)
{
    u64 size = request->ping->size;
    struct pbuf *p = pbuf_alloc(PBUF_IP, (u16)(sizeof(struct icmp_echo_hdr) + size), PBUF_RAM);

    if (p == NULL)
        return ERR_NO_MEMORY;
    struct icmp_echo_hdr *echo = p->payload;
    *echo = (struct icmp_echo_hdr){ICMP_ECHO, 0, 0, request->id, lwip_htons(request->sequence)};
    for (u32 i = 0; i < size; i++)
        ((u8 *)(echo + 1))[i] = payload_byte(i);
    echo->chksum = inet_chksum(echo, p->len);
    request->sent_us = clock_us();
    request->replied = false;
    err_t error = raw_sendto(pcb, p, &request->ping->address);
    pbuf_free(p);
    return error == ERR_OK ? OK : error == ERR_MEM ? ERR_NO_MEMORY : ERR_NOT_FOUND;
}

static bool is_replied(void *context)
{
    return ((struct request *)context)->replied;
}

static bool never(void *context)
{
    (void)context;
    return false;
}

status_t ping_run(struct ping *ping)
{
    struct request request = {.ping = ping, .id = (u16)net_random()};
    struct raw_pcb *pcb = raw_new(IP_PROTO_ICMP);
    u64 interval = ping->interval_us == 0 ? INTERVAL_US : ping->interval_us;
    status_t status = pcb == NULL ? ERR_NO_MEMORY : OK;

    if (pcb == NULL)
        return status;
    raw_bind_netif(pcb, ping->netif);
    raw_recv(pcb, on_packet, &request);
    while (ping->sent < ping->count && status == OK) {
        request.sequence++;
        status = send(pcb, &request);
        if (status != OK)
            break;
        ping->sent++;
        enum net_wait_result result = net_wait(is_replied, &request, REPLY_US);
        u64 spent = clock_us() - request.sent_us;
        if (result != NET_INTERRUPTED && spent < interval && ping->sent < ping->count)
            result = net_wait(never, NULL, interval - spent);
        if (result == NET_INTERRUPTED)
            status = ERR_STATE;
    }
    raw_remove(pcb);
    return status;
}
