/* Down from 64-bit mode to 32-bit protected mode without paging, and then to one of these. */
#pragma once

#include "shared/lib/types.h"

/* In the order of mode.S's table. */
enum mode_game {
    MODE_TASK_JUMP,         /* JMP to a TSS (SDM 3A 8.3) */
    MODE_TASK_GATE,         /* INT through a task gate */
    MODE_ALIGNMENT_LOOP,    /* #AC in ring 3 with a misaligned stack, handled in ring 3 (CVE-2015-5307) */
    MODE_REAL,              /* CR0.PE off, then what lies at 0x1000 */
    MODE_VIRTUAL_8086,      /* the same, in a virtual-8086 task */
    MODE_PROTECTED_GARBAGE, /* the same, in ring 0 */
    MODE_DEVICE_32_BIT,     /* 32-bit paging, then the IOAPIC */
    MODE_CR4_32_BIT,        /* 32-bit paging, then a write to CR4 */
    MODE_LONG_LOOP,         /* EFER.LME and CR0.PG on and off */
};

__attribute__((noreturn)) void mode_drop(enum mode_game game);
