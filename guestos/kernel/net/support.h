/* What lwIP asks of this kernel: memory, random numbers, checksums, time (sys_now). */
#pragma once

#include "shared/lib/types.h"

extern void *net_heap; /* set before lwip_init */

/* Seed from RDRAND where the CPU offers it, and from TSC and real-time clock in any case. */
void net_random_init(void);
u32 net_random(void);

/* The ones' complement sum (RFC 1071) of the 16-bit words at `data`, folded, not inverted, in memory order. Pure. */
u16 net_checksum(const void *data, int size);

__attribute__((noreturn)) void net_assertion_failed(const char *text, int line);
