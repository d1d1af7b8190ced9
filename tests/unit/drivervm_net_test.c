/* SOURCES: drivervm/drivers/e1000/e1000.c drivervm/drivers/e1000/offload.c drivervm/drivers/e1000/ring.c
   drivervm/runtime/net.c drivervm/runtime/net_parse.c drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The network class, above the e1000 driver and its model: what is received, control commands, link, the guest's reset.
 */
#include "tests/unit/drivervm_e1000_model.h"

static struct ring_segment_cell rx_segment[RING_TAGS][4];

/* ---- receive ---- */

static void put_buffer(u16 tag, u32 first, u32 second, u32 third)
{
    const u32 lengths[] = {first, second, third};
    u32 at = 0, count = 0;

    for (u32 i = 0; i < ARRAY_SIZE(lengths); i++) {
        if (lengths[i] == 0)
            continue;
        rx_segment[tag][count++] =
            (struct ring_segment_cell){.address = (u64)place[RX][tag] + at, .length = lengths[i]};
        at += lengths[i] + 16; /* what lies between belongs to nobody */
    }
    memset(place[RX][tag], 0xee, at);
    put_request(RX, tag, rx_segment[tag], 0, count);
    rx_segment[tag][count].length = 0;
}

/* Take one frame out of the answers; its header is checked. Returns its bytes; *buffers: how many it came in. */
static u32 take_frame(u8 *out, u32 *buffers, struct virtio_net_hdr *header)
{
    struct ring_completion answer;
    u32 bytes = 0, wanted = 1;

    for (*buffers = 0; *buffers < wanted; ++*buffers) {
        assert_true(next_answer(RX, &answer));
        u32 count = 0;
        while (rx_segment[answer.tag][count].length)
            count++;
        assert_int_equal(net_read(rx_segment[answer.tag], count, 0, out + bytes, answer.length), answer.length);
        bytes += answer.length;
        if (*buffers == 0) {
            assert_true(answer.length >= HEADER);
            memcpy(header, out, HEADER);
            wanted = header->num_buffers;
        }
    }
    memmove(out, out + HEADER, bytes - HEADER);
    return bytes - (u32)HEADER;
}

static void expect_frame(const u8 *data, u32 bytes, u32 buffers_expected)
{
    static u8 got[PLACE_BYTES];
    struct virtio_net_hdr header;
    u32 buffers;

    assert_int_equal(take_frame(got, &buffers, &header), bytes);
    assert_memory_equal(got, data, bytes);
    if (buffers_expected)
        assert_int_equal(buffers, buffers_expected);
    assert_int_equal(header.gso_type, VIRTIO_NET_HDR_GSO_NONE);
}

static bool is_guest_memory(u64 address)
{
    return address >= (u64)place && address < (u64)place + sizeof(place);
}

static void frames_land_in_the_guests_buffers(void **state)
{
    u8 frame[1518];
    struct ring_completion none;

    started();
    put_buffer(0, 2048, 0, 0);
    put_buffer(1, 12, 1536, 0);
    put_buffer(2, 6, 8, 1600);   /* the frame begins in the second segment, which is short */
    put_buffer(3, 1530, 0, 0);   /* a few bytes short of what a device may write */
    put_buffer(4, 14, 700, 900); /* enough, but not in one piece */
    loop();
    const struct e1000_rx *ring = (struct e1000_rx *)((u64)REG(E1000_RDBAH) << 32 | REG(E1000_RDBAL));
    assert_int_equal(REG(E1000_RDT), 4); /* 3 and 4 are one buffer */
    assert_int_equal(ring[0].address, (u64)place[RX][0] + HEADER);
    assert_int_equal(ring[1].address, rx_segment[1][1].address);
    assert_false(is_guest_memory(ring[2].address) || is_guest_memory(ring[3].address));
    for (u32 i = 0; i < 4; i++) {
        u32 bytes = i == 3 ? 1518 : (u32)random_between(&random_numbers, 60, 1518);
        random_fill(&random_numbers, frame, bytes);
        assert_true(nic_frame(frame, bytes));
        loop();
        expect_frame(frame, bytes, 1);
    }
    assert_int_equal(REG(E1000_RDT), 5); /* request 4 was not needed for that frame, and serves the next one */
    assert_true(nic_frame(frame, 1000));
    loop();
    expect_frame(frame, 1000, 1);
    assert_false(nic_frame(frame, 60));
    assert_false(next_answer(RX, &none));
}

