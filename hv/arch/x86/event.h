/* An event on its way through a guest's IDT, as the fields of both vendors have it (SDM 3C 24.8.3, APM 2 15.20). */
#pragma once

#define EVENT_VALID (1u << 31)
#define EVENT_HAS_ERROR (1u << 11) /* a code is pushed: that of an exception */
#define EVENT_VECTOR 0xffu
#define EVENT_TYPE (7u << 8)
#define EVENT_TYPE_INTERRUPT (0u << 8)
#define EVENT_TYPE_NMI (2u << 8)
#define EVENT_TYPE_EXCEPTION (3u << 8)
#define EVENT_TYPE_SOFT_INTERRUPT (4u << 8) /* INT n; from here on Intel has two more for what software raises */
