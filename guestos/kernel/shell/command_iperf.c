/* iperf3 and net bench: TCP throughput with a peer that speaks iperf3's protocol. */
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/net/iperf.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/ping.h"
#include "guestos/kernel/shell/command_net.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"

#define BENCH_PINGS 50u
#define BENCH_INTERVAL_US 10000u
#define RETRIES 5u
#define RETRY_US 200000u

typedef unsigned long long number; /* what %llu takes */

/* What the test cost the device's side: of the counters, the differences. */
static void report_test(const struct iperf_report *report, const struct nic_counters *before)
{
    struct nic_counters after = nic_sum_counters();
    u64 rate = stream_rate_tenths(report->bytes, report->us);

    console_print("iperf3: %s %llu bytes in %llu ms, %llu.%llu MB/s, %u stream%s; the peer counts %llu\n",
                  report->sender ? "sent" : "received", (number)report->bytes, (number)report->us / 1000,
                  (number)rate / 10, (number)rate % 10, report->streams, report->streams == 1 ? "" : "s",
                  (number)report->peer_bytes);
    console_print("json {\"sender\":%s,\"bytes\":%llu,\"peer_bytes\":%llu,\"elapsed_us\":%llu,\"mb_per_s\":%llu.%llu,"
                  "\"streams\":%u,",
                  report->sender ? "true" : "false", (number)report->bytes, (number)report->peer_bytes,
                  (number)report->us, (number)rate / 10, (number)rate % 10, report->streams);
    console_print("\"rx_frames\":%llu,\"tx_frames\":%llu,\"notified\":%llu,\"interrupts\":%llu}\n",
                  (number)(after.rx_frames - before->rx_frames), (number)(after.tx_frames - before->tx_frames),
                  (number)(after.notified - before->notified), (number)(after.interrupts - before->interrupts));
}

static int run_client(const char *name, struct netif *netif, const ip_addr_t *address, u16 port,
                      const struct iperf_parameters *parameters)
{
    struct nic_counters before = nic_sum_counters();
    struct iperf_report report;
    status_t status = iperf_run_client(netif, address, port, parameters, &report);

    /* A server that has just finished a test does not listen for a moment. */
    for (u32 i = 0; i < RETRIES && status == ERR_DENIED; i++) {
        if (!console_sleep(RETRY_US))
            return SHELL_INTERRUPTED;
        before = nic_sum_counters();
        status = iperf_run_client(netif, address, port, parameters, &report);
    }
    if (status != OK)
        return command_failed(name, "test", status);
    report_test(&report, &before);
    return SHELL_OK;
}

static int run_server(u16 port, bool once)
{
    struct iperf_report report;
    status_t status;

    console_print("iperf3: serving on port %u, Ctrl-C ends it\n", port);
    do {
        struct nic_counters before = nic_sum_counters();
        status = iperf_run_server(port, &report);
        if (status == OK)
            report_test(&report, &before);
        else if (status != ERR_STATE)
            command_failed("iperf3", "test", status);
    } while (!once && status != ERR_STATE && status != ERR_BUSY);
    return status == OK ? SHELL_OK : status == ERR_STATE ? SHELL_INTERRUPTED : SHELL_FAILED;
}

static bool take_parameters(struct args *args, struct iperf_parameters *parameters, u64 *port)
{
    u64 parallel = 1;

    *parameters = (struct iperf_parameters){.seconds = 10};
    args_take_number(args, "-t", &parameters->seconds);
    args_take_number(args, "-P", &parallel);
    args_take_number(args, "-p", port);
    parameters->parallel = (u32)parallel;
    return parallel >= 1 && parallel <= IPERF_MAX_STREAMS && *port >= 1 && *port <= 65535 &&
           parameters->seconds <= 86400;
}

int command_iperf3(struct args *args)
{
    struct iperf_parameters parameters;
    u64 port = IPERF_PORT;
    bool good = take_parameters(args, &parameters, &port);
    bool server = args_take_flag(args, "-s"), client = args_take_flag(args, "-c"), once = args_take_flag(args, "-1");

    struct netif *netif;
    parameters.reverse = args_take_flag(args, "-R");
    if (!command_take_card(args, &netif))
        return SHELL_FAILED;
    if (!args_check(args, client, client))
        return SHELL_USAGE;
    if (!good || server == client) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    if (!command_has_network())
        return SHELL_FAILED;
    if (server)
        return run_server((u16)port, once);
    ip_addr_t address;
    status_t status = net_resolve(args->value[0], &address);
    if (status != OK)
        return command_failed("iperf3", args->value[0], status);
    return run_client("iperf3", netif, &address, (u16)port, &parameters);
}

static int bench_latency(struct netif *netif, const ip_addr_t *address)
{
    struct ping ping = {
        .address = *address, .netif = netif, .count = BENCH_PINGS, .size = 56, .interval_us = BENCH_INTERVAL_US};
    status_t status = ping_run(&ping);

    if (status != OK || ping.received == 0)
        return command_failed("net", "ping", status == OK ? ERR_TIMEOUT : status);
    command_report_ping(&ping);
    return SHELL_OK;
}

static int command_net_bench(struct args *args)
{
    struct iperf_parameters parameters;
    u64 port = IPERF_PORT;
    bool good = take_parameters(args, &parameters, &port);
    struct netif *netif;
    ip_addr_t address;

    if (!command_take_card(args, &netif))
        return SHELL_FAILED;
    if (!args_check(args, 1, 1))
        return SHELL_USAGE;
    if (!good) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    status_t status = net_resolve(args->value[0], &address);
    if (status != OK)
        return command_failed("net", args->value[0], status);
    int result = bench_latency(netif, &address);
    for (u32 i = 0; i < 2 && result == SHELL_OK; i++) {
        parameters.reverse = i == 1;
        result = run_client("net", netif, &address, (u16)port, &parameters);
    }
    return result;
}

int command_net(struct args *args)
{
    static const struct shell_command subcommands[] = {
        {"bench", "net bench HOST [--if net1] [-t SECONDS] [-P STREAMS] [-p PORT]",
         "latency, and throughput both ways with an iperf3 server", command_net_bench},
    };

    return command_run_sub(args, subcommands, ARRAY_SIZE(subcommands));
}