static void checked_frames_are_said_to_be(void **state)
{
    static const struct {
        u8 status, errors;
        bool valid, delivered;
    } cases[] = {{RX_TCP_CHECKED, 0, true, true},
                 {0, 0, false, true},
                 {RX_TCP_CHECKED, RX_TCP_WRONG, false, true},
                 {RX_TCP_CHECKED | RX_NOT_CHECKED, 0, false, true},
                 {RX_TCP_CHECKED, 0x01, false, false}};
    u8 frame[100] = {1, 2, 3}, got[2048];
    struct virtio_net_hdr header;
    u32 buffers;

    started();
    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        for (u32 wanted = 0; wanted < 2; wanted++) {
            accept_features(VIRTIO_NET_F_MRG_RXBUF | (wanted ? VIRTIO_NET_F_GUEST_CSUM : 0));
            if (i == 0 || cases[i - 1].delivered || wanted)
                put_buffer((u16)(2 * i + wanted), 2048, 0, 0);
            loop();
            nic_frame_as(frame, 100,
                         (struct e1000_rx){
                             .length = 100, .status = RX_DONE | RX_END | cases[i].status, .errors = cases[i].errors});
            loop();
            if (!cases[i].delivered)
                continue;
            take_frame(got, &buffers, &header);
            assert_int_equal(header.flags, cases[i].valid && wanted ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
        }
    }
}

/* Lengths and marks that cannot be. No answer comes of them, and the buffers serve the next frames. */
static void an_impossible_frame_is_dropped(void **state)
{
    static const struct e1000_rx bad[] = {{.length = 0xffff, .status = RX_DONE | RX_END},
                                          {.length = NET_FRAME_MOST + 1, .status = RX_DONE | RX_END},
                                          {.length = 13, .status = RX_DONE | RX_END},
                                          {.length = 0, .status = RX_DONE | RX_END},
                                          {.length = 2048, .status = RX_DONE},
                                          {.length = 100, .status = RX_DONE | RX_END}, /* its end */
                                          {.length = 100, .status = 0xff, .errors = 0xff}};
    struct ring_completion none;
    u8 frame[1000];

    started();
    for (u16 tag = 0; tag < 4; tag++)
        put_buffer(tag, 2048, 0, 0);
    for (u32 round = 0; round < 300; round++) { /* round and round the ring */
        for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
            loop();
            assert_true(nic_frame_as(frame, 0, bad[i]));
        }
        loop();
        assert_false(next_answer(RX, &none));
        random_fill(&random_numbers, frame, sizeof(frame));
        assert_true(nic_frame(frame, sizeof(frame)));
        loop();
        struct ring_completion answer = queues[RX].completion.entry[queues[RX].seen % RING_COMPLETIONS];
        expect_frame(frame, sizeof(frame), 1);
        put_buffer(answer.tag, 2048, 0, 0);
    }
}

static void small_buffers_are_merged(void **state)
{
    u8 frame[1518];
    bool busy[RING_TAGS] = {false};
    u32 outstanding = 0, merged = 0;

    started();
    for (u32 round = 0; round < 3000; round++) {
        for (u16 tag = 0; outstanding < 64; tag++) {
            if (busy[tag])
                continue;
            put_buffer(tag, (u32)random_between(&random_numbers, 64, 300),
                       random_one_in(&random_numbers, 2) ? (u32)random_between(&random_numbers, 64, 1700) : 0, 0);
            busy[tag] = true;
            outstanding++;
        }
        loop();
        u32 bytes = (u32)random_between(&random_numbers, 60, 1518), before = queues[RX].completion.produced;
        random_fill(&random_numbers, frame, bytes);
        assert_true(nic_frame(frame, bytes));
        loop();
        u32 used = queues[RX].completion.produced - before;
        for (u32 i = 0; i < used; i++)
            busy[queues[RX].completion.entry[(before + i) % RING_COMPLETIONS].tag] = false;
        expect_frame(frame, bytes, used);
        outstanding -= used;
        merged += used > 1;
    }
    assert_true(merged > 1000);
}

