#include "shared/lib/status.h"

const char *status_text(status_t status)
{
#define STATUS_TEXT(code, text) [code] = text,
    static const char *const texts[STATUS_COUNT] = {STATUS_LIST(STATUS_TEXT)};
#undef STATUS_TEXT
    /* The cast also sends a negative value, which a peer may have put there, outside the list. */
    return (u32)status < STATUS_COUNT ? texts[status] : "unknown status";
}
