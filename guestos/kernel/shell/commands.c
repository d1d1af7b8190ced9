/* The table of commands, and those few that concern the shell itself. */
#include "guestos/kernel/shell/commands.h"

#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/string.h"

static int command_help(struct args *args)
{
    if (!args_check(args, 0, 0))
        return SHELL_USAGE;
    for (u32 i = 0; i < shell_command_count; i++)
        console_print("%-10s %s\n           %s\n", shell_commands[i].name, shell_commands[i].help,
                      shell_commands[i].usage);
    console_print(
        "Numbers may end in K, M or G. Ctrl-C ends a command. $? is the last status; ';' separates commands.\n");
    return SHELL_OK;
}

static int command_echo(struct args *args)
{
    for (int i = 0; i < args->count; i++)
        console_print("%s%s", i == 0 ? "" : " ", args->value[i]);
    console_print("\n");
    return SHELL_OK;
}

static int command_status(struct args *args)
{
    if (!args_check(args, 1, 1))
        return SHELL_USAGE;
    if (strcmp(args->value[0], "on") != 0 && strcmp(args->value[0], "off") != 0) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    shell_show_status(args->value[0][1] == 'n');
    return SHELL_OK;
}

const struct shell_command shell_commands[] = {
    {"help", "help", "this list", command_help},
    {"blk", "blk [info|read|write|verify|bench|load|discard|zero|id|flush|unsupported ...] [--disk vdb]",
     "the disks; blk help lists more", command_blk},
    {"sha256", "sha256 /dev/vda [BYTES]", "SHA-256 of a disk or of its first BYTES", command_sha256},
    {"hostile", "hostile [cpu] list|all|NAME... [--disk vdb] | console [SECONDS]",
     "break a rule of virtio, or try everything on the CPU; see what follows", command_hostile},
    {"probe", "probe [SECONDS]", "a page for a hostile entropy device: out of its reach after the answer?",
     command_probe},
    {"ifconfig", "ifconfig [--json] [net1] [dhcp | ADDRESS/PREFIX [GATEWAY [DNS]] | promisc on|off]",
     "the network cards", command_ifconfig},
    {"ping", "ping HOST [COUNT] [-s BYTES] [-f] [--if net1]",
     "ICMP echo requests and their replies; -f: without a pause", command_ping},
    {"nc", "nc HOST PORT | nc -l PORT [--if net1]", "a TCP connection to the console; Ctrl-D ends the input",
     command_nc},
    {"http", "http get URL... [sha256|discard] [--to /dev/vda] [--if net1] | serve [PORT] | stop",
     "fetch over HTTP; serve in the background", command_http},
    {"iperf3", "iperf3 -s [-1] [-p PORT] | -c HOST [--if net1] [-R] [-t SECONDS] [-P STREAMS] [-p PORT]",
     "TCP throughput, either end of Debian's iperf3", command_iperf3},
    {"net", "net bench HOST [--if net1] [-t SECONDS] [-P STREAMS] [-p PORT]", "latency and throughput both ways",
     command_net},
    {"drvctl",
     "drvctl status|stats [VM] | events|faults [FROM] | restart|stop|start VM [--after MS [--times N]] | help | raw "
     "LINE",
     "the driver VMs, when the manifest gives this guest a control port", command_drvctl},
    {"stat", "stat [--json]", "uptime, memory, interrupts, I/O counters", command_stat},
    {"canary", "canary set|check [SEED]", "fill free memory with a pattern; see whether it changed", command_canary},
    {"echo", "echo [WORD...]", "print the words", command_echo},
    {"sleep", "sleep SECONDS", "wait", command_sleep},
    {"status", "status on|off", "print [status N] after each command", command_status},
    {"reboot", "reboot", "restart the machine", command_reboot},
    {"poweroff", "poweroff", "switch the machine off", command_poweroff},
};
const u32 shell_command_count = ARRAY_SIZE(shell_commands);
