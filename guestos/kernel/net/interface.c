#include "guestos/kernel/net/interface.h"

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/net/transmit.h"
#include "shared/lib/string.h"

#define MTU 1500u
#define RX_LOW 64u /* free buffers below which held frames out of order are given up */

/* A received frame's buffer as lwIP knows it. */
struct rx_pbuf {
    struct pbuf_custom custom; /* first: lwIP gives back a pointer to it */
    u16 index;
};

static struct netif netif;
static struct rx_pbuf rx_pbufs[NIC_RX_BUFFERS];
static u32 held; /* receive buffers in lwIP's hands */

static void free_rx(struct pbuf *p)
{
    held--;
    nic_return_buffer(((struct rx_pbuf *)p)->index);
}

static struct pbuf *wrap(const struct nic_buffer *part)
{
    struct rx_pbuf *rx = &rx_pbufs[part->index];

    rx->custom.custom_free_function = free_rx;
    rx->index = part->index;
    held++;
    return pbuf_alloced_custom(PBUF_RAW, (u16)part->length, PBUF_REF, &rx->custom, part->data, (u16)part->length);
}

/*
 * Segments that wait for an earlier one hold buffers. When they hold nearly all, the earlier one could not arrive any
 * more: let the sender send them again.
 */
static void release_out_of_order(void)
{
    if (held + RX_LOW < NIC_RX_BUFFERS)
        return;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        tcp_free_ooseq(pcb);
}

static void on_received(const struct nic_frame *frame)
{
    struct pbuf *p = wrap(&frame->part[0]);

    for (u32 i = 1; i < frame->count; i++)
        pbuf_cat(p, wrap(&frame->part[i]));
    /* lwIP checks per interface, the device vouches per frame. */
    u16 checks = NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    netif.chksum_flags = frame->verified ? netif.chksum_flags & (u16)~checks : netif.chksum_flags | checks;
    if (netif.input(p, &netif) != ERR_OK)
        pbuf_free(p);
    release_out_of_order();
}

static err_t link_output(struct netif *unused, struct pbuf *p)
{
    (void)unused;
    return transmit_frame(p);
}

static err_t setup(struct netif *interface)
{
    const struct nic_info *nic = nic_get_info();

    interface->name[0] = 'e';
    interface->name[1] = 'n';
    interface->hostname = "guestos";
    interface->output = etharp_output;
    interface->linkoutput = link_output;
    interface->mtu = MTU;
    interface->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(interface->hwaddr, nic->mac, ETH_HWADDR_LEN);
    interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    NETIF_SET_CHECKSUM_CTRL(interface, transmit_init() ? NETIF_CHECKSUM_ENABLE_ALL & ~NETIF_CHECKSUM_GEN_TCP
                                                       : NETIF_CHECKSUM_ENABLE_ALL);
    return ERR_OK;
}

static void follow_link(void)
{
    bool up = nic_get_info()->link_up;

    if (up == (netif_is_link_up(&netif) != 0))
        return;
    if (up)
        netif_set_link_up(&netif);
    else
        netif_set_link_down(&netif);
}

status_t interface_init(void)
{
    static const struct nic_callbacks callbacks = {on_received, transmit_done};

    nic_init(&callbacks);
    if (!nic_get_info()->present)
        return nic_get_info()->error;
    if (netif_add_noaddr(&netif, NULL, setup, ethernet_input) == NULL)
        return ERR_NO_MEMORY;
    netif_set_default(&netif);
    netif_set_up(&netif);
    follow_link();
    return OK;
}

struct netif *interface_get(void)
{
    return &netif;
}

void interface_poll(void)
{
    nic_poll();
    follow_link();
    if (!transmit_was_full())
        return;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        tcp_output(pcb);
}
