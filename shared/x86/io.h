/*
 * Ports (SDM 2, IN and OUT) and registers in memory that is mapped uncached. What they mean is the caller's business. A
 * port access is a barrier for the compiler, too: it may start or end what a device does with memory.
 */
#pragma once

#include "shared/lib/types.h"

/* io_in8(), io_out8() and so on */
#define PORT_ACCESS(bits, instruction_suffix)                                                                          \
    static inline u##bits io_in##bits(u16 port)                                                                        \
    {                                                                                                                  \
        u##bits v;                                                                                                     \
        __asm__ volatile("in" instruction_suffix " %1, %0" : "=a"(v) : "Nd"(port) : "memory");                         \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void io_out##bits(u16 port, u##bits v)                                                               \
    {                                                                                                                  \
        __asm__ volatile("out" instruction_suffix " %0, %1" ::"a"(v), "Nd"(port) : "memory");                          \
    }
PORT_ACCESS(8, "b")
PORT_ACCESS(16, "w")
PORT_ACCESS(32, "l")

/* The same, and registers in memory, with a width of 1, 2 or 4 bytes that is known only at run time. */
static inline u32 io_in(u16 port, u32 width)
{
    return width == 1 ? io_in8(port) : width == 2 ? io_in16(port) : io_in32(port);
}

static inline void io_out(u16 port, u32 width, u32 value)
{
    if (width == 1)
        io_out8(port, (u8)value);
    else if (width == 2)
        io_out16(port, (u16)value);
    else
        io_out32(port, value);
}

static inline u32 mmio_read(const volatile void *at, u32 width)
{
    return width == 1 ? *(const volatile u8 *)at : width == 2 ? *(const volatile u16 *)at : *(const volatile u32 *)at;
}

static inline void mmio_write(volatile void *at, u32 width, u32 value)
{
    if (width == 1)
        *(volatile u8 *)at = (u8)value;
    else if (width == 2)
        *(volatile u16 *)at = (u16)value;
    else
        *(volatile u32 *)at = value;
}
