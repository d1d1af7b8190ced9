/* ifconfig, ping, nc: the network by hand. */
#include "guestos/kernel/shell/command_net.h"
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/uart.h"
#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/net/connection.h"
#include "guestos/kernel/net/interface.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/ping.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/string.h"

#define DHCP_US 20000000u
#define END_OF_INPUT 0x04 /* Ctrl-D */

typedef unsigned long long number; /* what %llu takes */

bool command_has_network(void)
{
    if (!net_is_present())
        console_print("no network device: %s\n", arena_status_text(net_error()));
    return net_is_present();
}

int command_failed(const char *name, const char *what, status_t status)
{
    if (status == ERR_STATE)
        return SHELL_INTERRUPTED;
    console_print("%s: %s: %s\n", name, what, status == ERR_DENIED ? "connection refused" : status_text(status));
    return SHELL_FAILED;
}

int command_run_sub(struct args *args, const struct shell_command *subcommand, u32 count)
{
    for (u32 i = 0; i < count && args->count > 0; i++) {
        if (strcmp(args->value[0], subcommand[i].name) != 0)
            continue;
        args_shift(args);
        args->usage = subcommand[i].usage;
        return command_has_network() ? subcommand[i].run(args) : SHELL_FAILED;
    }
    for (u32 i = 0; i < count; i++)
        console_print("%s\n           %s\n", subcommand[i].usage, subcommand[i].help);
    return SHELL_USAGE;
}

static int usage(const struct args *args)
{
    console_print("usage: %s\n", args->usage);
    return SHELL_USAGE;
}

static void show_interface(const struct netif *netif)
{
    const struct nic_info *nic = nic_get_info(interface_nic(netif));
    char address[16], gateway[16], mask[16];

    console_print("%s: virtio-net at %02x:%02x.%x, features 0x%llx, queues of %u and %u%s\n", nic->name, nic->bdf >> 8,
                  nic->bdf >> 3 & 31, nic->bdf & 7, (number)nic->features, nic->rx_size, nic->tx_size,
                  netif == netif_default ? ", default" : "");
    console_print("  ether %02x:%02x:%02x:%02x:%02x:%02x, link %s%s%s\n", nic->mac[0], nic->mac[1], nic->mac[2],
                  nic->mac[3], nic->mac[4], nic->mac[5], nic->link_up ? "up" : "down",
                  nic->promiscuous ? ", promiscuous" : "", nic->all_multicast ? ", all multicast" : "");
    ip4addr_ntoa_r(netif_ip4_addr(netif), address, sizeof(address));
    ip4addr_ntoa_r(netif_ip4_netmask(netif), mask, sizeof(mask));
    ip4addr_ntoa_r(netif_ip4_gw(netif), gateway, sizeof(gateway));
    console_print("  inet %s mask %s gateway %s dns %s%s\n", address, mask, gateway, ip4addr_ntoa(dns_getserver(0)),
                  dhcp_supplied_address(netif) ? " (by DHCP)" : "");
}

/* The members of an object, without its braces. */
static void print_counters(bool link, const struct nic_counters *nic)
{
    console_print("\"link\":%s,\"rx_frames\":%llu,\"rx_bytes\":%llu,\"tx_frames\":%llu,\"tx_bytes\":%llu,"
                  "\"tx_full\":%llu,",
                  link ? "true" : "false", (number)nic->rx_frames, (number)nic->rx_bytes, (number)nic->tx_frames,
                  (number)nic->tx_bytes, (number)nic->tx_full);
    console_print("\"protocol\":%llu,\"unknown\":%llu,\"notified\":%llu,\"not_notified\":%llu,\"interrupts\":%llu,"
                  "\"resets\":%llu",
                  (number)nic->protocol, (number)nic->unknown, (number)nic->notified, (number)nic->notify_suppressed,
                  (number)nic->interrupts, (number)nic->resets);
}

static void print_card(const struct netif *netif)
{
    const struct nic *card = interface_nic(netif);
    const struct nic_info *nic = nic_get_info(card);
    struct nic_counters counters = nic_get_counters(card);
    char address[16];

    ip4addr_ntoa_r(netif_ip4_addr(netif), address, sizeof(address));
    console_print("\"address\":\"%s\",\"mac\":\"%02x:%02x:%02x:%02x:%02x:%02x\",", address, nic->mac[0], nic->mac[1],
                  nic->mac[2], nic->mac[3], nic->mac[4], nic->mac[5]);
    print_counters(nic->link_up, &counters);
}

