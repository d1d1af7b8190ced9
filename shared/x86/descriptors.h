/* Descriptor tables of 64-bit mode: what LGDT, LIDT and LTR take (SDM 3A 3.5, 6.14, 7.7). */
#pragma once

#include "shared/lib/types.h"

/* Flat, CPL 0, accessed (SDM 3A 3.4.5) */
#define DESCRIPTOR_CODE_64 0x00af9b000000ffffull
#define DESCRIPTOR_DATA 0x00cf93000000ffffull
#define DESCRIPTOR_RING_3 (3ull << 45) /* set in either: for CPL 3 */

struct descriptor_pointer { /* SDM 3A 3.5.1: of LGDT, LIDT */
    u16 limit;
    u64 base;
} __attribute__((packed));
_Static_assert(sizeof(struct descriptor_pointer) == 10, "SDM 3A 3.5.1");

struct gate { /* of the IDT */
    u16 offset_low, selector;
    u8 ist, type;
    u16 offset_middle;
    u32 offset_high, reserved;
};
_Static_assert(sizeof(struct gate) == 16, "SDM 3A 6.14.1");

/* Interrupt gate, present, CPL 0. ist: the TSS's stack that it switches to; 0: none. */
static inline struct gate gate_create(u64 handler, u16 selector, u8 ist)
{
    return (struct gate){(u16)handler, selector, ist, 0x8e, (u16)(handler >> 16), (u32)(handler >> 32), 0};
}

struct tss {
    u32 reserved0;
    u64 rsp[3];
    u64 reserved1;
    u64 ist[7]; /* [0] is stack 1 of a gate */
    u64 reserved2;
    u16 reserved3, io_map; /* sizeof(struct tss): no port for CPL 3 */
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "SDM 3A 7.7");

/* Its descriptor takes two entries of the GDT: available 64-bit TSS, present (SDM 3A 7.2.3). LTR makes it busy. */
static inline void tss_describe(u64 gdt[2], const struct tss *tss)
{
    u64 base = (u64)tss;

    gdt[0] = (sizeof(*tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[1] = base >> 32;
}
