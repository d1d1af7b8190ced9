/* SOURCES: drivervm/drivers/e1000/e1000.c drivervm/drivers/e1000/offload.c drivervm/drivers/e1000/ring.c
   drivervm/runtime/net.c drivervm/runtime/net_parse.c drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The e1000 driver on a model of the controller: bring-up, and what is sent. The rest is in drivervm_net_test.c. */
#include "tests/unit/drivervm_e1000_model.h"

#define ALL_HEADERS 54u /* Ethernet, IPv4, TCP without options */

/* ---- bring-up ---- */

static void bring_up(void **state)
{
    struct virtio_net_config config;

    for (u32 kind = 0; kind < 2; kind++) {
        power_on(kind);
        started();
        memcpy(&config, offer.config, sizeof(config));
        assert_memory_equal(config.mac, nic.eeprom, 6);
        assert_int_equal(config.status, VIRTIO_NET_S_LINK_UP);
        assert_int_equal(offer.queues, 3);
        assert_int_equal(offer.patient_queues, 1u << RX);
        assert_int_equal(offer.features, VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF |
                                             VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CSUM |
                                             VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_GUEST_CSUM);
        assert_int_equal(pci_command_register, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        assert_int_equal(REG(E1000_RAL), 0x12005452);
        assert_int_equal(REG(E1000_RAL + 4), 0x5634 | RAH_VALID);
        assert_int_equal(REG(E1000_CTRL) & (CTRL_SLU | CTRL_ASDE | CTRL_RST), CTRL_SLU | CTRL_ASDE);
        assert_int_equal(REG(E1000_IMS) & (CAUSE_RXT0 | CAUSE_LSC), CAUSE_RXT0 | CAUSE_LSC);
        assert_int_equal(REG(E1000_RDBAL) % 16, 0);
        forget();
    }
}

static void bring_up_errors(void **state)
{
    info.bar[0].kind = DRIVER_BAR_PORTS;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(false);
    info.bar[0].size = 0x4000;
    assert_int_equal(driver.start(&offer), ERR_NOT_FOUND);
    power_on(false);
    info.pci_device = 0x1000;
    assert_int_equal(driver.start(&offer), ERR_UNSUPPORTED);
    power_on(false);
    nic.deaf_eeprom = true;
    u64 before = now_us;
    assert_int_equal(driver.start(&offer), ERR_TIMEOUT);
    assert_true(now_us - before < 50000);
    power_on(false);
    nic.stuck_reset = true;
    assert_int_equal(driver.start(&offer), ERR_TIMEOUT);
    power_on(false);
    nic.eeprom[0] |= 1; /* a multicast address */
    assert_int_equal(driver.start(&offer), ERR_FORMAT);
    power_on(false);
    memset(nic.eeprom, 0, sizeof(nic.eeprom));
    assert_int_equal(driver.start(&offer), ERR_FORMAT);
}

/* ---- transmit ---- */

static void frames_go_out_in_order(void **state)
{
    started();
    nic.lazy = true;
    for (u32 round = 0; round < 30; round++) {
        u32 bytes[RING_TAGS], done = 0;
        for (u16 tag = 0; tag < RING_TAGS; tag++) {
            bytes[tag] = (u32)random_between(&random_numbers, NET_FRAME_LEAST, NET_SEND_MOST);
            random_fill(&random_numbers, frame_of(tag), bytes[tag]);
            put_frame(tag, (struct virtio_net_hdr){0}, bytes[tag], (u32)random_between(&random_numbers, 1, 14));
        }
        nic.sent_count = 0;
        for (u32 n = 0; done < RING_TAGS; n++) {
            assert_true(n < 10000);
            loop_once();
            nic_transmit((u32)random_below(&random_numbers, 100));
            done += answers(TX);
        }
        assert_int_equal(nic.sent_count, RING_TAGS);
        for (u32 i = 0; i < RING_TAGS; i++) {
            assert_int_equal(nic.sent[i].bytes, bytes[i]);
            assert_memory_equal(nic.sent[i].data, frame_of((u16)i), bytes[i]);
        }
    }
}

/* A TCP segment as a guest leaves it to the device: the checksum's field has the sum over the pseudo header. */
static void make_segment(u8 *frame, u32 bytes, u32 tag_bytes)
{
    u32 ip = 14 + tag_bytes, tcp = ip + 20;
    u8 pseudo[12] = {0};

    random_fill(&random_numbers, frame, bytes);
    if (tag_bytes)
        put16(frame + 12, 0x8100);
    put16(frame + ip - 2, 0x0800);
    frame[ip] = 0x45;
    put16(frame + ip + 2, bytes - ip);
    frame[ip + 9] = 6;
    frame[tcp + 12] = 5 << 4;
    frame[tcp + 13] = 0x18;
    memcpy(pseudo, frame + ip + 12, 8);
    pseudo[9] = 6;
    put16(pseudo + 10, bytes - tcp);
    put16(frame + tcp + 16, ones_sum(pseudo, sizeof(pseudo), 0));
}

static void check_tcp(const struct frame *frame, u32 ip)
{
    u32 tcp = ip + 20;
    u8 pseudo[12] = {0};

    memcpy(pseudo, frame->data + ip + 12, 8);
    pseudo[9] = 6;
    put16(pseudo + 10, frame->bytes - tcp);
    assert_int_equal(ones_sum(frame->data + tcp, frame->bytes - tcp, ones_sum(pseudo, 12, 0)), 0xffff);
}

static void checksums_are_completed(void **state)
{
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};

    started();
    for (u32 round = 0; round < 200; round++) {
        u32 bytes = (u32)random_between(&random_numbers, ALL_HEADERS, 1514);
        make_segment(frame_of(5), bytes, 0);
        put_frame(5, header, bytes, (u32)random_between(&random_numbers, 1, 8));
        nic.sent_count = 0;
        loop();
        assert_int_equal(answers(TX), 1);
        assert_int_equal(nic.sent_count, 1);
        check_tcp(&nic.sent[0], 14);
        assert_memory_equal(nic.sent[0].data + ALL_HEADERS, frame_of(5) + ALL_HEADERS, bytes - ALL_HEADERS);
    }
}

