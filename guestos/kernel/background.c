#include "guestos/kernel/background.h"

#include "shared/lib/types.h"

static void (*background)(void);
static bool busy;

void background_set(void (*work)(void))
{
    background = work;
}

void background_run(void)
{
    if (background == NULL || busy)
        return;
    busy = true;
    background();
    busy = false;
}
