/* Lines of the control port (hv/control): `kind key=value key="text with blanks"`. What they say is not trusted. Pure.
 */
#pragma once

#include "shared/lib/types.h"

/* Is the line of this kind? */
bool drvctl_is(const char *line, const char *kind);

/* The value of a key, without quotes, cut to size. False: there is no such key, and *value is "". */
bool drvctl_text(const char *line, const char *key, char *value, u32 size);
/* The same for a number; 0 when there is none. */
u64 drvctl_number(const char *line, const char *key);

/* The next key and its value from *at on; false at the end. Starts with *at at the line. */
bool drvctl_next(const char **at, char *key, u32 key_size, char *value, u32 value_size);
