/* SOURCES: guestos/kernel/net/url.c guestos/kernel/net/json.c guestos/kernel/net/iperf_text.c
            guestos/kernel/net/checksum.c guestos/kernel/net/offload.c */
/* What guestos' network reads from others: URLs, HTTP heads, iperf3's JSON; and the checksums it makes. */
#include "tests/unit/random.h"

#include <string.h>

#include "guestos/kernel/net/iperf_text.h"
#include "guestos/kernel/net/json.h"
#include "guestos/kernel/net/offload.h"
#include "guestos/kernel/net/support.h"
#include "guestos/kernel/net/url.h"

static void urls_are_taken_apart(void **state)
{
    struct url url;

    assert_int_equal(url_parse("http://10.0.2.2:8000/a/b?c=d", &url), OK);
    assert_string_equal(url.host, "10.0.2.2");
    assert_int_equal(url.port, 8000);
    assert_string_equal(url.path, "/a/b?c=d");
    assert_int_equal(url_parse("host-1.example", &url), OK);
    assert_string_equal(url.host, "host-1.example");
    assert_int_equal(url.port, 80);
    assert_string_equal(url.path, "/");
}

static void bad_urls_are_refused(void **state)
{
    static const struct {
        const char *text;
        status_t status;
    } cases[] = {
        {"", ERR_FORMAT},
        {"http://", ERR_FORMAT},
        {"http:///x", ERR_FORMAT},
        {"h:0/", ERR_FORMAT},
        {"h:65536/", ERR_FORMAT},
        {"h:/", ERR_FORMAT},
        {"h:1x/", ERR_FORMAT},
        {"h?x", ERR_FORMAT},
        {"h/a b", ERR_FORMAT},
        {"h/a\r\nX: y", ERR_FORMAT},
        {"https://h/", ERR_UNSUPPORTED},
        {"http://u@h/", ERR_UNSUPPORTED},
    };
    struct url url;
    char text[600];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(url_parse(cases[i].text, &url), cases[i].status);
    memset(text, 'h', sizeof(text));
    text[URL_HOST_MAX] = '\0';
    assert_int_equal(url_parse(text, &url), ERR_RANGE);
    text[URL_HOST_MAX - 1] = '\0';
    assert_int_equal(url_parse(text, &url), OK);
    memset(text, '/', sizeof(text));
    text[0] = 'h';
    text[URL_PATH_MAX + 1] = '\0';
    assert_int_equal(url_parse(text, &url), ERR_RANGE);
    text[URL_PATH_MAX] = '\0';
    assert_int_equal(url_parse(text, &url), OK);
}

static status_t parse_response(const char *text, struct http_response *response)
{
    /* Memory of exactly this size: the sanitizer sees a read behind it. */
    u32 size = (u32)strlen(text);
    char *copy = malloc(size + 1);

    assert_non_null(copy);
    copy = realloc(memcpy(copy, text, size), size != 0 ? size : 1);
    status_t status = http_parse_response(copy, size, response);
    free(copy);
    return status;
}

static void responses_are_read(void **state)
{
    struct http_response response;

    assert_int_equal(parse_response("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody", &response), OK);
    assert_int_equal(response.status, 200);
    assert_true(response.has_length);
    assert_int_equal(response.length, 12);
    assert_int_equal(response.size, 39);
    assert_int_equal(parse_response("HTTP/1.0 404 Not Found\nCONTENT-LENGTH:\t7\nServer: x\n\n", &response), OK);
    assert_int_equal(response.status, 404);
    assert_int_equal(response.length, 7);
    assert_int_equal(parse_response("HTTP/1.0 200 OK\r\n\r\n", &response), OK);
    assert_false(response.has_length);
}

