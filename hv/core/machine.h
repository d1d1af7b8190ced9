/* The machine as a whole, for main.c and those who report about it. */
#pragma once

#include "shared/lib/types.h"

/* First call of all: the clock's zero and the console. */
void machine_init(void);
extern u64 machine_start; /* TSC then */
/* Set before other CPUs get VECTOR_STOP. */
extern bool machine_ends;
/* From the manifest: where machine_end() writes; 0: nowhere. */
extern u16 machine_exit_port;
