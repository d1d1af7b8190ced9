/* Port access. No lock needed; what a port means is the caller's business. */
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
PORT_ACCESS(32, "l")