static void bad_responses_are_refused(void **state)
{
    static const struct {
        const char *text;
        status_t status;
    } cases[] = {
        {"", ERR_BUSY},
        {"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n", ERR_BUSY},
        {"\r\n", ERR_FORMAT},
        {"HTTP/1.1 x00 OK\r\n\r\n", ERR_FORMAT},
        {"HTTP/2.0 200 OK\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 2000 OK\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ERR_FORMAT},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_UNSUPPORTED},
    };
    struct http_response response;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(parse_response(cases[i].text, &response), cases[i].status);
}

static void requests_are_read(void **state)
{
    struct http_request request;
    const char *get = "GET /100M HTTP/1.1\r\nHost: x\r\n\r\n", *head = "HEAD / HTTP/1.0\n\n";
    char text[600];

    assert_int_equal(http_parse_request(get, (u32)strlen(get), &request), OK);
    assert_string_equal(request.path, "/100M");
    assert_false(request.only_head);
    assert_int_equal(http_parse_request(head, (u32)strlen(head), &request), OK);
    assert_true(request.only_head);
    assert_int_equal(http_parse_request(get, 10, &request), ERR_BUSY);
    assert_int_equal(http_parse_request("POST / HTTP/1.0\n\n", 17, &request), ERR_UNSUPPORTED);
    assert_int_equal(http_parse_request("\n", 1, &request), ERR_UNSUPPORTED);
    assert_int_equal(http_parse_request("GET \n\n", 6, &request), ERR_FORMAT);
    assert_int_equal(http_parse_request("GET /x\n\n", 8, &request), ERR_FORMAT);
    assert_int_equal(http_parse_request("GET x HTTP/1.0\n\n", 16, &request), ERR_FORMAT);
    memset(text, '/', sizeof(text));
    memcpy(text, "GET ", 4);
    memcpy(text + sizeof(text) - 2, "\n\n", 2);
    assert_int_equal(http_parse_request(text, sizeof(text), &request), ERR_RANGE);
}

static void sizes_are_read(void **state)
{
    u64 bytes;

    assert_true(http_parse_size("/100M", &bytes));
    assert_int_equal(bytes, MIB(100));
    assert_true(http_parse_size("/0", &bytes));
    assert_int_equal(bytes, 0);
    assert_true(http_parse_size("/3G", &bytes));
    assert_int_equal(bytes, GIB(3));
    assert_false(http_parse_size("/", &bytes));
    assert_false(http_parse_size("/M", &bytes));
    assert_false(http_parse_size("/1MM", &bytes));
    assert_false(http_parse_size("/99999999999999999999", &bytes));
    assert_false(http_parse_size("/999999999999999999G", &bytes));
}

static bool find(const char *text, const char *key, i64 *value)
{
    u32 at = 0;

    return json_find_number(text, (u32)strlen(text), &at, key, value);
}

static void json_members_are_found(void **state)
{
    i64 value;

    assert_true(find("{\"a\": {\"b\" :\t-12.5e3, \"c\":true}}", "b", &value));
    assert_int_equal(value, -12);
    assert_true(find("{\"a\": {\"b\" :\t-12.5e3, \"c\":true}}", "c", &value));
    assert_int_equal(value, 1);
    assert_true(find("{\"b\":\"7\",\"b\":false}", "b", &value));
    assert_int_equal(value, 0);
    /* What looks like a member inside a string is none. */
    assert_false(find("{\"x\":\"\\\"b\\\":5\"}", "b", &value));
    assert_false(find("{\"bb\":5}", "b", &value));
    assert_false(find("{\"b\":99999999999999999999}", "b", &value));
    assert_false(find("{\"b\":", "b", &value));
    assert_false(find("{\"b", "b", &value));
    assert_false(find("{\"b\\", "b", &value));
    assert_false(find("", "b", &value));
}

/* What Debian's iperf3 3.12 sends, as it was seen on the wire. */
static const char client_parameters[] =
    "{\"tcp\":true,\"omit\":0,\"time\":7,\"num\":0,\"blockcount\":0,\"parallel\":3,\"reverse\":true,\"len\":131072,"
    "\"pacing_timer\":1000,\"client_version\":\"3.12\"}";

static status_t parse_parameters(const char *text, struct iperf_parameters *parameters)
{
    return iperf_parse_parameters(text, (u32)strlen(text), parameters);
}

static void iperf_parameters_are_read(void **state)
{
    struct iperf_parameters parameters;

    assert_int_equal(parse_parameters(client_parameters, &parameters), OK);
    assert_true(parameters.reverse);
    assert_int_equal(parameters.parallel, 3);
    assert_int_equal(parameters.seconds, 7);
    assert_int_equal(parse_parameters("{}", &parameters), OK);
    assert_false(parameters.reverse);
    assert_int_equal(parameters.parallel, 1);
    assert_int_equal(parse_parameters("{\"udp\":true}", &parameters), ERR_UNSUPPORTED);
    assert_int_equal(parse_parameters("{\"bidirectional\":1}", &parameters), ERR_UNSUPPORTED);
    assert_int_equal(parse_parameters("{\"parallel\":0}", &parameters), ERR_RANGE);
    assert_int_equal(parse_parameters("{\"parallel\":17}", &parameters), ERR_RANGE);
    assert_int_equal(parse_parameters("{\"time\":-1}", &parameters), ERR_RANGE);
    assert_int_equal(parse_parameters("[]", &parameters), ERR_FORMAT);
    assert_int_equal(parse_parameters("", &parameters), ERR_FORMAT);
}

static void iperf_texts_agree_with_themselves(void **state)
{
    struct iperf_parameters parameters = {.reverse = true, .parallel = 5, .seconds = 60}, read;
    u64 bytes[IPERF_MAX_STREAMS], total = 0, found;
    char text[IPERF_TEXT_MAX];

    u32 size = iperf_format_parameters(&parameters, text);
    assert_int_equal(size, strlen(text));
    assert_int_equal(iperf_parse_parameters(text, size, &read), OK);
    assert_memory_equal(&read, &parameters, sizeof(read));
    for (u32 i = 0; i < IPERF_MAX_STREAMS; i++)
        total += bytes[i] = (1ull << 59) + i;
    size = iperf_format_results(bytes, IPERF_MAX_STREAMS, 5000001, text);
    assert_int_equal(size, strlen(text));
    assert_non_null(strstr(text, "\"end_time\":5.000001}"));
    assert_non_null(strstr(text, "[{\"id\":1,"));
    assert_non_null(strstr(text, ",{\"id\":3,"));
    assert_null(strstr(text, "\"id\":2,"));
    assert_int_equal(iperf_parse_results(text, size, &found), OK);
    assert_int_equal(found, total);
    assert_int_equal(iperf_parse_results("{\"streams\":[]}", 14, &found), ERR_FORMAT);
    assert_int_equal(iperf_parse_results("{\"bytes\":-5}", 12, &found), ERR_FORMAT);
}

/* Any cut and any flipped bit of a text is read without leaving it. */
static void damaged_texts_do_no_harm(void **state)
{
    static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nTransfer-encodin: x\r\n\r\nbody";
    struct random random = random_start("guestos_net_text");

    for (u32 round = 0; round < 20000; round++) {
        const char *from = round % 2 == 0 ? client_parameters : response;
        u32 size = (u32)random_below(&random, strlen(from) + 1);
        char *text = malloc(size + 1);
        assert_non_null(text);
        text = realloc(memcpy(text, from, size), size != 0 ? size : 1);
        if (size > 0)
            text[random_below(&random, size)] ^= (char)(1u << random_below(&random, 8));
        struct iperf_parameters parameters;
        struct http_response read;
        struct http_request request;
        u64 bytes;
        (void)!iperf_parse_parameters(text, size, &parameters);
        (void)!iperf_parse_results(text, size, &bytes);
        (void)!http_parse_response(text, size, &read);
        (void)!http_parse_request(text, size, &request);
        free(text);
    }
}

/* RFC 1071, section 1: word by word, in the order of memory. */
static u16 simple_checksum(const u8 *data, u32 size)
{
    u64 sum = 0;

    for (u32 i = 0; i < size; i++)
        sum += i % 2 == 0 ? data[i] : (u32)data[i] << 8;
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)sum;
}