static void one_large_segment(u32 payload, u32 mss, u32 tag_bytes)
{
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                    .gso_size = (u16)mss,
                                    .csum_start = (u16)(34 + tag_bytes),
                                    .csum_offset = 16};
    u32 headers = ALL_HEADERS + tag_bytes, at = 0;

    mss = mss < NET_MSS_LEAST ? NET_MSS_LEAST : mss;
    make_segment(frame_of(9), headers + payload, tag_bytes);
    put_frame(9, header, headers + payload, (u32)random_between(&random_numbers, 1, 60));
    nic.sent_count = 0;
    loop();
    assert_int_equal(answers(TX), 1);
    assert_int_equal(nic.sent_count, (payload + mss - 1) / mss);
    for (u32 i = 0; i < nic.sent_count; i++) {
        const struct frame *frame = &nic.sent[i];
        u32 part = frame->bytes - headers;
        check_tcp(frame, 14 + tag_bytes);
        assert_int_equal(ones_sum(frame->data + 14 + tag_bytes, 20, 0), 0xffff);
        assert_int_equal(get16(frame->data + 16 + tag_bytes), frame->bytes - 14 - tag_bytes);
        assert_int_equal(get32(frame->data + 38 + tag_bytes), get32(frame_of(9) + 38 + tag_bytes) + at);
        assert_memory_equal(frame->data + headers, frame_of(9) + headers + at, part);
        at += part;
    }
    assert_int_equal(at, payload);
}

static void large_segments_are_cut(void **state)
{
    started();
    one_large_segment(65535 - 40, 1460, 0);
    one_large_segment(65535 - 40, NET_MSS_LEAST, 0);
    one_large_segment(1460 * 5, 1460, 0);
    one_large_segment(2, 1, 0); /* two writes of a byte each, merged */
    for (u32 round = 0; round < 200; round++)
        one_large_segment((u32)random_between(&random_numbers, 100, 30000),
                          (u32)random_between(&random_numbers, 1, 1460), random_one_in(&random_numbers, 2) ? 4 : 0);
}

