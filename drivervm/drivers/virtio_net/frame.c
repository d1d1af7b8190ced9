/* Headers and control commands as pure functions; tested on the host. */
#include "drivervm/drivers/virtio_net/virtio_net.h"
#include "shared/lib/string.h"

struct virtio_net_hdr frame_header(const struct net_packet *packet)
{
    struct virtio_net_hdr header = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};

    if (packet->checksum) {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = packet->checksum_start;
        header.csum_offset = (u16)(packet->checksum_at - packet->checksum_start);
    }
    if (packet->mss) {
        header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        header.gso_size = packet->mss;
        header.hdr_len = packet->headers;
    }
    return header;
}

static u32 put_table(u8 *out, const u8 (*address)[NET_ADDRESS], u32 count)
{
    memcpy(out, &count, sizeof(count));
    memcpy(out + sizeof(count), address, (u64)count * NET_ADDRESS);
    return (u32)sizeof(count) + count * NET_ADDRESS;
}

u32 frame_address_tables(u8 out[CONTROL_MOST], const struct net_filter *filter)
{
    struct virtio_net_ctrl_hdr header = {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET};
    u32 bytes = sizeof(header);

    memcpy(out, &header, sizeof(header));
    bytes += put_table(out + bytes, filter->unicast, filter->unicasts);
    return bytes + put_table(out + bytes, filter->multicast, filter->multicasts);
}
