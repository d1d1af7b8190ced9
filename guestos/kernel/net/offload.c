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
#define IP_ADDRESSES 12u
#define IP_SMALLEST 20u
#define PROTOCOL_TCP 6u
/* RFC 9293, 3.1 */
#define TCP_CHECKSUM 16u
#define TCP_SMALLEST 20u

static u16 read_be16(const u8 *at)
{
    return (u16)(at[0] << 8 | at[1]);
}

bool offload_checksum(u8 *frame, u32 size, u32 total, struct virtio_net_hdr *header)
{
    u8 pseudo[12] = {0};

    if (size < ETHERNET_SIZE + IP_SMALLEST || read_be16(frame + ETHERNET_TYPE) != TYPE_IPV4)
        return false;
    u8 *ip = frame + ETHERNET_SIZE;
    u32 ip_size = (ip[0] & 15u) * 4, ip_total = read_be16(ip + IP_LENGTH);
    if (ip[0] >> 4 != 4 || ip_size < IP_SMALLEST || ip[IP_PROTOCOL] != PROTOCOL_TCP ||
        (read_be16(ip + IP_FRAGMENT) & IP_FRAGMENT_MASK) != 0 || size < ETHERNET_SIZE + ip_size + TCP_SMALLEST ||
        ip_total < ip_size + TCP_SMALLEST || ip_total > total - ETHERNET_SIZE)
        return false;
    u32 tcp_total = ip_total - ip_size;
    memcpy(pseudo, ip + IP_ADDRESSES, 8);
    pseudo[9] = PROTOCOL_TCP;
    pseudo[10] = (u8)(tcp_total >> 8);
    pseudo[11] = (u8)tcp_total;
    u16 sum = net_checksum(pseudo, sizeof(pseudo));
    memcpy(ip + ip_size + TCP_CHECKSUM, &sum, sizeof(sum)); /* not inverted: the device goes on adding */
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = (u16)(ETHERNET_SIZE + ip_size);
    header->csum_offset = TCP_CHECKSUM;
    return true;
}