/* Packets that are refused: each is answered, none is sent. */
static void what_makes_no_sense_is_dropped(void **state)
{
    const struct virtio_net_hdr good = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                        .gso_size = 1000,
                                        .csum_start = 34,
                                        .csum_offset = 16};
    struct virtio_net_hdr bad[12];
    u16 tag = 0;

    started();
    for (u32 i = 0; i < ARRAY_SIZE(bad); i++)
        bad[i] = good;
    bad[0].gso_size = 0;
    bad[1].gso_size = 1500;
    bad[2].gso_type = 4; /* TCP over IPv6 */
    bad[3].gso_type |= 0x80;
    bad[4].flags = 0;
    bad[5].csum_start = 38;
    bad[6].csum_offset = 6;
    bad[7].csum_start = 0xffff;
    bad[7].csum_offset = 0xffff;
    bad[8] = (struct virtio_net_hdr){.flags = 1, .csum_start = 13, .csum_offset = 2};
    bad[9] = (struct virtio_net_hdr){.flags = 1, .csum_start = 240, .csum_offset = 16};
    bad[10] = (struct virtio_net_hdr){.flags = 1, .csum_start = 100, .csum_offset = 0xff00};
    bad[11] = (struct virtio_net_hdr){0}; /* 3000 bytes, not to be cut */
    for (; tag < ARRAY_SIZE(bad); tag++) {
        u32 bytes = tag >= 8 && tag <= 10 ? 1000 : 3000; /* so that only one thing is wrong */
        make_segment(frame_of(tag), bytes, 0);
        put_frame(tag, bad[tag], bytes, 3);
    }
    put_frame(tag++, (struct virtio_net_hdr){0}, NET_FRAME_LEAST - 1, 1);
    put_frame(tag++, good, ALL_HEADERS, 1); /* nothing but headers */
    put_frame(tag, good, 3000, 2);
    frame_of(tag++)[14] = 0x46; /* IP's header is longer than the checksum's place says */
    make_segment(frame_of(tag), 3000, 0);
    put_frame(tag, good, 3000, 2);
    frame_of(tag++)[46] = 0x40; /* TCP's header is too short */
    make_segment(frame_of(tag), 60, 0);
    put_frame(tag, good, 60, 1);
    frame_of(tag++)[46] = 0xf0; /* and longer than the packet */
    struct ring_segment_cell writable = {.address = (u64)place[TX][tag], .length = 100};
    put_request(TX, tag++, &writable, 0, 1);
    struct ring_segment_cell huge[RING_MAX_SEGMENTS];
    for (u32 i = 0; i < RING_MAX_SEGMENTS; i++)
        huge[i] = (struct ring_segment_cell){.address = (u64)place[TX][0], .length = ~0u};
    put_request(TX, tag++, huge, RING_MAX_SEGMENTS, 0);
    loop();
    assert_int_equal(answers(TX), tag);
    assert_int_equal(nic.sent_count, 0);
}

/* Any header on frames that are nearly right: what goes out keeps the model's rules. */
static void any_header_is_survived(void **state)
{
    started();
    for (u32 round = 0; round < 20000; round++) {
        u32 bytes = (u32)random_between(&random_numbers, 1, 200) * (random_one_in(&random_numbers, 9) ? 30 : 1);
        struct virtio_net_hdr header = {
            .flags = (u8)random_below(&random_numbers, 4),
            .gso_type = (u8)random_below(&random_numbers, 2),
            .gso_size = (u16)random_bits(&random_numbers),
            .csum_start = random_one_in(&random_numbers, 3) ? (u16)random_bits(&random_numbers) : 34,
            .csum_offset = random_one_in(&random_numbers, 3) ? (u16)random_bits(&random_numbers) : 16};
        make_segment(frame_of(0), bytes + 100, 0);
        if (random_one_in(&random_numbers, 3))
            frame_of(0)[random_below(&random_numbers, 60)] = (u8)random_u64(&random_numbers);
        put_frame(0, header, bytes, 1);
        nic.sent_count = 0;
        loop();
        assert_int_equal(answers(TX), 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(bring_up),
        TEST(bring_up_errors),
        TEST(frames_go_out_in_order),
        TEST(checksums_are_completed),
        TEST(large_segments_are_cut),
        TEST(what_makes_no_sense_is_dropped),
        TEST(any_header_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
