/*
 * A guest for the AHCI driver: requests through the rings, and what they must have done. On the model of the controller
 * (drivervm_hba_model.h). For the drivervm_ahci_*_test.c alone.
 */
#pragma once

#include "tests/unit/drivervm_hba_model.h"

#include <sys/wait.h>

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

static inline void submit(u16 tag, u32 type, u64 sector, u32 bytes)
{
    u32 at = request_ring->page.produced;
    bool write = type == VIRTIO_BLK_T_OUT;
    struct ring_segment_cell segment[] = {
        {.address = (u64)&guest[tag].header, .length = sizeof(guest[tag].header)},
        {.address = (u64)guest[tag].data, .length = bytes / 2, .flags = write ? 0 : RING_SEGMENT_WRITABLE},
        {.address = (u64)guest[tag].data + bytes / 2,
         .length = bytes - bytes / 2,
         .flags = write ? 0 : RING_SEGMENT_WRITABLE},
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

/* Requests to the driver as the loop does it. */
static inline void loop_once(void)
{
    struct ring_header_cell header;

    while (ring_peek(&driver_rings[0], &header) == OK)
        driver.request(&driver_rings[0], &header);
    ring_release(&driver_rings[0]);
    driver.poll();
    driver.pump();
}

static inline struct port *port_in_use(void)
{
    for (u32 n = 0; n < ARRAY_SIZE(hba.port); n++)
        if (hba.port[n].cmd & CMD_ST)
            return &hba.port[n];
    return NULL;
}

/* Run until `count` more requests are answered. */
static inline void complete(u32 count)
{
    for (u32 n = 0; completions->produced - seen < count; n++) {
        assert_true(n < 10000);
        loop_once();
        struct port *port = port_in_use();
        for (u64 work = random_below(&hba_random, 4); port && work > 0; work--)
            disk_work(port);
    }
    assert_int_equal(completions->produced - seen, count);
    seen = completions->produced;
}

/* Forget everything, as a restart does, except what the disk and the stash hold. */
static inline void power_on(bool ncq)
{
    memset(&hba, 0, sizeof(hba));
    hba.ncq = ncq;
    hba.cap = CAP_S64A | 31u << 8 | (ncq ? CAP_SNCQ : 0) | 5;
    hba.pi = 0x3f;
    hba.log_works = true;
    hba.bad_sector = ~0ull;
    hba.port[2].device = true;
    reset_hba();
    hba.resets = 0;
    set_identity();
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end), .tsc_khz = 1000, .interrupts = 1};
    info.bar[5] = (struct driver_bar){.address = ABAR, .size = 0x1000, .kind = DRIVER_BAR_MEMORY};
    pci_command_register = 0x0101; /* SERR# and I/O: not ours to change */
    events.features = VIRTIO_BLK_F_FLUSH;
}

static inline int setup(void **state)
{
    hba_random = random_start("hba");
    request_ring = calloc(1, sizeof(*request_ring));
    completions = calloc(1, sizeof(*completions));
    assert_non_null(request_ring);
    assert_non_null(completions);
    seen = 0;
    ring_init(&driver_rings[0], request_ring, completions);
    random_fill(&hba_random, disk_data, sizeof(disk_data));
    power_on(true);
    return 0;
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

/* 40 reads, one of which meets a bad sector: that one fails, all the others succeed, and the disk works afterwards. */
static inline void one_bad_sector(void)
{
    for (u16 t = 0; t < 40; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 8, 4096);
    hba.bad_sector = 17 * 8 + 5;
    complete(40);
    for (u32 t = 0; t < 40; t++) {
        assert_int_equal(guest[t].status, t == 17 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
        if (t != 17)
            assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, 4096);
    }
    hba.bad_sector = ~0ull;
    submit(0, VIRTIO_BLK_T_IN, 17 * 8, 4096);
    submit(1, VIRTIO_BLK_T_FLUSH, 0, 0);
    complete(2);
    check_reads(1, 4096);
}

/* Run in a child, where driver_fault() is the expected end. Returns the code of the fault, 0 when there was none. */
static inline int fault_of(void (*body)(void))
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faults_allowed = true;
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) ? WEXITSTATUS(status) - EXIT_FAULT : 0;
}
