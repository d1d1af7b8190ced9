/* SOURCES: drivervm/drivers/virtio/transport.c drivervm/drivers/virtio/virtq.c drivervm/drivers/virtio_net/virtio_net.c
   drivervm/drivers/virtio_net/frame.c drivervm/runtime/net.c drivervm/runtime/net_parse.c drivervm/runtime/ring.c
   drivervm/runtime/service.c */
/* The virtio_net driver, with the network class above it, on a model of the device. */
#include "tests/unit/drivervm_virtio_model.h"

#include "drivervm/drivers/virtio_net/virtio_net.h"

#define ALL_FEATURES                                                                                                   \
    (VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MAC |    \
     VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX)
#define GUEST_FEATURES                                                                                                 \
    (VIRTIO_F_VERSION_1 | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_HOST_TSO4 |                       \
     VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_CTRL_VQ)
#define GUEST_QUEUES 3u
#define FRAME_ROOM 70000u

static const u8 own_address[NET_ADDRESS] = {0x52, 0x54, 0, 1, 2, 3};
static struct random net_random;

/* ---- the device ---- */

static struct {
    struct model_chain chain; /* the last one that was taken */
    struct virtio_net_hdr header;
    u8 sent[FRAME_ROOM]; /* the last frame, behind its header */
    u32 sent_bytes, sent_frames;
    u8 promiscuous, all_multicast, tables[CONTROL_MOST];
    u32 commands;
    bool deaf;     /* answers no command */
    bool stubborn; /* refuses tables */
} model;

static struct virtio_net_config *config_of(void)
{
    return (struct virtio_net_config *)virtio.config;
}

static u8 run_command(const struct model_chain *chain)
{
    u8 command[CONTROL_MOST] = {0};
    u64 bytes = model_bytes(chain, false);

    assert_true(bytes <= sizeof(command));
    model_copy(chain, false, 0, command, bytes);
    model.commands++;
    if (command[0] == VIRTIO_NET_CTRL_MAC) {
        u32 unicasts, multicasts;
        assert_int_equal(command[1], VIRTIO_NET_CTRL_MAC_TABLE_SET);
        memcpy(&unicasts, command + 2, 4);
        memcpy(&multicasts, command + 6 + unicasts * 6, 4);
        assert_int_equal(bytes, 2 + 4 + unicasts * 6 + 4 + multicasts * 6); /* 5.1.6.5.2 */
        memcpy(model.tables, command, sizeof(command));
        return model.stubborn ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
    }
    assert_int_equal(command[0], VIRTIO_NET_CTRL_RX);
    assert_int_equal(bytes, 3);
    assert_true(command[2] <= 1);
    *(command[1] == VIRTIO_NET_CTRL_RX_PROMISC ? &model.promiscuous : &model.all_multicast) = command[2];
    return VIRTIO_NET_OK;
}

static void device_kick(u32 index)
{
    if (index != VIRTIO_NET_QUEUE_CTRL || model.deaf)
        return;
    while (model_take(&virtio.queue[index], &model.chain)) {
        u8 answer = run_command(&model.chain);
        assert_int_equal(model_bytes(&model.chain, true), 1);
        model_copy(&model.chain, true, 0, &answer, 1);
        model_give(&virtio.queue[index], model.chain.head, 1);
    }
}

/* Send one frame; false: there is none. */
static bool device_send(void)
{
    struct model_queue *q = &virtio.queue[VIRTIO_NET_QUEUE_TX];

    if (!model_take(q, &model.chain))
        return false;
    u64 bytes = model_bytes(&model.chain, false) - sizeof(model.header);
    assert_true(bytes <= FRAME_ROOM && model.chain.readable == model.chain.count);
    model_copy(&model.chain, false, 0, &model.header, sizeof(model.header));
    model_copy(&model.chain, false, sizeof(model.header), model.sent, bytes);
    model.sent_bytes = (u32)bytes;
    model.sent_frames++;
    model_give(q, model.chain.head, 0);
    return true;
}

