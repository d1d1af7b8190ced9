/* The commands of the shell; each file says what its commands do. All return an enum shell_status. */
#pragma once

#include "guestos/kernel/shell/args.h"

/* command_blk.c: the disks by hand */
int command_blk(struct args *args);
int command_blk_info(struct args *args);
int command_blk_read(struct args *args);
int command_blk_write(struct args *args);
int command_blk_verify(struct args *args);
int command_sha256(struct args *args);

/* command_blk_single.c: requests that go alone */
int command_blk_id(struct args *args);
int command_blk_flush(struct args *args);
int command_blk_discard(struct args *args);
int command_blk_zero(struct args *args);
int command_blk_unsupported(struct args *args);
struct blk;
int command_flush(struct blk *disk); /* the request itself; nothing where writes are stable anyway */

/* command_bench.c, command_load.c, command_hostile.c, command_hostile_cpu.c */
int command_blk_bench(struct args *args);
int command_blk_load(struct args *args);
int command_hostile(struct args *args);
int command_hostile_cpu(struct args *args);     /* what follows `hostile cpu` */
int command_hostile_console(struct args *args); /* and `hostile console` */

/* command_probe.c: a page that a hostile driver goes on using */
int command_probe(struct args *args);

/* command_net.c, command_http.c, command_iperf.c: the network */
int command_ifconfig(struct args *args);
int command_ping(struct args *args);
int command_nc(struct args *args);
int command_http(struct args *args);
int command_iperf3(struct args *args);
int command_net(struct args *args);

/* command_drvctl.c: the hypervisor's control port */
int command_drvctl(struct args *args);

/* command_system.c: the machine */
int command_stat(struct args *args);
int command_canary(struct args *args);
int command_sleep(struct args *args);
int command_reboot(struct args *args);
int command_poweroff(struct args *args);
