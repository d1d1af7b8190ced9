/* What Eva's programs are made of. */
#pragma once

#include <__fc_builtin.h>
#include <stdlib.h>

#include "shared/lib/types.h"

/* So many bytes, not one more, of any value. */
static u8 *unknown(u64 bytes)
{
    char *at = malloc(bytes);
    if (at == NULL)
        abort();
    Frama_C_make_unknown(at, bytes);
    return (u8 *)at;
}

static u64 any_u64(void)
{
    return Frama_C_unsigned_long_interval(0, UINT64_MAX);
}
