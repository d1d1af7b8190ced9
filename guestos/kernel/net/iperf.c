#include "guestos/kernel/net/iperf.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/net/net.h"
#include "guestos/kernel/net/support.h"
#include "shared/lib/string.h"

#define COOKIE_SIZE 37u /* with the terminating zero */
#define LARGEST_WRITE 0xf000u
#define SETUP_US 20000000u
#define GRACE_US 20000000u /* beyond the length of the test, for its end */
#define FOR_EVER (~0ull / 4)

/* The bytes on the control connection (iperf3's iperf_api.h). */
enum iperf_state {
    TEST_START = 1,
    TEST_RUNNING = 2,
    TEST_END = 4,
    PARAM_EXCHANGE = 9,
    CREATE_STREAMS = 10,
    SERVER_TERMINATE = 11,
    CLIENT_TERMINATE = 12,
    EXCHANGE_RESULTS = 13,
    DISPLAY_RESULTS = 14,
    IPERF_DONE = 16,
    ACCESS_DENIED = 0xff,
    SERVER_ERROR = 0xfe,
};

/*
 * What the next bytes on the control connection are.
 * server: COOKIE -> PARAMETERS_SIZE -> PARAMETERS -> STATE -(TEST_END)-> RESULTS_SIZE -> RESULTS -> STATE
 * client: STATE -(EXCHANGE_RESULTS)-> RESULTS_SIZE -> RESULTS -> STATE
 */
enum iperf_step { STEP_COOKIE, STEP_PARAMETERS_SIZE, STEP_PARAMETERS, STEP_STATE, STEP_RESULTS_SIZE, STEP_RESULTS };

struct iperf_stream {
    struct tcp_pcb *pcb;
    u32 cookie_seen; /* server: bytes of the cookie that have come and were right */
    bool ready;
    u64 bytes;
};

static struct iperf {
    bool server, sender, running, done;
    status_t error;
    struct iperf_parameters parameters;
    struct tcp_pcb *control;
    char cookie[COOKIE_SIZE];
    enum iperf_step step;
    u8 input[IPERF_TEXT_MAX];
    u32 have, need;
    struct iperf_stream stream[IPERF_MAX_STREAMS];
    u32 streams; /* that exist */
    u64 start_us, end_us, peer_bytes;
    struct netif *netif; /* client: the card */
    ip_addr_t address;   /* client: the server's */
    u16 port;
} test;

static char text[IPERF_TEXT_MAX];

static void finish(status_t error)
{
    if (!test.done)
        test.error = error;
    test.done = true;
    test.running = false;
}

static void expect(enum iperf_step step, u32 bytes)
{
    test.step = step;
    test.need = bytes;
}

/* Control messages are far smaller than the send buffer; one that does not fit ends the test. */
static void send_control(const void *data, u32 size)
{
    if (test.control == NULL || tcp_write(test.control, data, (u16)size, TCP_WRITE_FLAG_COPY) != ERR_OK)
        finish(ERR_IO);
    else
        tcp_output(test.control);
}

static void send_state(enum iperf_state state)
{
    u8 byte = (u8)state;

    send_control(&byte, 1);
}

static void send_text(u32 size)
{
    u32 length = lwip_htonl(size);

    send_control(&length, sizeof(length));
    send_control(text, size);
}

static void send_results(void)
{
    u64 bytes[IPERF_MAX_STREAMS];

    for (u32 i = 0; i < test.streams; i++)
        bytes[i] = test.stream[i].bytes;
    send_text(iperf_format_results(bytes, test.streams, test.end_us - test.start_us, text));
}

/* Fill the stream's send buffer with the pattern, in place. */
static void push(struct iperf_stream *stream)
{
    while (stream->pcb != NULL && test.running) {
        u64 at = stream->bytes % NET_PATTERN_BYTES, size = NET_PATTERN_BYTES - at;
        if (size > tcp_sndbuf(stream->pcb))
            size = tcp_sndbuf(stream->pcb);
        if (size > LARGEST_WRITE)
            size = LARGEST_WRITE;
        if (size == 0 || tcp_write(stream->pcb, net_pattern() + at, (u16)size, 0) != ERR_OK)
            break;
        stream->bytes += size;
    }
    if (stream->pcb != NULL)
        tcp_output(stream->pcb);
}