static void without_merging_a_frame_needs_one_buffer(void **state)
{
    u8 frame[600] = {7};
    struct ring_completion none;

    started();
    accept_features(0);
    put_buffer(0, 300, 0, 0);
    put_buffer(1, 700, 0, 0);
    loop();
    assert_int_equal(REG(E1000_RDT), 2);
    assert_true(nic_frame(frame, 600)); /* into the one that is too small: lost */
    loop();
    assert_false(next_answer(RX, &none));
    assert_true(nic_frame(frame, 600));
    loop();
    expect_frame(frame, 600, 1);
    assert_true(nic_frame(frame, 200));
    loop();
    expect_frame(frame, 200, 1);
}

static void a_flood_is_taken_to_its_end(void **state)
{
    u8 frame[200];

    started();
    for (u32 round = 0; round < 40; round++) {
        for (u16 tag = 0; tag < RING_TAGS; tag++)
            put_buffer(tag, 2048, 0, 0);
        loop();
        for (u32 i = 0; i < RING_TAGS; i++) {
            memset(frame, (int)i, sizeof(frame));
            assert_true(nic_frame(frame, sizeof(frame)));
        }
        assert_false(nic_frame(frame, sizeof(frame)));
        REG(E1000_ICR) = 0; /* there will be no other interrupt */
        put_frame(0, (struct virtio_net_hdr){0}, 100, 1);
        loop();
        assert_int_equal(answers(TX), 1);
        for (u32 i = 0; i < RING_TAGS; i++) {
            memset(frame, (int)i, sizeof(frame));
            expect_frame(frame, sizeof(frame), 1);
        }
    }
}

/* ---- control, link, life ---- */

static u8 control(const void *command, u32 bytes)
{
    static u8 answer;
    struct ring_completion done;
    struct ring_segment_cell segment[] = {{.address = (u64)command, .length = 1},
                                          {.address = (u64)command + 1, .length = bytes - 1},
                                          {.address = (u64)&answer, .length = 1}};

    answer = 0xcc;
    put_request(CTRL, 3, segment, 2, 1);
    loop();
    assert_true(next_answer(CTRL, &done));
    assert_int_equal(done.tag, 3);
    assert_int_equal(done.length, 1);
    return answer;
}

static u32 multicast_bits(void)
{
    u32 bits = 0;

    for (u32 i = 0; i < MULTICAST_WORDS; i++)
        bits += (u32)__builtin_popcount(REG(E1000_MTA + 4 * i));
    return bits;
}

static u32 wide(void)
{
    return REG(E1000_RCTL) & (RCTL_UPE | RCTL_MPE);
}

static u8 *table(u32 unicasts, u32 multicasts, u32 *bytes)
{
    static u8 command[2 + 4 + 100 * 6 + 4 + 100 * 6];
    u8 *at = command + 2;

    command[0] = VIRTIO_NET_CTRL_MAC;
    command[1] = VIRTIO_NET_CTRL_MAC_TABLE_SET;
    memcpy(at, &unicasts, 4);
    for (u32 i = 0; i < unicasts; i++)
        memcpy(at + 4 + 6 * i, (u8[]){0x02, 0, 0, 0, 0, (u8)i}, 6);
    at += 4 + 6 * unicasts;
    memcpy(at, &multicasts, 4);
    for (u32 i = 0; i < multicasts; i++)
        memcpy(at + 4 + 6 * i, (u8[]){0x01, 0, 0x5e, 0, (u8)(16 * i), (u8)i}, 6);
    *bytes = (u32)(at + 4 + 6 * multicasts - command);
    return command;
}

