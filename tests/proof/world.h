/* What Eva's programs are made of. */
#pragma once

#include <__fc_builtin.h>

#include "shared/lib/types.h"

/* The last `bytes` bytes of an array, not one more, of any value. */
#define UNKNOWN(array, bytes) (Frama_C_make_unknown((char *)(array), sizeof(array)), (array) + sizeof(array) - (bytes))

static u64 any_u64(void)
{
    return Frama_C_unsigned_long_interval(0, UINT64_MAX);
}