/* A frame comes in. False: there is no buffer. */
static bool device_receive(const struct virtio_net_hdr *header, const void *frame, u32 bytes, u32 claimed)
{
    struct model_queue *q = &virtio.queue[VIRTIO_NET_QUEUE_RX];

    if (!model_take(q, &model.chain))
        return false;
    assert_int_equal(model.chain.readable, 0);
    assert_true(model_bytes(&model.chain, true) >= 1526); /* 5.1.6.3.1 */
    model_copy(&model.chain, true, 0, (void *)header, sizeof(*header));
    model_copy(&model.chain, true, sizeof(*header), (void *)frame, bytes);
    model_give(q, model.chain.head, claimed);
    return true;
}

/* ---- the guest ---- */

static struct {
    struct {
        struct ring_request_page page;
        union ring_cell cells[RING_CELLS];
    } * request;
    struct ring_completion_page *completion;
    u32 seen;
} guest[GUEST_QUEUES];
static struct driver_offer offer;
static u8 rx_memory[RING_TAGS][2048];
static u8 tx_memory[RING_TAGS][FRAME_ROOM];

static void put(u32 queue, u16 tag, const struct ring_segment_cell *segment, u16 segments, u32 readable)
{
    u32 at = guest[queue].request->page.produced;
    union ring_cell *cells = guest[queue].request->cells;

    cells[at++ % RING_CELLS].header = (struct ring_header_cell){.tag = tag, .segments = segments, .readable = readable};
    for (u32 i = 0; i < segments; i++) {
        cells[at % RING_CELLS].segment = segment[i];
        cells[at++ % RING_CELLS].segment.flags = i < readable ? 0 : RING_SEGMENT_WRITABLE;
    }
    guest[queue].request->page.produced = at;
}

/* As the loop does it: the device is looked at when it has sent an interrupt, and again as long as that found
 * something. */
static void run(void)
{
    struct ring_header_cell header;

    for (u32 rounds = 0;; rounds++) {
        assert_true(rounds < 1000);
        for (u32 q = 0; q < GUEST_QUEUES; q++) {
            while (ring_peek(&driver_rings[q], &header) == OK)
                driver.request(&driver_rings[q], &header);
            ring_release(&driver_rings[q]);
        }
        bool news = virtio.news || !info.interrupts;
        virtio.news = false;
        if (news)
            driver.poll();
        driver.pump();
        if (driver.timeout() != 0 && !virtio.news)
            return;
        if (!info.interrupts && rounds > 3)
            return;
    }
}

/* The next answer on this queue; fails when there is none. */
static struct ring_completion answer(u32 queue)
{
    assert_int_not_equal(guest[queue].completion->produced, guest[queue].seen);
    return guest[queue].completion->entry[guest[queue].seen++ % RING_COMPLETIONS];
}

static bool answered(u32 queue)
{
    return guest[queue].completion->produced != guest[queue].seen;
}

static void give_buffers(u16 first, u16 count, u32 bytes)
{
    for (u16 tag = first; tag < first + count; tag++) {
        struct ring_segment_cell segment = {.address = (u64)rx_memory[tag], .length = bytes};
        put(VIRTIO_NET_QUEUE_RX, tag, &segment, 1, 0);
    }
}

static void guest_command(const void *command, u32 bytes)
{
    static u8 ack;
    struct ring_segment_cell segment[] = {{.address = (u64)command, .length = bytes},
                                          {.address = (u64)&ack, .length = 1}};

    ack = 0xcc;
    put(VIRTIO_NET_QUEUE_CTRL, 0, segment, 2, 1);
    run();
    assert_int_equal(answer(VIRTIO_NET_QUEUE_CTRL).length, 1);
    assert_int_equal(ack, VIRTIO_NET_OK);
}

static void power_on(u64 features)
{
    model_power_on(VIRTIO_ID_NET, features, 3);
    memset(&model, 0, sizeof(model));
    memcpy(config_of()->mac, own_address, NET_ADDRESS);
    config_of()->status = VIRTIO_NET_S_LINK_UP;
    model.promiscuous = 1; /* as devices begin */
    now_us += 1000000;
}

static i64 net_hypercall(enum hypercall call, u64 a, u64 b, u64 c)
{
    if (call != HYPERCALL_CONFIG)
        return model_hypercall(call, a, b, c);
    assert_true(b <= sizeof(offer.config));
    memcpy(offer.config, (void *)a, b);
    return 0;
}