static void start_running(void)
{
    test.running = true;
    test.start_us = clock_us();
    for (u32 i = 0; i < test.streams && test.sender; i++)
        push(&test.stream[i]);
}

static void stop_running(void)
{
    test.running = false;
    test.end_us = clock_us();
}

static u32 ready_streams(void)
{
    u32 count = 0;

    for (u32 i = 0; i < test.streams; i++)
        count += test.stream[i].ready;
    return count;
}

/* ---- streams ---- */

static void on_stream_error(void *arg, err_t error)
{
    struct iperf_stream *stream = arg;

    (void)error;
    stream->pcb = NULL; /* lwIP has freed it */
    if (test.running || !stream->ready)
        finish(ERR_IO);
}

/* Server: the stream says first whose test it belongs to. The number of bytes of p that were that. */
static u16 check_cookie(struct iperf_stream *stream, struct pbuf *p)
{
    u16 at = 0;

    for (; at < p->tot_len && stream->cookie_seen < COOKIE_SIZE; at++)
        if (pbuf_get_at(p, at) == (u8)test.cookie[stream->cookie_seen])
            stream->cookie_seen++;
        else
            finish(ERR_FORMAT);
    if (stream->cookie_seen == COOKIE_SIZE && !stream->ready) {
        stream->ready = true;
        if (ready_streams() == test.parameters.parallel) {
            send_state(TEST_START);
            send_state(TEST_RUNNING);
            start_running();
        }
    }
    return at;
}

static err_t on_stream_data(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct iperf_stream *stream = arg;

    (void)error;
    if (p == NULL) {
        /* In the middle of a test that is its end; afterwards it is how things go. */
        if (test.running && !test.sender)
            finish(ERR_IO);
        return ERR_OK;
    }
    u16 cookie = stream->ready ? 0 : check_cookie(stream, p);
    if (test.running)
        stream->bytes += test.sender ? 0 : (u64)(p->tot_len - cookie);
    tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
}

static err_t on_stream_sent(void *arg, struct tcp_pcb *pcb, u16_t size)
{
    (void)pcb;
    (void)size;
    if (test.running && test.sender)
        push(arg);
    return ERR_OK;
}

static err_t on_stream_connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    struct iperf_stream *stream = arg;

    (void)error;
    stream->ready = tcp_write(pcb, test.cookie, COOKIE_SIZE, TCP_WRITE_FLAG_COPY) == ERR_OK;
    if (!stream->ready)
        finish(ERR_NO_MEMORY);
    tcp_output(pcb);
    return ERR_OK;
}

static void attach_stream(struct tcp_pcb *pcb)
{
    struct iperf_stream *stream = &test.stream[test.streams++];

    *stream = (struct iperf_stream){.pcb = pcb};
    tcp_arg(pcb, stream);
    tcp_err(pcb, on_stream_error);
    tcp_recv(pcb, on_stream_data);
    tcp_sent(pcb, on_stream_sent);
}

static void open_streams(void)
{
    while (test.streams < test.parameters.parallel && !test.done) {
        struct tcp_pcb *pcb = tcp_new();
        if (pcb == NULL) {
            finish(ERR_NO_MEMORY);
            return;
        }
        attach_stream(pcb);
        tcp_bind_netif(pcb, test.netif);
        if (tcp_connect(pcb, &test.address, test.port, on_stream_connected) != ERR_OK)
            finish(ERR_NO_MEMORY);
    }
}

