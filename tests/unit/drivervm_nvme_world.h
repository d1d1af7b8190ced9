/*
 * The guest's requests on the model of an NVMe controller (drivervm_nvme_model.h): its data lies anywhere, in any
 * number of pieces. For drivervm_nvme_test.c alone.
 */
#pragma once

#include "tests/unit/drivervm_nvme_model.h"

#define PLACE_BYTES (PAGE_SIZE * 6)
static struct {
    u8 data[PLACE_BYTES];
} place[RING_TAGS] __attribute__((aligned(4096)));
static struct {
    struct virtio_blk_req header;
    struct virtio_blk_range range;
    u8 status;
    u8 *data; /* where it begins, when it is in one piece */
    u64 sector;
} request[RING_TAGS];

static void put_request(u16 tag, u32 type, u64 sector, const struct ring_segment_cell *segment, u16 segments)
{
    u32 at = request_ring->page.produced;
    bool reads = type == VIRTIO_BLK_T_IN;

    request[tag].header = (struct virtio_blk_req){.type = type, .sector = sector};
    request[tag].status = 0xcc;
    request[tag].sector = sector;
    request_ring->cells[at++ % RING_CELLS].header = (struct ring_header_cell){
        .tag = tag, .segments = (u16)(segments + 2), .readable = reads ? 1 : (u32)segments + 1};
    request_ring->cells[at++ % RING_CELLS].segment =
        (struct ring_segment_cell){(u64)&request[tag].header, sizeof(request[tag].header), 0};
    for (u32 i = 0; i < segments; i++) {
        request_ring->cells[at % RING_CELLS].segment = segment[i];
        request_ring->cells[at++ % RING_CELLS].segment.flags = reads ? RING_SEGMENT_WRITABLE : 0;
    }
    request_ring->cells[at++ % RING_CELLS].segment =
        (struct ring_segment_cell){(u64)&request[tag].status, 1, RING_SEGMENT_WRITABLE};
    request_ring->page.produced = at;
}

/* Data in one piece, `offset` bytes into its first page. */
static void put_data(u16 tag, u32 type, u64 sector, u32 bytes, u32 offset)
{
    struct ring_segment_cell segment = {.address = (u64)place[tag].data + offset, .length = bytes};

    assert_true(offset + bytes <= PLACE_BYTES);
    request[tag].data = place[tag].data + offset;
    put_request(tag, type, sector, &segment, bytes ? 1 : 0);
}

static void put_range(u16 tag, u32 type, u64 sector, u32 sectors, u32 flags)
{
    struct ring_segment_cell segment = {.address = (u64)&request[tag].range, .length = sizeof(request[tag].range)};

    request[tag].range = (struct virtio_blk_range){sector, sectors, flags};
    put_request(tag, type, 0, &segment, 1);
}

static void complete(u32 count)
{
    for (u32 n = 0; completions->produced - seen < count; n++) {
        assert_true(n < 100000);
        loop_once();
        for (u64 work = random_below(&ctrl_random, 6); work > 0; work--)
            disk_work();
    }
    assert_int_equal(completions->produced - seen, count);
    seen = completions->produced;
}

static u8 status_after(u16 tag)
{
    complete(1);
    return request[tag].status;
}

/* Forget everything, as a restart does, except what disk and stash hold. */
static void power_on(u32 block_exp)
{
    memset(&ctrl, 0, sizeof(ctrl));
    ctrl.cap = 2047 | 1u << 16 | 2ull << 24 | 1ull << 37 | 4ull << 52; /* 2048 entries, 1 s, NVM, 4 KiB to 64 KiB */
    ctrl.stride = 4;
    ctrl.block_exp = block_exp;
    ctrl.nsid = 3;
    ctrl.mdts = 5;
    ctrl.oncs = ONCS_DATASET | ONCS_WRITE_ZEROES;
    ctrl.bad_block = ~0ull;
    ctrl.lag = 3;
    set_identities();
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end), .tsc_khz = 1000, .interrupts = 1};
    info.bar[0] = (struct driver_bar){.address = BAR, .size = 0x4000, .kind = DRIVER_BAR_MEMORY};
    pci_command_register = 0x0101; /* SERR# and I/O: not ours to change */
}

static int setup(void **state)
{
    ctrl_random = random_start("nvme");
    guest_begin(&ctrl_random);
    power_on(9);
    return 0;
}