static void begin(void)
{
    more_hypercalls = net_hypercall;
    assert_int_equal(driver.start(&offer), OK);
    events.features = GUEST_FEATURES;
}

static int setup(void **state)
{
    net_random = random_start("virtio-net");
    for (u32 q = 0; q < GUEST_QUEUES; q++) {
        guest[q].request = calloc(1, sizeof(*guest[q].request));
        guest[q].completion = calloc(1, sizeof(*guest[q].completion));
        guest[q].seen = 0;
        assert_non_null(guest[q].request);
        assert_non_null(guest[q].completion);
        ring_init(&driver_rings[q], guest[q].request, guest[q].completion);
    }
    events.features = 0;
    power_on(ALL_FEATURES);
    return 0;
}

/* The guest resets its device: what the driver holds comes back, and the next test begins with nothing out. */
static int teardown(void **state)
{
    events.features = 0;
    virtio.status = virtio.status ? 15 : 0;
    model.deaf = false;
    run();
    for (u32 q = 0; q < GUEST_QUEUES; q++) {
        free(guest[q].request);
        free(guest[q].completion);
    }
    return 0;
}

/* ---- bring-up ---- */

static void a_card_is_found_and_offered(void **state)
{
    begin();
    assert_memory_equal(offer.config, own_address, NET_ADDRESS);
    assert_int_equal(offer.features & (VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_GUEST_CSUM),
                     VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_GUEST_CSUM);
    assert_int_equal(virtio.accepted, ALL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM);
    assert_int_equal(virtio.status, 15);
    assert_int_equal(model.promiscuous, 0);
    assert_int_equal(model.all_multicast, 1); /* no table yet */
    assert_int_equal(virtio.queue[VIRTIO_NET_QUEUE_RX].vector, 0);
    assert_int_equal(virtio.queue[VIRTIO_NET_QUEUE_TX].vector, VIRTIO_MSI_NO_VECTOR);
}

static void what_the_device_lacks_is_not_offered(void **state)
{
    power_on(VIRTIO_NET_F_MAC | VIRTIO_F_INDIRECT_DESC);
    begin();
    assert_int_equal(offer.features & (VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_GUEST_CSUM), 0);
    assert_int_equal(model.commands, 0);
    power_on(VIRTIO_NET_F_MAC | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_CTRL_RX | VIRTIO_F_INDIRECT_DESC);
    begin(); /* 5.1.3.1: features without what they need */
    assert_int_equal(virtio.accepted & (VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_CTRL_RX), 0);
    assert_int_equal(offer.features & VIRTIO_NET_F_HOST_TSO4, 0);
}

static void devices_that_we_refuse(void **state)
{
    power_on(ALL_FEATURES & ~VIRTIO_NET_F_MAC);
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.offered &= ~VIRTIO_F_ACCESS_PLATFORM;
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    memset(config_of()->mac, 0, NET_ADDRESS);
    assert_int_equal(driver.start(&offer), ERR_FORMAT);
    power_on(ALL_FEATURES);
    virtio.queue[VIRTIO_NET_QUEUE_RX].most = 64; /* the class has 128 buffers */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queue[VIRTIO_NET_QUEUE_TX].most = 128; /* no room for 130 segments */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES & ~VIRTIO_F_INDIRECT_DESC);
    virtio.queue[VIRTIO_NET_QUEUE_RX].most = 128;
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queues = 2; /* and yet CTRL_VQ */
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queue[VIRTIO_NET_QUEUE_RX].most = 128; /* indirect then */
    begin();
}

/* ---- frames ---- */

/* A frame of random bytes behind `header`, cut into at most `most` segments anywhere. */
static void put_frame(u16 tag, const struct virtio_net_hdr *header, u32 bytes, u32 most)
{
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
    u32 total = bytes + (u32)sizeof(*header), at = 0, count = 0;

    assert_true(total <= FRAME_ROOM);
    memcpy(tx_memory[tag], header, sizeof(*header));
    while (at < total) {
        u32 part = ++count == most ? total - at : 1 + (u32)random_below(&net_random, total - at);
        segment[count - 1] = (struct ring_segment_cell){.address = (u64)tx_memory[tag] + at, .length = part};
        at += part;
    }
    put(VIRTIO_NET_QUEUE_TX, tag, segment, (u16)count, count);
}