static void checksum_is_the_simple_one(void **state)
{
    struct random random = random_start("guestos_net_text");
    u8 data[1600];

    for (u32 round = 0; round < 2000; round++) {
        for (u32 i = 0; i < sizeof(data); i++)
            data[i] = round == 0 ? 0xff : (u8)random_below(&random, 256);
        u32 at = (u32)random_below(&random, 9), size = (u32)random_below(&random, sizeof(data) - at + 1);
        assert_int_equal(net_checksum(data + at, (int)size), simple_checksum(data + at, size));
    }
    assert_int_equal(net_checksum(data, 0), 0);
}

/* A frame of Ethernet, IPv4 with `options` bytes of options, TCP with ACK alone. Its size. */
static u32 make_frame(u8 frame[1514], u32 options, u32 payload)
{
    u32 ip_size = 20 + options, total = ip_size + 20 + payload;

    for (u32 i = 0; i < 1514; i++)
        frame[i] = (u8)(i * 31 + 7);
    frame[12] = 0x08;
    frame[13] = 0x00;
    u8 *ip = frame + 14, *tcp = ip + ip_size;
    ip[0] = (u8)(0x40 | ip_size / 4);
    ip[2] = (u8)(total >> 8);
    ip[3] = (u8)total;
    ip[6] = 0x40; /* don't fragment */
    ip[7] = 0;
    ip[9] = 6;
    tcp[12] = 0x50;
    tcp[13] = 0x10;
    return 14 + total;
}

