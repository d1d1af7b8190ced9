#include "guestos/kernel/net/iperf_text.h"

#include "guestos/kernel/net/json.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define DEFAULT_SECONDS 10
#define MOST_SECONDS 86400

typedef unsigned long long number; /* what %llu takes */

/* The member's value, or what it is when a peer leaves it out. */
static i64 member(const char *text, u32 size, const char *key, i64 absent)
{
    u32 at = 0;
    i64 value;

    return json_find_number(text, size, &at, key, &value) ? value : absent;
}

status_t iperf_parse_parameters(const char *text, u32 size, struct iperf_parameters *parameters)
{
    i64 parallel = member(text, size, "parallel", 1), seconds = member(text, size, "time", DEFAULT_SECONDS);

    if (size < 2 || text[0] != '{')
        return ERR_FORMAT;
    if (member(text, size, "udp", 0) != 0 || member(text, size, "sctp", 0) != 0 ||
        member(text, size, "bidirectional", 0) != 0)
        return ERR_UNSUPPORTED;
    if (parallel < 1 || parallel > (i64)IPERF_MAX_STREAMS || seconds < 0 || seconds > MOST_SECONDS)
        return ERR_RANGE;
    *parameters = (struct iperf_parameters){member(text, size, "reverse", 0) != 0, (u32)parallel, (u64)seconds};
    return OK;
}

status_t iperf_parse_results(const char *text, u32 size, u64 *bytes)
{
    u32 at = 0, streams = 0;
    u64 total = 0;
    i64 value;

    for (; json_find_number(text, size, &at, "bytes", &value); streams++) {
        if (value < 0 || streams == IPERF_MAX_STREAMS)
            return ERR_FORMAT;
        total += (u64)value; /* sixteen numbers below 2^60: no overflow */
    }
    *bytes = total;
    return streams > 0 ? OK : ERR_FORMAT;
}

u32 iperf_format_parameters(const struct iperf_parameters *parameters, char text[IPERF_TEXT_MAX])
{
    return (u32)bh_snprintf(text, IPERF_TEXT_MAX,
                            "{\"tcp\":true,\"omit\":0,\"time\":%llu,\"num\":0,\"blockcount\":0,\"parallel\":%u,%s"
                            "\"len\":131072,\"pacing_timer\":1000,\"client_version\":\"3.12\"}",
                            (number)parameters->seconds, parameters->parallel,
                            parameters->reverse ? "\"reverse\":true," : "");
}

u32 iperf_format_results(const u64 *bytes, u32 streams, u64 us, char text[IPERF_TEXT_MAX])
{
    int size = bh_snprintf(text, IPERF_TEXT_MAX,
                           "{\"cpu_util_total\":0,\"cpu_util_user\":0,\"cpu_util_system\":0,"
                           "\"sender_has_retransmits\":0,\"streams\":[");

    for (u32 i = 0; i < streams; i++)
        /* iperf3 numbers its streams 1, 3, 4, 5, ... and both sides must agree. */
        size += bh_snprintf(text + size, IPERF_TEXT_MAX - (u32)size,
                            "%s{\"id\":%u,\"bytes\":%llu,\"retransmits\":0,\"jitter\":0,\"errors\":0,\"packets\":0,"
                            "\"start_time\":0,\"end_time\":%llu.%06llu}",
                            i == 0 ? "" : ",", i == 0 ? 1 : i + 2, (number)bytes[i], (number)us / 1000000,
                            (number)us % 1000000);
    size += bh_snprintf(text + size, IPERF_TEXT_MAX - (u32)size, "]}");
    return (u32)size;
}