static void check_sent(u16 tag, u32 bytes)
{
    assert_int_equal(model.sent_bytes, bytes);
    assert_memory_equal(model.sent, tx_memory[tag] + sizeof(struct virtio_net_hdr), bytes);
}

static void frames_go_out(u32 rounds)
{
    struct virtio_net_hdr plain = {0};
    u32 bytes[RING_TAGS], interrupts = virtio.interrupts;

    for (u32 round = 0; round < rounds; round++) {
        u16 count = (u16)(1 + random_below(&net_random, RING_TAGS)), sent = 0;
        for (u16 tag = 0; tag < count; tag++) {
            bytes[tag] = (u32)random_between(&net_random, NET_FRAME_LEAST, NET_SEND_MOST);
            random_fill(&net_random, tx_memory[tag], bytes[tag] + sizeof(plain));
            put_frame(tag, &plain, bytes[tag], 1 + (u32)random_below(&net_random, 9));
        }
        run();
        for (; sent < count; sent++) {
            while (!device_send()) { /* a full queue takes the others when these are done */
                now_us += 1000;      /* for sent frames nobody is waked */
                run();
            }
            assert_int_equal(model.header.flags | model.header.gso_type, 0);
            check_sent(sent, bytes[sent]);
        }
        run();
        for (u16 tag = 0; tag < count; tag++)
            assert_int_equal(answer(VIRTIO_NET_QUEUE_TX).tag, tag);
        assert_false(answered(VIRTIO_NET_QUEUE_TX));
    }
    assert_int_equal(virtio.interrupts, interrupts);
}

static void frames_are_sent(void **state)
{
    begin();
    frames_go_out(20);
    power_on(ALL_FEATURES & ~VIRTIO_F_INDIRECT_DESC);
    begin();
    frames_go_out(20);
    power_on(ALL_FEATURES & ~VIRTIO_F_EVENT_IDX);
    begin();
    frames_go_out(20);
}

static void checksums_are_the_devices(void **state)
{
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};

    begin();
    random_fill(&net_random, tx_memory[0], 1000);
    put_frame(0, &header, 900, 4);
    run();
    assert_true(device_send());
    assert_memory_equal(&model.header, &header, sizeof(header));
    check_sent(0, 900);
}

/* Of a segment to be cut the headers are sent from the copy that was checked. */
static void segments_are_cut_by_the_device(void **state)
{
    static const u8 headers[] = {[12] = 8,    [14] = 0x45, [16] = 0xea, [23] = 6,    [34] = 0x12,
                                 [46] = 0x50, [47] = 0x10, [50] = 0x33, [51] = 0x44, [53] = 0};
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                    .gso_size = 1448,
                                    .csum_start = 34,
                                    .csum_offset = 16};
    u32 bytes = 60000;

    begin();
    random_fill(&net_random, tx_memory[0], bytes + sizeof(header));
    memcpy(tx_memory[0] + sizeof(header), headers, sizeof(headers));
    put_frame(0, &header, bytes, RING_MAX_SEGMENTS);
    run();
    tx_memory[0][sizeof(header) + 30] ^= 0xff; /* too late */
    assert_true(device_send());
    tx_memory[0][sizeof(header) + 30] ^= 0xff;
    check_sent(0, bytes);
    assert_int_equal(model.header.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(model.header.gso_size, 1448);
    assert_int_equal(model.header.hdr_len, sizeof(headers));
    assert_int_equal(model.header.csum_start, 34);
    assert_int_equal(model.header.csum_offset, 16);
    assert_true(model.chain.part[0].len == sizeof(header) + sizeof(headers));
}

