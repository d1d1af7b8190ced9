/* As much of JSON (RFC 8259) as finding numbers in somebody else's text takes. Pure. */
#pragma once

#include "shared/lib/types.h"

/*
 * The next member named `key`, at any depth, in text[*at .. size): its value when that is a number (the fraction and
 * what follows it are cut off), true (1) or false (0); *at then stands behind the key. False: there is none, or the
 * text ends or makes no sense before it; members of that name with other values are passed over.
 */
NODISCARD bool json_find_number(const char *text, u32 size, u32 *at, const char *key, i64 *value);
