/* What lwIP means by <string.h>. */
#pragma once

#include "shared/lib/string.h"
