/* What a network request's segments hold: copied once, checked, never read again. */
#include "drivervm/runtime/net.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

/* Offsets in the headers of IEEE 802.3, RFC 791 and RFC 9293 */
#define ETHERNET_SIZE 14u
#define VLAN_SIZE 4u
#define TYPE_VLAN 0x8100u
#define TYPE_IPV4 0x0800u
#define IP_PROTOCOL 9u
#define IP_SMALLEST 20u
#define IP_LARGEST 65535u
#define PROTOCOL_TCP 6u
#define TCP_OFFSET 12u
#define TCP_CHECKSUM 16u
#define TCP_SMALLEST 20u

static u32 read_be16(const u8 *at)
{
    return (u32)at[0] << 8 | at[1];
}

static u32 copy(const struct ring_segment_cell *segment, u32 count, u64 offset, u8 *buffer, u32 bytes, bool to_segments)
{
    u32 done = 0;

    for (u32 i = 0; i < count && done < bytes; i++) {
        if (offset >= segment[i].length) {
            offset -= segment[i].length;
            continue;
        }
        u8 *at = (u8 *)segment[i].address + offset;
        u32 part = segment[i].length - (u32)offset;
        part = part < bytes - done ? part : bytes - done;
        memcpy(to_segments ? at : buffer + done, to_segments ? buffer + done : at, part);
        done += part;
        offset = 0;
    }
    return done;
}

u32 net_read(const struct ring_segment_cell *segment, u32 count, u64 offset, void *buffer, u32 bytes)
{
    return copy(segment, count, offset, buffer, bytes, false);
}

u32 net_write(const struct ring_segment_cell *segment, u32 count, const void *buffer, u32 bytes)
{
    return copy(segment, count, 0, (u8 *)buffer, bytes, true);
}

/* The frame's pieces: the segments without the first `skip` bytes. */
static void list_pieces(struct net_packet *packet, const struct ring_segment_cell *segment, u32 count, u32 skip)
{
    packet->count = 0;
    for (u32 i = 0; i < count; i++) {
        u32 part = segment[i].length < skip ? segment[i].length : skip;
        skip -= part;
        if (segment[i].length > part)
            packet->piece[packet->count++] = (struct net_piece){segment[i].address + part, segment[i].length - part};
    }
}

/* RFC 791, RFC 9293, in the copy of the first `size` bytes: which of them are headers? */
static status_t measure_headers(struct net_packet *packet, u32 size)
{
    const u8 *frame = packet->header;
    u32 ip = size >= ETHERNET_SIZE && read_be16(frame + ETHERNET_SIZE - 2) == TYPE_VLAN ? ETHERNET_SIZE + VLAN_SIZE
                                                                                        : ETHERNET_SIZE;

    if (size < ip + IP_SMALLEST || read_be16(frame + ip - 2) != TYPE_IPV4 || frame[ip] >> 4 != 4 ||
        frame[ip + IP_PROTOCOL] != PROTOCOL_TCP)
        return ERR_FORMAT;
    u32 tcp = ip + (frame[ip] & 15u) * 4;
    if (tcp < ip + IP_SMALLEST || size < tcp + TCP_SMALLEST || packet->checksum_start != tcp ||
        packet->checksum_at != tcp + TCP_CHECKSUM)
        return ERR_FORMAT;
    u32 headers = tcp + (frame[tcp + TCP_OFFSET] >> 4) * 4u;
    if (headers < tcp + TCP_SMALLEST || headers > size)
        return ERR_FORMAT;
    if (headers == packet->bytes || packet->bytes - ip > IP_LARGEST || headers + packet->mss > NET_SEND_MOST)
        return ERR_RANGE;
    packet->ip = (u16)ip;
    packet->headers = (u16)headers;
    return OK;
}

static status_t parse_offloads(struct net_packet *packet, const struct virtio_net_hdr *header,
                               const struct net_device *device)
{
    u32 at = (u32)header->csum_start + header->csum_offset;

    packet->checksum = header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    if (packet->checksum) {
        if (!device->sends_checksums)
            return ERR_UNSUPPORTED;
        if (header->csum_start < NET_FRAME_LEAST || at + 2 > packet->bytes || at > NET_CHECKSUM_END)
            return ERR_RANGE;
        packet->checksum_start = header->csum_start;
        packet->checksum_at = (u16)at;
    }
    if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE)
        return packet->bytes <= NET_SEND_MOST ? OK : ERR_RANGE;
    if (header->gso_type != VIRTIO_NET_HDR_GSO_TCPV4 || !device->cuts_segments || !packet->checksum)
        return ERR_UNSUPPORTED;
    /* Merging a few bytes written one by one makes a tiny size; no host may insist on it (RFC 791 3.1: 576 octets). */
    packet->mss = header->gso_size < NET_MSS_LEAST ? NET_MSS_LEAST : header->gso_size;
    return header->gso_size != 0 ? OK : ERR_RANGE;
}