static void check_received(u16 tag, const u8 *frame, u32 bytes, u8 flags)
{
    const struct virtio_net_hdr *header = (const struct virtio_net_hdr *)rx_memory[tag];
    struct ring_completion done = answer(VIRTIO_NET_QUEUE_RX);

    assert_int_equal(done.tag, tag);
    assert_int_equal(done.length, bytes + sizeof(*header));
    assert_int_equal(header->flags, flags);
    assert_int_equal(header->num_buffers, 1);
    assert_memory_equal(header + 1, frame, bytes);
}

static void frames_come_in(u32 rounds)
{
    static u8 frame[RING_TAGS][NET_FRAME_MOST];
    struct virtio_net_hdr header = {.num_buffers = 1};
    u32 bytes[RING_TAGS];

    for (u32 round = 0; round < rounds; round++) {
        u16 count = (u16)(1 + random_below(&net_random, RING_TAGS));
        give_buffers(0, count, 1600);
        run();
        bool asleep = true;
        for (u16 n = 0; n < count; n++) {
            bytes[n] = (u32)random_between(&net_random, NET_FRAME_LEAST, NET_FRAME_MOST);
            random_fill(&net_random, frame[n], bytes[n]);
            header.flags = n & 1 ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
            assert_true(device_receive(&header, frame[n], bytes[n], bytes[n] + sizeof(header)));
            if (asleep && info.interrupts)
                assert_true(virtio.news); /* nothing else would wake the driver */
            asleep = random_below(&net_random, 4) == 0;
            if (asleep)
                run();
        }
        assert_false(device_receive(&header, frame[0], 60, 72));
        run();
        for (u16 n = 0; n < count; n++)
            check_received(n, frame[n], bytes[n],
                           n & 1 && (virtio.accepted & VIRTIO_NET_F_GUEST_CSUM) ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
        assert_false(answered(VIRTIO_NET_QUEUE_RX));
    }
}

static void frames_are_received(void **state)
{
    begin();
    frames_come_in(20);
    assert_true(virtio.interrupts > 0);
    power_on(ALL_FEATURES & ~VIRTIO_F_EVENT_IDX & ~VIRTIO_NET_F_GUEST_CSUM);
    begin();
    frames_come_in(20);
    power_on(ALL_FEATURES);
    virtio.queue[VIRTIO_NET_QUEUE_RX].most = 128;
    begin();
    frames_come_in(20);
    assert_true(model.chain.head < 128);
    power_on(ALL_FEATURES);
    use_line();
    begin();
    frames_come_in(5);
    assert_true(virtio.isr_reads > 0);
    power_on(ALL_FEATURES);
    info.interrupts = 0;
    begin();
    frames_come_in(5);
    assert_int_equal(virtio.interrupts, 0);
}

/* The guest's own memory is what the device writes to: the buffer behind VirtIO's header. */
static void buffers_are_the_guests_memory(void **state)
{
    struct virtio_net_hdr header = {0};

    begin();
    give_buffers(0, 1, 2048);
    run();
    assert_true(device_receive(&header, own_address, 6, 100));
    assert_int_equal(model.chain.part[model.chain.count - 1].addr, (u64)rx_memory[0] + sizeof(header));
}

static void expect_no_delivery(u64 not_accepted)
{
    u8 frame[NET_FRAME_MOST] = {1};
    struct virtio_net_hdr plain = {0}, joined = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 100};
    struct virtio_net_hdr outside = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 1000, .csum_offset = 6};
    struct virtio_net_hdr wrapped = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14, .csum_offset = 0xffff};
    struct virtio_net_hdr at_end = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14, .csum_offset = 585};

    begin();
    events.features &= ~not_accepted;
    give_buffers(0, 1, 1600);
    run();
    const struct virtio_net_hdr *headers[] = {&joined, &outside, &wrapped, &at_end};
    for (u32 i = 0; i < ARRAY_SIZE(headers); i++) {
        assert_true(device_receive(headers[i], frame, 600, 612));
        run();
        assert_false(answered(VIRTIO_NET_QUEUE_RX));
    }
    static const u32 lengths[] = {0, 5, 12, 12 + 13, 12 + 1523, 4096, ~0u};
    for (u32 i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_true(device_receive(&plain, frame, 600, lengths[i]));
        run();
        assert_false(answered(VIRTIO_NET_QUEUE_RX));
    }
    struct virtio_net_hdr beyond = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 2048, .csum_offset = 16};
    memset(rx_memory[1], 0x5a, sizeof(rx_memory[1]));
    assert_true(device_receive(&beyond, frame, 600, 4000)); /* where another's buffer may be */
    run();
    assert_false(answered(VIRTIO_NET_QUEUE_RX));
    for (u32 i = 0; i < sizeof(rx_memory[1]); i++)
        assert_int_equal(rx_memory[1][i], 0x5a);
    assert_true(device_receive(&plain, frame, 600, 612)); /* the same buffer each time */
    run();
    check_received(0, frame, 600, 0);
}

