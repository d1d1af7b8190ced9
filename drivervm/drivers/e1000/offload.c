/* A packet as transmit descriptors (82540EM 3.3, 3.5, 3.6), and the hash of the multicast filter. */
#include "drivervm/drivers/e1000/e1000.h"
#include "shared/lib/string.h"

/* RFC 791, RFC 9293 */
#define IP_LENGTH 2u
#define IP_CHECKSUM 10u
#define IP_ADDRESSES 12u
#define PROTOCOL_TCP 6u
#define TCP_CHECKSUM 16u

/* The longest packet in descriptors: its pieces, cuts of long ones, the context, and the headers of our own. */
_Static_assert(RING_MAX_SEGMENTS + (65535u + NET_SEND_MOST) / E1000_PIECE_MOST + 1 + 2 <= OFFLOAD_MOST, "they fit");
_Static_assert(OFFLOAD_MOST < E1000_TX_ENTRIES, "and so they do into an empty ring");

u32 filter_hash(const u8 *address)
{
    return (address[4] >> 4 | address[5] << 4) & 0xfff;
}

/*
 * 3.5: each frame gets its own IP length, and its own part of the pseudo header's sum. So the copy has zeros for the
 * length and for IP's checksum, and for TCP's the sum over addresses and protocol alone.
 */
static void prepare_header(u8 *header, const struct net_packet *packet)
{
    u8 *ip = header + packet->ip;
    u32 sum = PROTOCOL_TCP;

    memcpy(header, packet->header, packet->headers);
    memset(ip + IP_LENGTH, 0, 2);
    memset(ip + IP_CHECKSUM, 0, 2);
    for (u32 i = 0; i < 8; i += 2)
        sum += (u32)ip[IP_ADDRESSES + i] << 8 | ip[IP_ADDRESSES + i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    header[packet->checksum_start + TCP_CHECKSUM] = (u8)(sum >> 8);
    header[packet->checksum_start + TCP_CHECKSUM + 1] = (u8)sum;
}

static struct e1000_tx_context make_context(const struct net_packet *packet)
{
    struct e1000_tx_context context = {
        .tcp_start = (u8)packet->checksum_start, .tcp_checksum = (u8)packet->checksum_at, .command = TX_EXTENDED};

    if (packet->mss == 0)
        return context;
    context.ip_start = (u8)packet->ip;
    context.ip_checksum = (u8)(packet->ip + IP_CHECKSUM);
    context.ip_end = packet->checksum_start - 1;
    context.command |= TX_CUT | TX_IPV4 | TX_TCP | (packet->bytes - packet->headers);
    context.headers = (u8)packet->headers;
    context.mss = packet->mss;
    return context;
}

u32 offload_build(union e1000_tx *out, const struct net_packet *packet, u8 *header)
{
    u32 command = TX_DATA | TX_EXTENDED | TX_FCS | (packet->mss ? TX_CUT : 0);
    u8 options = packet->mss ? TX_SUM_TCP | TX_SUM_IP : packet->checksum ? TX_SUM_TCP : 0;
    u32 count = 0, skip = packet->headers;

    if (packet->checksum)
        out[count++].context = make_context(packet);
    if (packet->mss) {
        prepare_header(header, packet);
        out[count++].data = (struct e1000_tx_data){
            .address = dma_address((u64)header), .command = command | packet->headers, .options = options};
    }
    for (u32 i = 0; i < packet->count; i++) {
        struct net_piece piece = packet->piece[i];
        u32 part = skip < piece.length ? skip : piece.length;
        skip -= part;
        for (piece.address += part, piece.length -= part; piece.length > 0;) {
            part = piece.length < E1000_PIECE_MOST ? piece.length : E1000_PIECE_MOST;
            out[count++].data = (struct e1000_tx_data){
                .address = dma_address(piece.address), .command = command | part, .options = options};
            piece.address += part;
            piece.length -= part;
        }
    }
    out[count - 1].data.command |= TX_END | TX_REPORT;
    return count;
}