static void close_pcb(struct tcp_pcb *pcb)
{
    if (pcb == NULL)
        return;
    tcp_arg(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    if (tcp_close(pcb) != ERR_OK)
        tcp_abort(pcb);
}

/* A receiver may be in the middle of a block and hear nothing else before that is whole, or the stream ends. */
static void end_streams(void)
{
    for (u32 i = 0; i < test.streams; i++) {
        close_pcb(test.stream[i].pcb);
        test.stream[i].pcb = NULL;
    }
}

/* ---- the control connection ---- */

static void take_parameters(void)
{
    status_t status = iperf_parse_parameters((const char *)test.input, test.have, &test.parameters);

    if (status != OK) {
        const u8 refusal[9] = {SERVER_ERROR}; /* followed by two error numbers, of which it has none to offer */
        send_control(refusal, sizeof(refusal));
        finish(status);
        return;
    }
    test.sender = test.parameters.reverse;
    send_state(CREATE_STREAMS);
    expect(STEP_STATE, 1);
}

static void take_results(void)
{
    status_t status = iperf_parse_results((const char *)test.input, test.have, &test.peer_bytes);

    if (status != OK) {
        finish(status);
        return;
    }
    if (test.server) {
        send_results();
        send_state(DISPLAY_RESULTS);
    }
    expect(STEP_STATE, 1);
}

static void take_size(enum iperf_step next)
{
    u32 size;

    memcpy(&size, test.input, sizeof(size));
    size = lwip_htonl(size);
    if (size == 0 || size > IPERF_TEXT_MAX)
        finish(ERR_RANGE);
    else
        expect(next, size);
}

static void follow_client(u8 state)
{
    if (state == TEST_END && test.running) {
        stop_running();
        if (test.sender)
            end_streams();
        send_state(EXCHANGE_RESULTS);
        expect(STEP_RESULTS_SIZE, 4);
    } else {
        finish(state == IPERF_DONE ? OK : ERR_IO);
    }
}

static void follow_server(u8 state)
{
    switch (state) {
    case PARAM_EXCHANGE:
        send_text(iperf_format_parameters(&test.parameters, text));
        break;
    case CREATE_STREAMS:
        open_streams();
        break;
    case TEST_START:
        break;
    case TEST_RUNNING:
        start_running();
        break;
    case EXCHANGE_RESULTS:
        send_results();
        expect(STEP_RESULTS_SIZE, 4);
        break;
    case DISPLAY_RESULTS:
        send_state(IPERF_DONE);
        finish(OK);
        break;
    default:
        finish(state == ACCESS_DENIED ? ERR_DENIED : ERR_IO);
    }
}

/* The bytes that were expected are all there: test.have of them in test.input. */
static void take_step(void)
{
    switch (test.step) {
    case STEP_COOKIE:
        memcpy(test.cookie, test.input, COOKIE_SIZE);
        send_state(PARAM_EXCHANGE);
        expect(STEP_PARAMETERS_SIZE, 4);
        break;
    case STEP_PARAMETERS_SIZE:
        take_size(STEP_PARAMETERS);
        break;
    case STEP_PARAMETERS:
        take_parameters();
        break;
    case STEP_STATE:
        if (test.server)
            follow_client(test.input[0]);
        else
            follow_server(test.input[0]);
        break;
    case STEP_RESULTS_SIZE:
        take_size(STEP_RESULTS);
        break;
    case STEP_RESULTS:
        take_results();
        break;
    }
}

static err_t on_control_data(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    (void)arg;
    (void)error;
    if (p == NULL) {
        finish(ERR_IO);
        return ERR_OK;
    }
    for (u16 at = 0; at < p->tot_len && !test.done;) {
        u16 size = pbuf_copy_partial(p, test.input + test.have, (u16)(test.need - test.have), at);
        at += size;
        test.have += size;
        if (test.have == test.need) {
            take_step();
            test.have = 0;
        }
    }
    tcp_recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
}

static void on_control_error(void *arg, err_t error)
{
    (void)arg;
    test.control = NULL; /* lwIP has freed it */
    finish(error == ERR_RST && test.have == 0 && test.streams == 0 ? ERR_DENIED : ERR_IO);
}

static void attach_control(struct tcp_pcb *pcb)
{
    test.control = pcb;
    tcp_nagle_disable(pcb);
    tcp_err(pcb, on_control_error);
    tcp_recv(pcb, on_control_data);
}

static err_t on_control_connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    (void)pcb;
    (void)error;
    send_control(test.cookie, COOKIE_SIZE);
    return ERR_OK;
}