static void frames_that_are_not_delivered(void **state)
{
    expect_no_delivery(0);
    power_on(ALL_FEATURES);
    expect_no_delivery(VIRTIO_NET_F_GUEST_CSUM);
}

static u32 sum_of(const u8 *bytes, u32 count)
{
    u64 sum = 0;

    for (u32 i = 0; i < count; i++)
        sum += (u64)bytes[i] << (i % 2 ? 0 : 8);
    return (u32)(sum % 0xffff);
}

/* RFC 1071: with its checksum in place, what is summed up gives 0 (mod 0xffff); only the two bytes change. */
static void checksums_are_completed(void **state)
{
    u8 frame[NET_FRAME_MOST], before[NET_FRAME_MOST];

    for (u32 round = 0; round < 2000; round++) {
        u32 bytes = (u32)random_between(&net_random, 40, sizeof(frame));
        u32 start = (u32)random_below(&net_random, bytes - 2) & ~1u;
        u32 offset = (u32)random_below(&net_random, bytes - start - 1) & ~1u;
        random_fill(&net_random, frame, bytes);
        memcpy(before, frame, bytes);
        u32 pseudo = (u32)frame[start + offset] << 8 | frame[start + offset + 1];
        struct net_check check = {NET_CHECK_PARTIAL, (u16)start, (u16)offset};
        assert_true(net_complete_checksum(frame, bytes, check));
        assert_int_equal((sum_of(frame + start, bytes - start) + pseudo) % 0xffff, 0);
        assert_true(frame[start + offset] || frame[start + offset + 1]);
        memcpy(before + start + offset, frame + start + offset, 2);
        assert_memory_equal(frame, before, bytes);
    }
    memset(frame, 0, sizeof(frame));
    frame[20] = frame[21] = 0xff; /* sums up to zero, which for UDP would mean that there is none (RFC 768) */
    assert_true(net_complete_checksum(frame, 60, (struct net_check){NET_CHECK_PARTIAL, 14, 6}));
    assert_int_equal(frame[20] << 8 | frame[21], 0xffff);
}

/* A guest that can completes them itself; for others the frame is changed in place. */
static void partial_checksums(void **state)
{
    u8 frame[601];
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    const struct virtio_net_hdr *told = (const struct virtio_net_hdr *)rx_memory[0];

    begin();
    give_buffers(0, 1, 1600);
    run();
    random_fill(&net_random, frame, sizeof(frame));
    assert_true(device_receive(&header, frame, sizeof(frame), sizeof(frame) + sizeof(header)));
    run();
    assert_int_equal(told->csum_start, 34);
    assert_int_equal(told->csum_offset, 16);
    check_received(0, frame, sizeof(frame), VIRTIO_NET_HDR_F_NEEDS_CSUM);
    events.features &= ~VIRTIO_NET_F_GUEST_CSUM;
    give_buffers(0, 1, 1600);
    run();
    assert_true(device_receive(&header, frame, sizeof(frame), sizeof(frame) + sizeof(header)));
    run();
    assert_true(net_complete_checksum(frame, sizeof(frame), (struct net_check){NET_CHECK_PARTIAL, 34, 16}));
    check_received(0, frame, sizeof(frame), 0);
}

/* ---- filter, link, life ---- */

