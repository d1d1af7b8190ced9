#include "guestos/kernel/net/interface.h"

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/net/offload.h"
#include "shared/lib/checked.h"
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
static u32 held;         /* receive buffers in lwIP's hands */
static bool tx_was_full; /* frames were refused since the last poll */
static bool offload;     /* the device completes TCP checksums */

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

static void on_sent(void *owner)
{
    pbuf_free(owner);
}

/* The frame as parts for the device; 0 when one of them lies where the device may not look, or there are too many. */
static u32 list_parts(const struct pbuf *p, struct nic_part *part)
{
    u32 count = 0;

    for (const struct pbuf *q = p; q != NULL; q = q->next) {
        if (q->len == 0)
            continue;
        if (count == NIC_TX_PARTS || !range_inside((u64)q->payload, q->len, arena_base(), arena_size()))
            return 0;
        part[count++] = (struct nic_part){(u64)q->payload, q->len};
    }
    return count;
}

static status_t send_in_place(struct pbuf *p)
{
    struct nic_part part[NIC_TX_PARTS];
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};

    if (pbuf_add_header(p, sizeof(header)) != 0)
        return ERR_RANGE;
    if (offload)
        offload_checksum((u8 *)p->payload + sizeof(header), p->len - (u32)sizeof(header),
                         p->tot_len - (u32)sizeof(header), &header);
    memcpy(p->payload, &header, sizeof(header));
    u32 count = list_parts(p, part);
    status_t status = count == 0 ? ERR_RANGE : nic_send(part, count, p);
    if (status == OK)
        pbuf_ref(p); /* the device's, until on_sent; lwIP sends no segment again that has one */
    pbuf_remove_header(p, sizeof(header));
    return status;
}

static err_t link_output(struct netif *unused, struct pbuf *p)
{
    (void)unused;
    status_t status = send_in_place(p);
    if (status == ERR_RANGE) {
        /* Not in the arena, or no room in front: a frame that somebody made in another way. A copy is right. */
        struct pbuf *copy = pbuf_clone(PBUF_RAW_TX, PBUF_RAM, p);
        if (copy == NULL)
            return ERR_MEM;
        status = send_in_place(copy);
        pbuf_free(copy);
    }
    tx_was_full = tx_was_full || status == ERR_NO_SPACE;
    return status == OK ? ERR_OK : status == ERR_NO_SPACE ? ERR_MEM : ERR_IF;
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
    offload = (nic->features & VIRTIO_NET_F_CSUM) != 0;
    NETIF_SET_CHECKSUM_CTRL(interface,
                            offload ? NETIF_CHECKSUM_ENABLE_ALL & ~NETIF_CHECKSUM_GEN_TCP : NETIF_CHECKSUM_ENABLE_ALL);
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
    static const struct nic_callbacks callbacks = {on_received, on_sent};

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
    if (!tx_was_full)
        return;
    tx_was_full = false;
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        tcp_output(pcb);
}