/* The sums over all cards, and whether all links are up; then each card's own. */
static void print_all_cards(void)
{
    struct nic_counters sum = nic_sum_counters();
    bool link = true;

    for (u32 i = 0; i < nic_count(); i++)
        link = link && nic_get_info(nic_get(i))->link_up;
    print_counters(link, &sum);
    console_print(",\"cards\":{");
    for (u32 i = 0, printed = 0; i < nic_count(); i++) {
        if (interface_get(i) == NULL)
            continue;
        console_print("%s\"%s\":{", printed++ == 0 ? "" : ",", nic_get_info(nic_get(i))->name);
        print_card(interface_get(i));
        console_print("}");
    }
    console_print("}");
}

/* netif: NULL for all. */
static int show(const struct netif *netif, bool json)
{
    if (json) {
        console_print("json {");
        if (netif != NULL)
            print_card(netif);
        else
            print_all_cards();
        console_print("}\n");
        return SHELL_OK;
    }
    for (u32 i = 0; i < nic_count(); i++) {
        const struct nic_info *nic = nic_get_info(nic_get(i));
        const struct netif *other = interface_get(i);
        if (other != NULL && (netif == NULL || netif == other))
            show_interface(other);
        else if (other == NULL && netif == NULL)
            console_print("%s: not usable: %s\n", nic->name, arena_status_text(nic->error));
    }
    return SHELL_OK;
}

bool command_take_card(struct args *args, struct netif **netif)
{
    const char *name = NULL;

    *netif = NULL;
    if (!args_take_text(args, "--if", &name))
        return true;
    *netif = interface_find(name);
    if (*netif == NULL)
        console_print("no usable network card is called %s\n", name);
    else if (ip4_addr_isany(netif_ip4_addr(*netif)))
        console_print("%s has no address\n", name);
    else
        return true;
    return false;
}

/* ADDRESS/PREFIX GATEWAY DNS; the last two may be left out. */
static int set_address(struct netif *netif, struct args *args)
{
    ip4_addr_t address, gateway = {0}, dns = {0};
    char *slash = strchr(args->value[0], '/');
    u64 prefix = 24;

    if (slash != NULL) {
        *slash = '\0';
        if (!args_parse_number(slash + 1, &prefix) || prefix > 32)
            return usage(args);
    }
    if (!ip4addr_aton(args->value[0], &address) || (args->count > 1 && !ip4addr_aton(args->value[1], &gateway)) ||
        (args->count > 2 && !ip4addr_aton(args->value[2], &dns)))
        return usage(args);
    net_set_address(netif, address, (u32)prefix, gateway, dns);
    return SHELL_OK;
}

static int set_mode(const struct netif *netif, const struct args *args)
{
    bool on = strcmp(args->value[1], "on") == 0;

    if (!on && strcmp(args->value[1], "off") != 0)
        return usage(args);
    status_t status = nic_set_receive_mode(interface_nic(netif), on, false);
    return status == OK ? SHELL_OK : command_failed("ifconfig", "promisc", status);
}

/* Do what the words after the card's name say. */
static int configure(struct netif *netif, struct args *args)
{
    if (args->count == 2 && strcmp(args->value[0], "promisc") == 0)
        return set_mode(netif, args);
    if (args->count != 1 || strcmp(args->value[0], "dhcp") != 0)
        return set_address(netif, args);
    status_t status = net_use_dhcp(netif, DHCP_US);
    return status == OK ? SHELL_OK : command_failed("ifconfig", "dhcp", status);
}

int command_ifconfig(struct args *args)
{
    bool json = args_take_flag(args, "--json"), named;
    const char *name = "net0";

    if (!args_check(args, 0, 4))
        return SHELL_USAGE;
    if (!command_has_network())
        return SHELL_FAILED;
    named = args->count > 0 && strncmp(args->value[0], "net", 3) == 0;
    if (named)
        name = args_shift(args);
    if (args->count == 0 && !named)
        return show(NULL, json);
    struct netif *netif = interface_find(name);
    if (netif == NULL) {
        console_print("no usable network card is called %s\n", name);
        return SHELL_FAILED;
    }
    int result = args->count == 0 ? SHELL_OK : configure(netif, args);
    return result == SHELL_OK ? show(netif, json) : result;
}

static void show_reply(u32 sequence, u64 us)
{
    console_print("reply %u: %llu.%03llu ms\n", sequence, (number)us / 1000, (number)us % 1000);
}