static void set_sequence(u8 *frame, u32 sequence)
{
    sequence = __builtin_bswap32(sequence);
    memcpy(frame + 14 + 20 + 4, &sequence, 4);
}

/* What the device does (VirtIO 1.2, 5.1.6.2): sum from csum_start to the end, inverted, at csum_offset. */
static void device_completes(u8 *frame, u32 size, const struct virtio_net_hdr *header)
{
    u16 sum = (u16)~simple_checksum(frame + header->csum_start, size - header->csum_start);

    memcpy(frame + header->csum_start + header->csum_offset, &sum, sizeof(sum));
}

static void assert_receiver_agrees(const u8 *frame, u32 options, u32 tcp_size)
{
    u8 pseudo[12] = {0};

    memcpy(pseudo, frame + 14 + 12, 8);
    pseudo[9] = 6;
    pseudo[10] = (u8)(tcp_size >> 8);
    pseudo[11] = (u8)tcp_size;
    u32 sum = (u32)simple_checksum(pseudo, 12) + simple_checksum(frame + 34 + options, tcp_size);
    assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
}

static void offloaded_checksum_is_right(void **state)
{
    u8 frame[1514];

    for (u32 options = 0; options <= 40; options += 4) {
        for (u32 payload = 0; payload < 40; payload += 13) {
            struct virtio_net_hdr header = {0};
            struct offload_segment segment;
            u32 size = make_frame(frame, options, payload);
            /* Only the headers are at hand; the payload lies elsewhere. */
            assert_true(offload_read(frame, 14 + 20 + options + 20, size, &segment));
            assert_int_equal(segment.payload, payload);
            offload_finish(frame, &segment, &header);
            assert_int_equal(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
            assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_NONE);
            assert_int_equal(header.csum_start, 34 + options);
            device_completes(frame, size, &header);
            assert_receiver_agrees(frame, options, 20 + payload);
        }
    }
}

static void other_frames_are_left_alone(void **state)
{
    static const struct {
        u32 at;
        u8 value;
    } changes[] = {{12, 0x86},  {14, 0x65},   {14, 0x44},  {14, 0x4f},      {14 + 9, 17},   {14 + 6, 0x20},
                   {14 + 7, 1}, {14 + 3, 39}, {14 + 2, 9}, {34 + 12, 0x40}, {34 + 12, 0xf0}};
    struct offload_segment segment;
    u8 frame[1514];

    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        u32 size = make_frame(frame, 0, 10);
        frame[changes[i].at] = changes[i].value;
        assert_false(offload_read(frame, size, size, &segment));
    }
    u32 size = make_frame(frame, 0, 10);
    assert_false(offload_read(frame, 53, size, &segment));       /* not all headers at hand */
    assert_false(offload_read(frame, size, size + 6, &segment)); /* padding behind the packet */
    assert_true(offload_read(frame, size, size, &segment));
}

