#include "guestos/kernel/net/net.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/background.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_pci.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/net/interface.h"
#include "guestos/kernel/net/support.h"
#include "guestos/kernel/shell/pattern.h"

#define RESOLVE_US 15000000u
#define PATTERN_SEED 1u
#define HEAP_FRAMES (MEM_SIZE / PAGE_SIZE + 1u) /* lwIP puts its own end mark behind the size it was told */

static bool present;
static status_t error = ERR_NOT_FOUND;
static u8 *pattern;

/* One round of everything that the network has to do; what it caused goes to the device in one notification. */
static void poll(void)
{
    interface_poll();
    sys_check_timeouts();
    interface_flush();
}

/* Also makes sure that the next frame wakes the thread, which is about to sleep. */
static void work_in_background(void)
{
    do {
        poll();
    } while (interface_enable_interrupts() && !uart_interrupted());
}

/* Buffers that last: they are taken once, before any command marks the arena. */
static status_t allocate(void)
{
    u64 sectors = (NET_PATTERN_BYTES + PATTERN_SECTOR - 1) / PATTERN_SECTOR;

    net_heap = (void *)frames_alloc(HEAP_FRAMES, PAGE_SIZE);
    pattern = arena_alloc(sectors * PATTERN_SECTOR, PAGE_SIZE);
    if (net_heap == NULL || pattern == NULL)
        return ERR_NO_MEMORY;
    for (u64 i = 0; i < sectors; i++)
        pattern_fill(pattern + i * PATTERN_SECTOR, PATTERN_SEED, i, 0);
    return OK;
}

void net_init(void)
{
    u64 mark = arena_mark();

    error = virtio_count(VIRTIO_ID_NET) > 0 ? OK : ERR_NOT_FOUND;
    if (error == OK)
        error = allocate();
    if (error == OK) {
        net_random_init();
        lwip_init();
        error = interface_init();
    }
    present = error == OK;
    if (present) {
        background_add(work_in_background);
        return;
    }
    arena_release(mark);
    if (net_heap != NULL)
        frames_free((u64)net_heap, HEAP_FRAMES);
}

bool net_is_present(void)
{
    return present;
}

status_t net_error(void)
{
    return error;
}

enum net_wait_result net_wait(bool (*done)(void *context), void *context, u64 us)
{
    u64 deadline = clock_us() + us;

    for (;;) {
        u64 serial = interrupt_serial();
        poll();
        bool is_done = done(context);
        interface_flush();
        if (is_done)
            return NET_DONE;
        if (uart_interrupted())
            return NET_INTERRUPTED;
        u64 now = clock_us();
        if (now >= deadline)
            return NET_TIMEOUT;
        if (interface_enable_interrupts())
            continue;
        u64 wake = now + sys_timeouts_sleeptime() * 1000ull;
        clock_wait_until(serial, wake < deadline ? wake : deadline);
    }
}

void net_set_address(struct netif *netif, ip4_addr_t address, u32 prefix, ip4_addr_t gateway, ip4_addr_t dns)
{
    ip4_addr_t mask = {lwip_htonl(prefix == 0 ? 0 : ~0u << (32 - prefix))};
    ip_addr_t server = dns;

    dhcp_release_and_stop(netif);
    netif_set_addr(netif, &address, &mask, &gateway);
    /* Another card's name server stays when this one has none to offer. */
    if (!ip4_addr_isany_val(dns) || netif == netif_default)
        dns_setserver(0, &server);
}

static bool has_address(void *context)
{
    return dhcp_supplied_address(context) != 0;
}

status_t net_use_dhcp(struct netif *netif, u64 us)
{
    dhcp_release_and_stop(netif);
    if (dhcp_start(netif) != ERR_OK)
        return ERR_NO_MEMORY;
    switch (net_wait(has_address, netif, us)) {
    case NET_DONE:
        return OK;
    case NET_TIMEOUT:
        return ERR_TIMEOUT; /* it goes on asking in the background */
    default:
        return ERR_STATE;
    }
}

/* One question at a time; an answer that comes after its question was given up is for nobody. */
static struct question {
    u32 number;
    bool answered, found;
    ip_addr_t address;
} question;

static void on_answer(const char *name, const ip_addr_t *address, void *number)
{
    (void)name;
    if ((u64)number != question.number)
        return;
    question.answered = true;
    question.found = address != NULL;
    if (address != NULL)
        question.address = *address;
}

static bool is_answered(void *context)
{
    (void)context;
    return question.answered;
}

status_t net_resolve(const char *host, ip_addr_t *address)
{
    question = (struct question){.number = question.number + 1};
    err_t asked = dns_gethostbyname(host, address, on_answer, (void *)(u64)question.number);
    if (asked == ERR_OK)
        return OK; /* an address, or a name that is known already */
    if (asked != ERR_INPROGRESS)
        return ERR_NOT_FOUND;
    enum net_wait_result waited = net_wait(is_answered, NULL, RESOLVE_US);
    question.number++;
    if (waited != NET_DONE)
        return waited == NET_TIMEOUT ? ERR_TIMEOUT : ERR_STATE;
    *address = question.address;
    return question.found ? OK : ERR_NOT_FOUND;
}

status_t net_listen(u16 port, u8 backlog, struct tcp_pcb **listener)
{
    struct tcp_pcb *pcb = tcp_new();

    if (pcb == NULL)
        return ERR_NO_MEMORY;
    ip_set_option(pcb, SOF_REUSEADDR);
    status_t status = tcp_bind(pcb, IP_ADDR_ANY, port) == ERR_OK ? OK : ERR_BUSY;
    *listener = status == OK ? tcp_listen_with_backlog(pcb, backlog) : NULL;
    if (*listener != NULL)
        return OK;
    tcp_abort(pcb);
    return status == OK ? ERR_NO_MEMORY : status;
}

const u8 *net_pattern(void)
{
    return pattern;
}
