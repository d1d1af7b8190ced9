/* What lwIP means by <stdlib.h>: the number in the name of an interface ("en0"). */
#pragma once

int atoi(const char *text);
