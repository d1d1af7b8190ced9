/*
 * What the tests of drivers for disks share beside the runtime services: the contents of a disk and what it says about
 * itself, and a guest that sends requests through the rings. The model of a controller completes it
 * (drivervm_hba_model.h, drivervm_ide_model.h).
 */
#pragma once

#include "drivervm/runtime/blk.h"
#include "tests/unit/drivervm_services.h"

/* ---- the disk ---- */

#define DISK_SECTORS 8192u
static u8 disk_data[DISK_SECTORS * 512];
static u16 identity[256];

static inline void set_string(u16 *words, u32 count, const char *text)
{
    for (u32 i = 0; i < count; i++) {
        u8 first = 2 * i < strlen(text) ? (u8)text[2 * i] : ' ';
        u8 second = 2 * i + 1 < strlen(text) ? (u8)text[2 * i + 1] : ' ';
        words[i] = (u16)(first << 8 | second);
    }
}

/* LBA and DMA, 48-bit addresses, both kinds of flush. */
static inline void set_identity(void)
{
    memset(identity, 0, sizeof(identity));
    set_string(&identity[10], 10, "SN-12345");
    set_string(&identity[27], 20, "MODEL DISK");
    identity[49] = 1u << 9 | 1u << 8;
    identity[60] = identity[100] = DISK_SECTORS;
    identity[83] = 1u << 14 | 1u << 13 | 1u << 12 | 1u << 10;
    identity[106] = 0x6003;
    identity[209] = 0x4002;
}

/* ---- the guest: reads and writes through the whole of class layer and driver ---- */

static struct {
    struct ring_request_page page;
    union ring_cell cells[RING_CELLS];
} * request_ring;
static struct ring_completion_page *completions;
static struct driver_offer offer;
static u32 seen;

#define BUFFERS 64u
#define BUFFER_BYTES 8192u
static struct {
    struct virtio_blk_req header;
    u8 data[BUFFER_BYTES] __attribute__((aligned(16)));
    u8 status;
    bool write;
    u64 lba;
} guest[BUFFERS];

static u32 cut_at; /* where the data of the next requests is cut in two; 0: in the middle */

static inline void submit(u16 tag, u32 type, u64 sector, u32 bytes)
{
    u32 at = request_ring->page.produced;
    bool write = type == VIRTIO_BLK_T_OUT;
    u32 first = cut_at ? cut_at : bytes / 2;
    struct ring_segment_cell segment[] = {
        {.address = (u64)&guest[tag].header, .length = sizeof(guest[tag].header)},
        {.address = (u64)guest[tag].data, .length = first, .flags = write ? 0 : RING_SEGMENT_WRITABLE},
        {.address = (u64)guest[tag].data + first, .length = bytes - first, .flags = write ? 0 : RING_SEGMENT_WRITABLE},
        {.address = (u64)&guest[tag].status, .length = 1, .flags = RING_SEGMENT_WRITABLE}};

    guest[tag].header = (struct virtio_blk_req){.type = type, .sector = sector};
    guest[tag].status = 0xcc;
    guest[tag].lba = sector;
    guest[tag].write = write;
    u16 count = bytes ? 4 : 2;
    if (!bytes)
        segment[1] = segment[3];
    request_ring->cells[at++ % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = count, .readable = write ? 3 : 1};
    for (u16 i = 0; i < count; i++)
        request_ring->cells[at++ % RING_CELLS].segment = segment[i];
    request_ring->page.produced = at;
}

/* Would the loop ask the driver to look at its device? The model says. */
static bool device_has_news(void);

/* Requests to the driver as the loop does it. */
static inline void loop_once(void)
{
    struct ring_header_cell header;

    while (ring_peek(&driver_rings[0], &header) == OK)
        driver.request(&driver_rings[0], &header);
    ring_release(&driver_rings[0]);
    if (device_has_news())
        driver.poll();
    driver.pump();
}

/* No requests under way, and a disk of random bytes. */
static inline void guest_begin(struct random *random)
{
    request_ring = calloc(1, sizeof(*request_ring));
    completions = calloc(1, sizeof(*completions));
    assert_non_null(request_ring);
    assert_non_null(completions);
    seen = 0;
    ring_init(&driver_rings[0], request_ring, completions);
    random_fill(random, disk_data, sizeof(disk_data));
    events.features = VIRTIO_BLK_F_FLUSH;
}

static inline int teardown(void **state)
{
    free(request_ring);
    free(completions);
    return 0;
}

static inline struct virtio_blk_config started(void)
{
    struct virtio_blk_config config;

    assert_int_equal(driver.start(&offer), OK);
    memcpy(&config, offer.config, sizeof(config));
    return config;
}

static inline void check_reads(u32 count, u32 bytes)
{
    for (u32 t = 0; t < count; t++) {
        assert_int_equal(guest[t].status, VIRTIO_BLK_S_OK);
        assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, bytes);
    }
}
