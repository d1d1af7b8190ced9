/* What the commands of the network share. */
#pragma once

#include "guestos/kernel/net/interface.h"
#include "guestos/kernel/net/ping.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

/* Whether there is a network; says so when not. */
bool command_has_network(void);

/* "name: what: why" and the enum shell_status that fits: ERR_STATE is Ctrl-C, which needs no words. */
int command_failed(const char *name, const char *what, status_t status);

/* The result as a line for programs. */
void command_report_ping(const struct ping *ping);

/* Take `--if NAME` out: the card through which connections are to leave; NULL without the option, then lwIP routes.
 * False, and says so: there is no such card, or it has no address. */
bool command_take_card(struct args *args, struct netif **netif);

/* Run the one of `count` subcommands that the first argument names; needs the network. */
int command_run_sub(struct args *args, const struct shell_command *subcommand, u32 count);
