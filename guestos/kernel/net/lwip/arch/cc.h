/* lwIP's view of the compiler and of this kernel. */
#pragma once

#include "guestos/kernel/net/support.h"

#define BYTE_ORDER LITTLE_ENDIAN
#define LWIP_NO_CTYPE_H 1
#define LWIP_NO_INTTYPES_H 1
#define LWIP_NO_UNISTD_H 1
#define X8_F "02x"
#define U16_F "u"
#define S16_F "d"
#define X16_F "x"
#define U32_F "u"
#define S32_F "d"
#define X32_F "x"
#define SZT_F "zu"

#define lwip_htons(x) __builtin_bswap16(x)
#define lwip_htonl(x) __builtin_bswap32(x)
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS 1
#define SMEMCPY(to, from, size) __builtin_memcpy(to, from, size)

#define LWIP_RAND() net_random()
#define LWIP_CHKSUM net_checksum
/* A broken rule inside lwIP is an error of this kernel. */
#define LWIP_PLATFORM_ASSERT(text) net_assertion_failed(text, __LINE__)
#define LWIP_PLATFORM_DIAG(text)