static void the_filter_is_the_guests(void **state)
{
    static const u8 promiscuous[] = {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1};
    static const u8 tables[] = {
        VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 9};

    begin();
    guest_command(promiscuous, sizeof(promiscuous));
    assert_int_equal(model.promiscuous, 1);
    guest_command(tables, sizeof(tables));
    assert_memory_equal(model.tables, tables, sizeof(tables));
    assert_int_equal(model.all_multicast, 0);
    power_on(ALL_FEATURES);
    info.stash_length = sizeof(struct net_filter); /* a successor takes over */
    begin();
    assert_int_equal(model.promiscuous, 1);
    assert_memory_equal(model.tables, tables, sizeof(tables));
    events.features = 0; /* and a new guest does not */
    give_buffers(0, 1, 1600);
    run();
    assert_int_equal(model.promiscuous, 0);
    assert_int_equal(model.all_multicast, 1);
}

static void a_device_that_refuses_tables_is_opened(void **state)
{
    model.stubborn = true;
    begin();
    assert_int_equal(model.promiscuous, 1);
}

static void the_link_is_followed(void **state)
{
    begin();
    config_of()->status = 0;
    virtio.news = true;
    run();
    assert_int_equal(((struct virtio_net_config *)offer.config)->status, 0);
    config_of()->status = VIRTIO_NET_S_LINK_UP;
    virtio.news = true;
    run();
    assert_int_equal(((struct virtio_net_config *)offer.config)->status, VIRTIO_NET_S_LINK_UP);
}

static void a_guests_reset_gives_all_back(void **state)
{
    struct virtio_net_hdr plain = {0};

    begin();
    give_buffers(0, 20, 1600);
    put_frame(3, &plain, 100, 3);
    run();
    u32 resets = virtio.resets;
    events.features = 0;
    run();
    assert_int_equal(virtio.resets, resets + 1);
    for (u32 n = 0; n < 20; n++)
        assert_int_equal(answer(VIRTIO_NET_QUEUE_RX).length, 0);
    assert_int_equal(answer(VIRTIO_NET_QUEUE_TX).tag, 3);
    assert_false(device_receive(&plain, own_address, 6, 100));
    assert_false(device_send());
    events.features = GUEST_FEATURES;
    frames_come_in(3);
    frames_go_out(3);
}

/* ---- a hostile device ---- */

static void use_what_is_not_out(void)
{
    model_give(&virtio.queue[VIRTIO_NET_QUEUE_TX], 77, 0);
    run();
}

static void receive_twice(void)
{
    struct virtio_net_hdr plain = {0};

    give_buffers(0, 2, 1600);
    run();
    device_receive(&plain, own_address, 6, 100);
    model_give(&virtio.queue[VIRTIO_NET_QUEUE_RX], model.chain.head, 100);
    run();
}

static void jump_ahead(void)
{
    give_buffers(0, 2, 1600);
    run();
    used_of(&virtio.queue[VIRTIO_NET_QUEUE_RX])->idx += 3;
    run();
}

static void need_a_reset(void)
{
    virtio.status |= VIRTIO_STATUS_NEEDS_RESET;
    virtio.news = true;
    run();
}

static void answer_no_command(void)
{
    static const u8 promiscuous[] = {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1};

    model.deaf = true;
    guest_command(promiscuous, sizeof(promiscuous));
}

static void work_well(void)
{
    frames_come_in(1);
    frames_go_out(1);
}

static void broken_devices_end_in_a_fault(void **state)
{
    begin();
    assert_int_equal(fault_of(work_well), 0);
    assert_int_equal(fault_of(use_what_is_not_out), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(receive_twice), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(jump_ahead), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(need_a_reset), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(answer_no_command), DRIVER_FAULT_DEVICE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_card_is_found_and_offered),
        TEST(what_the_device_lacks_is_not_offered),
        TEST(devices_that_we_refuse),
        TEST(frames_are_sent),
        TEST(checksums_are_the_devices),
        TEST(segments_are_cut_by_the_device),
        TEST(frames_are_received),
        TEST(buffers_are_the_guests_memory),
        TEST(frames_that_are_not_delivered),
        TEST(checksums_are_completed),
        TEST(partial_checksums),
        TEST(the_filter_is_the_guests),
        TEST(a_device_that_refuses_tables_is_opened),
        TEST(the_link_is_followed),
        TEST(a_guests_reset_gives_all_back),
        TEST(broken_devices_end_in_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