/* Full segments and a shorter one become one packet whose headers a receiver finds right. */
static void segments_are_put_together(void **state)
{
    static u8 whole[14 + 65535];
    u8 frame[1514];
    struct virtio_net_hdr header = {0};
    struct offload_segment merged, segment;
    u32 position = 1000;

    make_frame(whole, 0, 1000);
    set_sequence(whole, 0xfffffe00); /* it wraps */
    assert_true(offload_read(whole, 1054, 1054, &merged));
    for (u32 i = 0; i < 7; i++, position += segment.payload) {
        u32 size = make_frame(frame, 0, i < 6 ? 1000 : 123);
        set_sequence(frame, 0xfffffe00 + position);
        frame[14 + 4] = (u8)i; /* identification */
        if (i == 6)
            frame[34 + 13] |= 0x08; /* PSH */
        assert_true(offload_read(frame, 54, size, &segment));
        assert_true(offload_follows(whole, &merged, frame, &segment));
        offload_append(whole, &merged, frame, &segment);
        memcpy(whole + 54 + position, frame + 54, segment.payload);
    }
    /* After a shorter one nothing follows. */
    set_sequence(frame, 0xfffffe00 + position);
    assert_false(offload_follows(whole, &merged, frame, &segment));
    offload_finish(whole, &merged, &header);
    assert_int_equal(position, 7123);
    assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(header.gso_size, 1000);
    assert_int_equal(header.hdr_len, 54);
    assert_int_equal(whole[16] << 8 | whole[17], 40 + 7123);
    assert_int_equal(simple_checksum(whole + 14, 20), 0xffff);
    assert_int_equal(whole[34 + 13], 0x18);
    device_completes(whole, 54 + position, &header);
    assert_receiver_agrees(whole, 0, 20 + position);
}

static void what_does_not_follow_is_not_put_together(void **state)
{
    /* MAC, TTL, address, port, sequence, acknowledged, FIN, SYN, window, urgent pointer */
    static const u32 places[] = {3, 14 + 8, 14 + 13, 34 + 1, 34 + 7, 34 + 9, 34 + 13, 34 + 13, 34 + 15, 34 + 19};
    u8 first[1514], next[1514];
    struct offload_segment merged, segment;

    for (size_t i = 0; i <= ARRAY_SIZE(places); i++) {
        u32 size = make_frame(first, 0, 500);
        make_frame(next, 0, 500);
        set_sequence(first, 5);
        set_sequence(next, 505);
        if (i < ARRAY_SIZE(places))
            next[places[i]] ^= i == 7 ? 2 : 1;
        assert_true(offload_read(first, size, size, &merged) && offload_read(next, size, size, &segment));
        assert_int_equal(offload_follows(first, &merged, next, &segment), i == ARRAY_SIZE(places));
    }
    u32 longer = make_frame(next, 0, 501), empty = 54;
    set_sequence(next, 505);
    assert_true(offload_read(next, longer, longer, &segment));
    assert_false(offload_follows(first, &merged, next, &segment));
    make_frame(next, 0, 0);
    set_sequence(next, 505);
    assert_true(offload_read(next, empty, empty, &segment));
    assert_false(offload_follows(first, &merged, next, &segment));
    merged.payload = 65000; /* with another 500 and the headers: more than an IP packet holds */
    make_frame(next, 0, 500);
    set_sequence(next, 65005);
    assert_true(offload_read(next, 554, 554, &segment));
    assert_false(offload_follows(first, &merged, next, &segment));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(responses_are_read),
        cmocka_unit_test(bad_responses_are_refused),
        cmocka_unit_test(requests_are_read),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(json_members_are_found),
        cmocka_unit_test(iperf_parameters_are_read),
        cmocka_unit_test(iperf_texts_agree_with_themselves),
        cmocka_unit_test(damaged_texts_do_no_harm),
        cmocka_unit_test(checksum_is_the_simple_one),
        cmocka_unit_test(offloaded_checksum_is_right),
        cmocka_unit_test(other_frames_are_left_alone),
        cmocka_unit_test(segments_are_put_together),
        cmocka_unit_test(what_does_not_follow_is_not_put_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
