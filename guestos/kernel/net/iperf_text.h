/* The texts of iperf3's control connection: test parameters and results, as JSON. Pure. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define IPERF_MAX_STREAMS 16u
#define IPERF_TEXT_MAX 8192u

struct iperf_parameters {
    bool reverse; /* the server sends */
    u32 parallel; /* 1..IPERF_MAX_STREAMS */
    u64 seconds;
};

/* What a client asks for. ERR_UNSUPPORTED: UDP, SCTP or both directions at once. ERR_RANGE: streams. ERR_FORMAT. */
NODISCARD status_t iperf_parse_parameters(const char *text, u32 size, struct iperf_parameters *parameters);

/* The bytes that the peer counts, over all its streams. ERR_FORMAT: it names none, or impossible ones. */
NODISCARD status_t iperf_parse_results(const char *text, u32 size, u64 *bytes);

/* Text of at most IPERF_TEXT_MAX bytes, terminated; its length. */
u32 iperf_format_parameters(const struct iperf_parameters *parameters, char text[IPERF_TEXT_MAX]);
u32 iperf_format_results(const u64 *bytes, u32 streams, u64 us, char text[IPERF_TEXT_MAX]);
