#include "guestos/kernel/background.h"

#include "shared/lib/types.h"

#define WORKS 4u

static void (*background[WORKS])(void);
static bool busy;

void background_add(void (*work)(void))
{
    for (u32 i = 0; i < WORKS; i++) {
        if (background[i] == NULL)
            background[i] = work;
        if (background[i] == work)
            return;
    }
}

void background_run(void)
{
    if (busy)
        return;
    busy = true;
    for (u32 i = 0; i < WORKS && background[i] != NULL; i++)
        background[i]();
    busy = false;
}
