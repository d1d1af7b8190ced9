#include "guestos/kernel/net/offload.h"

#include "guestos/kernel/net/support.h"
#include "shared/lib/string.h"

#define ETHERNET_SIZE 14u
#define ETHERNET_TYPE 12u
#define TYPE_IPV4 0x0800u
/* RFC 791, 3.1 */
#define IP_LENGTH 2u
#define IP_FRAGMENT 6u
#define IP_FRAGMENT_MASK 0x3fffu /* more fragments, or an offset */
#define IP_PROTOCOL 9u
#define IP_CHECKSUM 10u
#define IP_ADDRESSES 12u
#define IP_SMALLEST 20u
#define IP_LARGEST 65535u
#define PROTOCOL_TCP 6u
/* RFC 9293, 3.1 */
#define TCP_SEQUENCE 4u
#define TCP_ACKNOWLEDGED 8u
#define TCP_OFFSET 12u
#define TCP_FLAGS 13u
#define TCP_CHECKSUM 16u
#define TCP_SMALLEST 20u
#define FLAG_PSH 0x08u
#define FLAG_ACK 0x10u

static u16 read_be16(const u8 *at)
{
    return (u16)(at[0] << 8 | at[1]);
}

static u32 read_be32(const u8 *at)
{
    return (u32)read_be16(at) << 16 | read_be16(at + 2);
}

static void write_be16(u8 *at, u32 value)
{
    at[0] = (u8)(value >> 8);
    at[1] = (u8)value;
}

bool offload_read(const u8 *frame, u32 size, u32 total, struct offload_segment *segment)
{
    if (size < ETHERNET_SIZE + IP_SMALLEST || read_be16(frame + ETHERNET_TYPE) != TYPE_IPV4)
        return false;
    const u8 *ip = frame + ETHERNET_SIZE;
    u32 ip_size = (ip[0] & 15u) * 4, ip_total = read_be16(ip + IP_LENGTH);
    if (ip[0] >> 4 != 4 || ip_size < IP_SMALLEST || ip[IP_PROTOCOL] != PROTOCOL_TCP ||
        (read_be16(ip + IP_FRAGMENT) & IP_FRAGMENT_MASK) != 0 || size < ETHERNET_SIZE + ip_size + TCP_SMALLEST)
        return false;
    u32 tcp_size = (ip[ip_size + TCP_OFFSET] >> 4) * 4u, headers = ETHERNET_SIZE + ip_size + tcp_size;
    /* Exactly the frame: padding would end up between two payloads. */
    if (tcp_size < TCP_SMALLEST || size < headers || ip_total < ip_size + tcp_size || ip_total != total - ETHERNET_SIZE)
        return false;
    u32 payload = total - headers;
    *segment = (struct offload_segment){ip_size, headers, payload, payload, payload, 1};
    return true;
}

static bool equal(const u8 *a, const u8 *b, u32 from, u32 to)
{
    return memcmp(a + from, b + from, to - from) == 0;
}

bool offload_follows(const u8 *first, const struct offload_segment *merged, const u8 *next,
                     const struct offload_segment *segment)
{
    u32 ip = ETHERNET_SIZE, tcp = ip + merged->ip_size;

    if (segment->ip_size != merged->ip_size || segment->headers != merged->headers || segment->payload == 0 ||
        merged->last != merged->gso_size || segment->payload > merged->gso_size ||
        merged->headers - ETHERNET_SIZE + merged->payload + segment->payload > IP_LARGEST)
        return false;
    u8 flags = first[tcp + TCP_FLAGS] | FLAG_PSH, next_flags = next[tcp + TCP_FLAGS] | FLAG_PSH;
    if (flags != (FLAG_ACK | FLAG_PSH) || next_flags != flags ||
        read_be32(next + tcp + TCP_SEQUENCE) != read_be32(first + tcp + TCP_SEQUENCE) + merged->payload)
        return false;
    /* Everything else alike, but for the lengths, identification and checksums, which are made anew or do not count. */
    return equal(first, next, 0, ip + IP_LENGTH) && equal(first, next, ip + IP_FRAGMENT, ip + IP_CHECKSUM) &&
           equal(first, next, ip + IP_ADDRESSES, tcp + TCP_SEQUENCE) &&
           equal(first, next, tcp + TCP_ACKNOWLEDGED, tcp + TCP_FLAGS) &&
           equal(first, next, tcp + TCP_FLAGS + 1, tcp + TCP_CHECKSUM) &&
           equal(first, next, tcp + TCP_CHECKSUM + 2, merged->headers);
}

void offload_append(u8 *first, struct offload_segment *merged, const u8 *next, const struct offload_segment *segment)
{
    u32 flags = ETHERNET_SIZE + merged->ip_size + TCP_FLAGS;

    /* The device gives PSH to the last piece only, and nobody needs it earlier. */
    first[flags] |= next[flags] & FLAG_PSH;
    merged->payload += segment->payload;
    merged->last = segment->payload;
    merged->segments++;
}

void offload_finish(u8 *first, const struct offload_segment *merged, struct virtio_net_hdr *header)
{
    u8 *ip = first + ETHERNET_SIZE, pseudo[12] = {0};
    u32 ip_total = merged->headers - ETHERNET_SIZE + merged->payload, tcp_total = ip_total - merged->ip_size;

    if (merged->segments > 1) {
        write_be16(ip + IP_LENGTH, ip_total);
        write_be16(ip + IP_CHECKSUM, 0);
        u16 sum = (u16)~net_checksum(ip, (int)merged->ip_size);
        memcpy(ip + IP_CHECKSUM, &sum, sizeof(sum));
        header->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        header->gso_size = (u16)merged->gso_size;
        header->hdr_len = (u16)merged->headers;
    }
    memcpy(pseudo, ip + IP_ADDRESSES, 8);
    pseudo[9] = PROTOCOL_TCP;
    write_be16(pseudo + 10, tcp_total);
    u16 sum = net_checksum(pseudo, sizeof(pseudo));
    memcpy(ip + merged->ip_size + TCP_CHECKSUM, &sum, sizeof(sum)); /* not inverted: the device goes on adding */
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = (u16)(ETHERNET_SIZE + merged->ip_size);
    header->csum_offset = TCP_CHECKSUM;
}