static err_t on_accepted(void *arg, struct tcp_pcb *pcb, err_t error)
{
    static const u8 busy = ACCESS_DENIED;

    (void)arg;
    if (error != ERR_OK || pcb == NULL)
        return ERR_VAL;
    if (test.control == NULL && !test.done) {
        attach_control(pcb);
    } else if (test.step == STEP_STATE && !test.running && !test.done && test.streams < test.parameters.parallel) {
        attach_stream(pcb);
    } else {
        tcp_write(pcb, &busy, 1, TCP_WRITE_FLAG_COPY);
        if (tcp_close(pcb) != ERR_OK) {
            tcp_abort(pcb);
            return ERR_ABRT;
        }
    }
    return ERR_OK;
}

/* ---- a whole test ---- */

static void close_all(void)
{
    end_streams();
    close_pcb(test.control);
    test.control = NULL;
    test.streams = 0;
}

static bool is_done(void *context)
{
    (void)context;
    return test.done;
}

static bool is_running_or_done(void *context)
{
    (void)context;
    return test.running || test.done;
}

static bool has_control(void *context)
{
    (void)context;
    return test.control != NULL || test.done;
}

static status_t wait(bool (*done)(void *), u64 us)
{
    enum net_wait_result result = net_wait(done, NULL, us);

    if (result == NET_DONE)
        return OK;
    if (result == NET_INTERRUPTED && test.control != NULL)
        send_state(test.server ? SERVER_TERMINATE : CLIENT_TERMINATE);
    return result == NET_INTERRUPTED ? ERR_STATE : ERR_TIMEOUT;
}

static void fill_report(struct iperf_report *report)
{
    *report = (struct iperf_report){.sender = test.sender,
                                    .streams = test.streams,
                                    .us = test.end_us - test.start_us,
                                    .peer_bytes = test.peer_bytes};
    for (u32 i = 0; i < test.streams; i++)
        report->bytes += test.stream[i].bytes;
}

static void make_cookie(void)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";

    for (u32 i = 0; i < COOKIE_SIZE - 1; i++)
        test.cookie[i] = letters[net_random() % 32];
}

static status_t drive_client(void)
{
    status_t status = wait(is_running_or_done, SETUP_US);

    if (status == OK && !test.done) {
        status = wait(is_done, test.parameters.seconds * 1000000);
        if (status == ERR_TIMEOUT) {
            stop_running();
            send_state(TEST_END);
            status = wait(is_done, GRACE_US);
        }
    }
    return status == OK ? test.error : status;
}

status_t iperf_run_client(struct netif *netif, const ip_addr_t *address, u16 port,
                          const struct iperf_parameters *parameters, struct iperf_report *report)
{
    struct tcp_pcb *pcb = tcp_new();

    if (pcb == NULL)
        return ERR_NO_MEMORY;
    memset(&test, 0, sizeof(test));
    test.parameters = *parameters;
    test.sender = !parameters->reverse;
    test.netif = netif;
    test.address = *address;
    test.port = port;
    expect(STEP_STATE, 1);
    make_cookie();
    attach_control(pcb);
    tcp_bind_netif(pcb, netif);
    status_t status = tcp_connect(pcb, address, port, on_control_connected) == ERR_OK ? drive_client() : ERR_NOT_FOUND;
    fill_report(report);
    close_all();
    return status;
}

static status_t drive_server(void)
{
    status_t status = wait(has_control, FOR_EVER);

    if (status == OK)
        status = wait(is_running_or_done, SETUP_US);
    if (status == OK)
        status = wait(is_done, test.parameters.seconds * 1000000 + GRACE_US);
    return status == OK ? test.error : status;
}

status_t iperf_run_server(u16 port, struct iperf_report *report)
{
    struct tcp_pcb *listener;
    status_t status = net_listen(port, IPERF_MAX_STREAMS + 1, &listener);

    if (status != OK)
        return status;
    memset(&test, 0, sizeof(test));
    test.server = true;
    expect(STEP_COOKIE, COOKIE_SIZE);
    tcp_accept(listener, on_accepted);
    status = drive_server();
    tcp_close(listener);
    fill_report(report);
    close_all();
    return status;
}