static void the_filter_is_the_guests(void **state)
{
    u32 bytes, length;
    u8 kept[DRIVER_STASH_SIZE];

    started();
    assert_int_equal(wide(), RCTL_MPE); /* no table yet */
    assert_int_equal(control("\0\0\1", 3), VIRTIO_NET_OK);
    assert_int_equal(wide(), RCTL_UPE | RCTL_MPE);
    assert_int_equal(control("\0\0\0", 3), VIRTIO_NET_OK);
    u8 *command = table(2, 3, &bytes);
    assert_int_equal(control(command, bytes), VIRTIO_NET_OK);
    assert_int_equal(wide(), 0);
    assert_int_equal(multicast_bits(), 3);
    u32 hash = filter_hash((u8[]){0x01, 0, 0x5e, 0, 0x10, 0x01});
    assert_int_equal(hash, 0x011); /* bits 47:36 of the address, its last byte being the highest */
    assert_true(REG(E1000_MTA + hash / 32 * 4) & 1u << hash % 32);
    assert_int_equal(REG(E1000_RAL + 16), 0x00000002);
    assert_int_equal(REG(E1000_RAL + 20), 0x0100 | RAH_VALID);
    assert_int_equal(REG(E1000_RAL + 28), 0);
    assert_int_equal(control("\0\1\1", 3), VIRTIO_NET_OK);
    assert_int_equal(wide(), RCTL_MPE);

    /* The successor knows it all. */
    memcpy(kept, stash, sizeof(kept));
    length = info.stash_length;
    forget();
    power_on(true);
    memcpy(stash, kept, sizeof(kept));
    info.stash_length = length;
    started();
    assert_int_equal(wide(), RCTL_MPE);
    assert_int_equal(multicast_bits(), 3);
    assert_int_equal(REG(E1000_RAL + 20), 0x0100 | RAH_VALID);
    assert_int_equal(control("\0\1\0", 3), VIRTIO_NET_OK);

    command = table(NET_UNICAST + 1, 1, &bytes); /* more than there is room for lets more in */
    assert_int_equal(control(command, bytes), VIRTIO_NET_OK);
    assert_int_equal(wide(), RCTL_UPE | RCTL_MPE);
    command = table(0, NET_MULTICAST + 1, &bytes);
    assert_int_equal(control(command, bytes), VIRTIO_NET_OK);
    assert_int_equal(wide(), RCTL_MPE);

    assert_int_equal(control(command, bytes - 1), VIRTIO_NET_ERR); /* cut short */
    assert_int_equal(control(command, 8), VIRTIO_NET_ERR);
    memset(command + 2, 0xff, 4);
    assert_int_equal(control(command, bytes), VIRTIO_NET_ERR);
    assert_int_equal(control("\0\2\1", 3), VIRTIO_NET_ERR);
    assert_int_equal(control("\4\0\1", 3), VIRTIO_NET_ERR);
    assert_int_equal(control("\0\0", 2), VIRTIO_NET_ERR);
    assert_int_equal(wide(), RCTL_MPE);
    forget(); /* the guest's reset ends it */
    assert_int_equal(wide(), RCTL_MPE);
    assert_int_equal(multicast_bits(), 0);
}

static void any_stash_is_survived(void **state)
{
    for (u32 round = 0; round < 200; round++) {
        power_on(round & 1);
        random_fill(&random_numbers, stash, sizeof(stash));
        info.stash_length = random_one_in(&random_numbers, 3) ? 7 : sizeof(struct net_filter);
        started();
        forget();
    }
}

static void the_link_is_followed(void **state)
{
    started();
    nic.no_link = true;
    REG(E1000_ICR) |= CAUSE_LSC;
    loop();
    assert_int_equal(configs_told, 1);
    assert_int_equal(told.status, 0);
    assert_memory_equal(told.mac, nic.eeprom, 6);
    loop();
    assert_int_equal(configs_told, 1);
    nic.no_link = false;
    REG(E1000_ICR) |= CAUSE_LSC;
    loop();
    assert_int_equal(configs_told, 2);
    assert_int_equal(told.status, VIRTIO_NET_S_LINK_UP);
}

