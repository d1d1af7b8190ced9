/* Access to ports and registers. No lock needed; what they mean is the caller's business. */
#pragma once

#include "shared/lib/types.h"

/* io_in8(), io_out8() and so on */
#define PORT_ACCESS(bits, instruction_suffix)                                                                          \
    static inline u##bits io_in##bits(u16 port)                                                                        \
    {                                                                                                                  \
        u##bits v;                                                                                                     \
        __asm__ volatile("in" instruction_suffix " %1, %0" : "=a"(v) : "Nd"(port));                                    \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void io_out##bits(u16 port, u##bits v)                                                               \
    {                                                                                                                  \
        __asm__ volatile("out" instruction_suffix " %0, %1" ::"a"(v), "Nd"(port));                                     \
    }
PORT_ACCESS(8, "b")
PORT_ACCESS(16, "w")
PORT_ACCESS(32, "l")

/* Registers in memory (paging_map_device). */
static inline u32 mmio_read32(const volatile u8 *at)
{
    return *(const volatile u32 *)at;
}
static inline void mmio_write32(volatile u8 *at, u32 value)
{
    *(volatile u32 *)at = value;
}
