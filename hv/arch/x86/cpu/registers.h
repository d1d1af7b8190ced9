/* The registers (shared/x86/registers.h), and which values the CPU takes. Valid in any context of the hypervisor. */
#pragma once

#include "shared/x86/registers.h"

/* A linear address of 4-level paging (SDM 1 3.3.7.1). */
static inline bool address_is_canonical(u64 address)
{
    return (u64)((i64)(address << 16) >> 16) == address;
}
/* Memory types 2, 3 and above 7 are reserved (SDM 3A 11.12.2, APM 2 7.8.1). */
static inline bool pat_is_valid(u64 pat)
{
    for (; pat; pat >>= 8)
        if ((pat & 0xff) > 7 || (pat & 0xfe) == 2)
            return false;
    return true;
}