static void a_reset_gives_everything_back(void **state)
{
    u8 frame[100] = {1};
    struct ring_completion answer;
    bool back[RING_TAGS] = {false};

    started();
    for (u32 round = 0; round < 3; round++) {
        nic.lazy = true;
        for (u16 tag = 0; tag < 40; tag++)
            put_buffer(tag, tag % 3 ? 2048 : 200, 0, 0);
        for (u16 tag = 0; tag < 100; tag++)
            put_frame(tag, (struct virtio_net_hdr){0}, 1000, 10); /* more than the ring takes */
        loop_once();
        u32 resets = nic.resets;
        events.features = 0;
        driver.pump();
        assert_int_equal(nic.resets, resets + 1);
        memset(back, 0, sizeof(back));
        for (u32 i = 0; i < 40; i++) {
            assert_true(next_answer(RX, &answer));
            assert_true(answer.length == 0 && !back[answer.tag]);
            back[answer.tag] = true;
        }
        assert_false(next_answer(RX, &answer));
        assert_int_equal(answers(TX), 100);
        assert_false(nic_frame(frame, 100)); /* the device has none of them any more */
        nic.sent_count = 0;
        nic_transmit(~0u);
        assert_int_equal(nic.sent_count, 0);
        driver.pump(); /* nothing is held: no reset */
        assert_int_equal(nic.resets, resets + 1);
        accept_features(offer.features);
    }
    nic.lazy = false;
    put_buffer(0, 2048, 0, 0);
    put_frame(0, (struct virtio_net_hdr){0}, 100, 1);
    loop();
    assert_int_equal(answers(TX), 1);
    assert_true(nic_frame(frame, 100));
    loop();
    expect_frame(frame, 100, 1);
}

static void without_interrupts_it_polls(void **state)
{
    u8 frame[100] = {1};

    info.interrupts = 0;
    assert_int_equal(driver.start(&offer), OK);
    accept_features(offer.features);
    assert_int_equal(REG(E1000_IMS), 0);
    put_buffer(0, 2048, 0, 0);
    loop_once();
    now_us += 1000;
    assert_in_range(driver.timeout(), 1, 1000);
    assert_true(nic_frame(frame, 100));
    loop_once();
    expect_frame(frame, 100, 1);
    assert_int_equal(driver.timeout(), 0); /* and asks again soon */
    nic.no_link = true;
    now_us += 200000;
    loop_once();
    assert_int_equal(configs_told, 1);
}

/* Awake it looks for itself; an interrupt is wanted by who has found nothing, and not for what was found. */
static void interrupts_are_for_sleepers(void **state)
{
    u8 frame[100] = {1};

    started();
    put_buffer(0, 2048, 0, 0);
    put_buffer(1, 2048, 0, 0);
    loop();
    assert_true(REG(E1000_IMS) & CAUSE_RXT0);
    nic.answer = frame;
    nic.answer_bytes = sizeof(frame);
    put_frame(0, (struct virtio_net_hdr){0}, 100, 1);
    loop();
    expect_frame(frame, sizeof(frame), 1);
    assert_true(REG(E1000_IMS) & CAUSE_RXT0);
    assert_false(REG(E1000_ICR) & CAUSE_RXT0);
}

/* The controller that does not come back after the guest's reset is a fault of the VM. */
static void dead_in_the_reset(void)
{
    nic.stuck_reset = true;
    events.features = 0;
    driver.pump();
}

static void faults(void **state)
{
    started();
    put_buffer(0, 2048, 0, 0);
    loop();
    assert_int_equal(fault_of(dead_in_the_reset), DRIVER_FAULT_DEVICE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(frames_land_in_the_guests_buffers),
        TEST(checked_frames_are_said_to_be),
        TEST(an_impossible_frame_is_dropped),
        TEST(small_buffers_are_merged),
        TEST(without_merging_a_frame_needs_one_buffer),
        TEST(a_flood_is_taken_to_its_end),
        TEST(the_filter_is_the_guests),
        TEST(any_stash_is_survived),
        TEST(the_link_is_followed),
        TEST(a_reset_gives_everything_back),
        TEST(without_interrupts_it_polls),
        TEST(interrupts_are_for_sleepers),
        TEST(faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
