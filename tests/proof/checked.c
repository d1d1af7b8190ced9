/* For WP: the functions of checked.h, whose contracts stand in builtins.h. */
#include "shared/lib/checked.h"