void command_report_ping(const struct ping *ping)
{
    console_print("json {\"pings\":%llu,\"replies\":%llu,\"min_us\":%llu,\"mean_us\":%llu,\"max_us\":%llu}\n",
                  (number)ping->sent, (number)ping->received, (number)ping->min_us,
                  (number)(ping->received == 0 ? 0 : ping->total_us / ping->received), (number)ping->max_us);
}

int command_ping(struct args *args)
{
    struct ping ping = {.count = 4, .size = 56, .reply = show_reply};
    bool flood = args_take_flag(args, "-f"); /* the next one as soon as the last was answered */

    args_take_number(args, "-s", &ping.size);
    if (flood) {
        ping.interval_us = 1;
        ping.reply = NULL;
    }
    if (!command_take_card(args, &ping.netif))
        return SHELL_FAILED;
    if (!args_check(args, 1, 2) || (args->count == 2 && !args_number(args, 1, &ping.count)) ||
        ping.size > PING_MAX_SIZE)
        return usage(args);
    if (!command_has_network())
        return SHELL_FAILED;
    status_t status = net_resolve(args->value[0], &ping.address);
    if (status != OK)
        return command_failed("ping", args->value[0], status);
    status = ping_run(&ping);
    if (status != OK && status != ERR_STATE)
        return command_failed("ping", args->value[0], status);
    console_print("ping %s: %llu sent, %llu received, min %llu us, mean %llu us, max %llu us\n",
                  ipaddr_ntoa(&ping.address), (number)ping.sent, (number)ping.received, (number)ping.min_us,
                  (number)(ping.received == 0 ? 0 : ping.total_us / ping.received), (number)ping.max_us);
    if (flood)
        command_report_ping(&ping);
    if (status == ERR_STATE)
        return SHELL_INTERRUPTED;
    return ping.received == ping.sent ? SHELL_OK : SHELL_FAILED;
}

static void print_received(void *context, const u8 *data, u32 size)
{
    (void)context;
    for (u32 i = 0; i < size; i++)
        if (data[i] != '\r')
            console_print("%c", data[i]);
}

struct typing {
    struct connection *connection;
    char line[256];
    u32 size;
    bool whole, ended;
};

/* Collect what is typed until a line is whole, the input ends or the peer has finished. */
static bool type_line(void *context)
{
    struct typing *typing = context;
    int c;

    while (!typing->whole && !typing->ended && (c = uart_read()) >= 0) {
        if (c == END_OF_INPUT) {
            typing->ended = true;
        } else if (c == '\r' || c == '\n') {
            typing->line[typing->size++] = '\n';
            typing->whole = true;
            console_print("\n");
        } else if (typing->size < sizeof(typing->line) - 1) {
            typing->line[typing->size++] = (char)c;
            console_print("%c", c);
        }
    }
    return typing->whole || typing->ended || typing->connection->finished;
}

static bool is_finished(void *context)
{
    return ((struct connection *)context)->finished;
}

static int talk(struct connection *connection)
{
    const u64 for_ever = ~0ull / 4;
    struct typing typing = {.connection = connection};

    for (;;) {
        enum net_wait_result result =
            typing.ended ? net_wait(is_finished, connection, for_ever) : net_wait(type_line, &typing, for_ever);
        if (result != NET_DONE)
            return SHELL_INTERRUPTED;
        if (typing.size > 0 && !connection->finished) {
            status_t status = connection_send(connection, typing.line, typing.size);
            if (status != OK)
                return command_failed("nc", "send", status);
        }
        typing.size = 0;
        typing.whole = false;
        if (typing.ended)
            connection_finish(connection);
        if (connection->finished)
            return connection->lost ? command_failed("nc", "connection lost", ERR_IO) : SHELL_OK;
    }
}

int command_nc(struct args *args)
{
    static struct connection connection;
    bool listen = args_take_flag(args, "-l");
    struct netif *netif;
    u64 port;

    if (!command_take_card(args, &netif))
        return SHELL_FAILED;
    if (!args_check(args, listen ? 1 : 2, listen ? 1 : 2) || !args_number(args, listen ? 0 : 1, &port) || port == 0 ||
        port > 65535)
        return usage(args);
    if (!command_has_network())
        return SHELL_FAILED;
    connection = (struct connection){.received = print_received, .netif = netif};
    status_t status =
        listen ? connection_accept(&connection, (u16)port) : connection_open(&connection, args->value[0], (u16)port);
    if (status != OK)
        return command_failed("nc", listen ? "listen" : args->value[0], status);
    int result = talk(&connection);
    connection_close(&connection);
    return result;
}
