/* The one list of result codes. Functions that can fail are NODISCARD and return status_t; OK is zero. */
#pragma once

#include "shared/lib/types.h"

#define STATUS_LIST(X)                                                                             \
    X(OK, "ok")                                                                                    \
    X(ERR_INVALID, "invalid value")                                                                \
    X(ERR_RANGE, "out of range")                                                                   \
    X(ERR_OVERFLOW, "arithmetic overflow")                                                         \
    X(ERR_NO_MEMORY, "out of memory")                                                              \
    X(ERR_NO_SPACE, "no free slot")                                                                \
    X(ERR_NOT_FOUND, "not found")                                                                  \
    X(ERR_EXISTS, "already exists")                                                                \
    X(ERR_DENIED, "not allowed")                                                                   \
    X(ERR_UNSUPPORTED, "not supported")                                                            \
    X(ERR_FORMAT, "malformed")                                                                     \
    X(ERR_BUSY, "busy")                                                                            \
    X(ERR_TIMEOUT, "timed out")                                                                    \
    X(ERR_STATE, "wrong state")                                                                    \
    X(ERR_IO, "input/output error")

#define STATUS_ENUM(code, text) code,
typedef enum { STATUS_LIST(STATUS_ENUM) STATUS_COUNT } status_t;
#undef STATUS_ENUM

/* A short English text for the code; never NULL, also for a value outside the list. */
const char *status_text(status_t status);
