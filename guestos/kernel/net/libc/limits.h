/* What lwIP means by <limits.h>. */
#pragma once

#define INT_MAX __INT_MAX__
