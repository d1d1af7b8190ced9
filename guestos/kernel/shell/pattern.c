#include "guestos/kernel/shell/pattern.h"

#include "guestos/kernel/mm/mix.h"

/* Buffers of the load test start anywhere: x86 does not mind, but the compiler must be told. */
typedef u64 __attribute__((aligned(1), may_alias)) loose_u64;

static u64 state_of(u64 seed, u64 sector, u64 generation)
{
    return mix64(seed ^ mix64(sector + (generation << 40)));
}

void pattern_fill(void *at, u64 seed, u64 sector, u64 generation)
{
    loose_u64 *word = at;
    u64 state = state_of(seed, sector, generation) + MIX_STEP;

    word[0] = sector;
    word[1] = generation;
    for (u32 i = 2; i < PATTERN_WORDS; i++)
        word[i] = mix64(state += MIX_STEP);
}

int pattern_compare(const void *at, u64 seed, u64 sector, u64 generation)
{
    const loose_u64 *word = at;
    u64 state = state_of(seed, sector, generation) + MIX_STEP;

    if (word[0] != sector)
        return 0;
    if (word[1] != generation)
        return 1;
    for (u32 i = 2; i < PATTERN_WORDS; i++)
        if (word[i] != mix64(state += MIX_STEP))
            return (int)i;
    return -1;
}

u64 pattern_word(u64 seed, u64 sector, u64 generation, u32 index)
{
    if (index < 2)
        return index == 0 ? sector : generation;
    return mix64(state_of(seed, sector, generation) + index * MIX_STEP);
}
