#include "guestos/kernel/net/interface.h"

#include "guestos/kernel/net/lwip/hooks.h"
#include "guestos/kernel/net/transmit.h"
#include "shared/lib/string.h"

#define MTU 1500u
#define RX_LOW 64u /* free buffers below which held frames out of order are given up */

struct interface;

/* A received frame's buffer as lwIP knows it. */
struct rx_pbuf {
    struct pbuf_custom custom; /* first: lwIP gives back a pointer to it */
    struct interface *interface;
    u16 index;
};

struct interface {
    struct nic *nic; /* NULL: the card is not usable */
    struct netif netif;
    u32 held; /* receive buffers in lwIP's hands */
    struct rx_pbuf rx_pbufs[NIC_RX_BUFFERS];
};

static struct interface interfaces[NIC_MAX]; /* by the card's number */

static void free_rx(struct pbuf *p)
{
    struct rx_pbuf *rx = (struct rx_pbuf *)p;

    rx->interface->held--;
    nic_return_buffer(rx->interface->nic, rx->index);
}

static struct pbuf *wrap(struct interface *interface, const struct nic_buffer *part)
{
    struct rx_pbuf *rx = &interface->rx_pbufs[part->index];

    rx->custom.custom_free_function = free_rx;
    rx->interface = interface;
    rx->index = part->index;
    interface->held++;
    return pbuf_alloced_custom(PBUF_RAW, (u16)part->length, PBUF_REF, &rx->custom, part->data, (u16)part->length);
}

/*
 * Segments that wait for an earlier one hold buffers. When they hold nearly all, the earlier one could not arrive any
 * more: let the sender send them again.
 */
static void release_out_of_order(const struct interface *interface)
{
    if (interface->held + RX_LOW < NIC_RX_BUFFERS)
        return;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        tcp_free_ooseq(pcb);
}

static void on_received(struct nic *nic, const struct nic_frame *frame)
{
    struct interface *interface = &interfaces[nic_get_info(nic)->index];
    struct netif *netif = &interface->netif;
    struct pbuf *p = wrap(interface, &frame->part[0]);

    for (u32 i = 1; i < frame->count; i++)
        pbuf_cat(p, wrap(interface, &frame->part[i]));
    /* lwIP checks per interface, the device vouches per frame. */
    u16 checks = NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    netif->chksum_flags = frame->verified ? netif->chksum_flags & (u16)~checks : netif->chksum_flags | checks;
    if (netif->input(p, netif) != ERR_OK)
        pbuf_free(p);
    release_out_of_order(interface);
}

static err_t link_output(struct netif *netif, struct pbuf *p)
{
    return transmit_frame(interface_nic(netif), p);
}

/* An address has come or gone. */
static void choose_default(struct netif *unused)
{
    struct netif *chosen = NULL;

    (void)unused;
    for (u32 i = 0; i < NIC_MAX && chosen == NULL; i++)
        if (interfaces[i].nic != NULL && !ip4_addr_isany(netif_ip4_addr(&interfaces[i].netif)))
            chosen = &interfaces[i].netif;
    netif_set_default(chosen);
}

struct netif *interface_of_source(const struct ip4_addr *source)
{
    if (source == NULL || ip4_addr_isany(source))
        return NULL;
    for (u32 i = 0; i < NIC_MAX; i++) {
        struct netif *netif = &interfaces[i].netif;
        if (interfaces[i].nic != NULL && ip4_addr_cmp(source, netif_ip4_addr(netif)) && netif_is_link_up(netif))
            return netif;
    }
    return NULL;
}

static err_t setup(struct netif *netif)
{
    struct nic *nic = interface_nic(netif);
    bool checksums;

    if (transmit_init(nic, &checksums) != OK)
        return ERR_MEM;
    netif->name[0] = 'e';
    netif->name[1] = 'n';
    netif->hostname = "guestos";
    netif->output = etharp_output;
    netif->linkoutput = link_output;
    netif->mtu = MTU;
    netif->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(netif->hwaddr, nic_get_info(nic)->mac, ETH_HWADDR_LEN);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    NETIF_SET_CHECKSUM_CTRL(netif, checksums ? NETIF_CHECKSUM_ENABLE_ALL & ~NETIF_CHECKSUM_GEN_TCP
                                             : NETIF_CHECKSUM_ENABLE_ALL);
    return ERR_OK;
}

static void follow_link(struct interface *interface)
{
    bool up = nic_get_info(interface->nic)->link_up;

    if (up == (netif_is_link_up(&interface->netif) != 0))
        return;
    if (up)
        netif_set_link_up(&interface->netif);
    else
        netif_set_link_down(&interface->netif);
}

static status_t add_interface(struct nic *nic)
{
    struct interface *interface = &interfaces[nic_get_info(nic)->index];

    if (!nic_get_info(nic)->present)
        return nic_get_info(nic)->error;
    interface->nic = nic;
    if (netif_add_noaddr(&interface->netif, interface, setup, ethernet_input) == NULL) {
        interface->nic = NULL;
        return ERR_NO_MEMORY;
    }
    netif_set_status_callback(&interface->netif, choose_default);
    netif_set_up(&interface->netif);
    follow_link(interface);
    return OK;
}

status_t interface_init(void)
{
    static const struct nic_callbacks callbacks = {on_received, transmit_done};
    status_t first = ERR_NOT_FOUND;

    nic_init(&callbacks);
    for (u32 i = 0; i < nic_count(); i++) {
        status_t status = add_interface(nic_get(i));
        if (i == 0 || status == OK)
            first = status;
    }
    return first;
}

struct netif *interface_get(u32 index)
{
    return index < NIC_MAX && interfaces[index].nic != NULL ? &interfaces[index].netif : NULL;
}

struct netif *interface_find(const char *name)
{
    for (u32 i = 0; i < NIC_MAX; i++)
        if (interfaces[i].nic != NULL && strcmp(nic_get_info(interfaces[i].nic)->name, name) == 0)
            return &interfaces[i].netif;
    return NULL;
}

struct nic *interface_nic(const struct netif *netif)
{
    return ((const struct interface *)netif->state)->nic;
}

void interface_poll(void)
{
    for (u32 i = 0; i < NIC_MAX; i++) {
        if (interfaces[i].nic == NULL)
            continue;
        nic_poll(interfaces[i].nic);
        follow_link(&interfaces[i]);
    }
    if (!transmit_was_full())
        return;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        tcp_output(pcb);
}

void interface_flush(void)
{
    for (u32 i = 0; i < NIC_MAX; i++)
        if (interfaces[i].nic != NULL)
            transmit_flush(interfaces[i].nic);
}

bool interface_enable_interrupts(void)
{
    bool work = false;

    for (u32 i = 0; i < NIC_MAX; i++)
        work |= interfaces[i].nic != NULL && nic_enable_interrupts(interfaces[i].nic);
    return work;
}