status_t net_parse_packet(struct net_packet *packet, const struct ring_segment_cell *segment, u32 count,
                          const struct net_device *device)
{
    struct virtio_net_hdr header;
    u64 total = 0;

    for (u32 i = 0; i < count; i++)
        total += segment[i].length;
    if (total < sizeof(header) + NET_FRAME_LEAST || total > sizeof(header) + NET_SEND_MOST + IP_LARGEST)
        return ERR_RANGE;
    net_read(segment, count, 0, &header, sizeof(header));
    packet->bytes = (u32)total - sizeof(header);
    packet->mss = packet->ip = packet->headers = 0;
    list_pieces(packet, segment, count, sizeof(header));
    status_t status = parse_offloads(packet, &header, device);
    if (status != OK || packet->mss == 0)
        return status;
    return measure_headers(packet, net_read(segment, count, sizeof(header), packet->header, NET_HEADERS_MOST));
}

bool net_complete_checksum(u8 *frame, u32 bytes, struct net_check check)
{
    u32 start = check.start, at = start + check.offset, sum = 0;

    if (start >= bytes || !range_inside(at, 2, start, bytes - start))
        return false;
    for (u32 i = start; i < bytes; i += 2) /* RFC 1071: big endian words, an odd byte is the first half of one */
        sum += (u32)frame[i] << 8 | (i + 1 < bytes ? frame[i + 1] : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    sum = ~sum & 0xffff;
    if (sum == 0) /* RFC 768: zero says "none"; the other zero means the same to all who add it up */
        sum = 0xffff;
    frame[at] = (u8)(sum >> 8);
    frame[at + 1] = (u8)sum;
    return true;
}

u64 net_direct_place(const struct ring_segment_cell *segment, u32 count)
{
    u32 skip = sizeof(struct virtio_net_hdr);

    for (u32 i = 0; i < count; i++) {
        if (segment[i].length > skip)
            return segment[i].length - skip >= NET_FRAME_MOST ? segment[i].address + skip : 0;
        skip -= segment[i].length;
    }
    return 0;
}

/* VirtIO 1.2 5.1.6.5.2: one of the two tables, at *offset, which moves behind it. False: it is not all there. */
static bool read_table(const struct ring_segment_cell *segment, u32 count, u64 *offset, u8 (*out)[NET_ADDRESS],
                       u32 room, u32 *entries)
{
    u8 last;

    if (net_read(segment, count, *offset, entries, sizeof(*entries)) != sizeof(*entries))
        return false;
    u64 bytes = (u64)*entries * NET_ADDRESS;
    *offset += sizeof(*entries);
    if (bytes != 0 && net_read(segment, count, *offset + bytes - 1, &last, 1) != 1)
        return false;
    if (*entries <= room)
        net_read(segment, count, *offset, out, (u32)bytes);
    *offset += bytes;
    return true;
}

/* Tables that we have no room for let more in than asked for, which 5.1.6.5.2 allows. */
static bool set_tables(struct net_filter *filter, const struct ring_segment_cell *segment, u32 count)
{
    struct net_filter next = {.promiscuous = filter->promiscuous & NET_FILTER_ASKED,
                              .all_multicast = filter->all_multicast & NET_FILTER_ASKED};
    u64 offset = sizeof(struct virtio_net_ctrl_hdr);
    u32 unicasts, multicasts;

    if (!read_table(segment, count, &offset, next.unicast, NET_UNICAST, &unicasts) ||
        !read_table(segment, count, &offset, next.multicast, NET_MULTICAST, &multicasts))
        return false;
    if (unicasts > NET_UNICAST)
        next.promiscuous |= NET_FILTER_NO_TABLE;
    else
        next.unicasts = (u8)unicasts;
    if (multicasts > NET_MULTICAST)
        next.all_multicast |= NET_FILTER_NO_TABLE;
    else
        next.multicasts = (u8)multicasts;
    *filter = next;
    return true;
}

u8 net_parse_control(struct net_filter *filter, const struct ring_segment_cell *segment, u32 count)
{
    struct virtio_net_ctrl_hdr header;
    u8 on;

    if (net_read(segment, count, 0, &header, sizeof(header)) != sizeof(header))
        return VIRTIO_NET_ERR;
    if (header.class == VIRTIO_NET_CTRL_MAC && header.command == VIRTIO_NET_CTRL_MAC_TABLE_SET)
        return set_tables(filter, segment, count) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    if (header.class != VIRTIO_NET_CTRL_RX || header.command > VIRTIO_NET_CTRL_RX_ALLMULTI ||
        net_read(segment, count, sizeof(header), &on, 1) != 1)
        return VIRTIO_NET_ERR;
    u8 *flags = header.command == VIRTIO_NET_CTRL_RX_PROMISC ? &filter->promiscuous : &filter->all_multicast;
    *flags = (u8)((*flags & NET_FILTER_NO_TABLE) | (on ? NET_FILTER_ASKED : 0));
    return VIRTIO_NET_OK;
}
