/* SOURCES: drivervm/drivers/virtio/transport.c drivervm/drivers/virtio/virtq.c drivervm/drivers/virtio_blk/virtio_blk.c
   drivervm/runtime/blk.c drivervm/runtime/blk_layout.c drivervm/runtime/ring.c drivervm/runtime/service.c */
/* The virtio_blk driver, with the block class above it, on a model of the device. */
#include "tests/unit/drivervm_virtio_model.h"

#include "tests/unit/drivervm_disk_guest.h"

#define ALL_FEATURES                                                                                                   \
    (VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | \
     VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES)
#define PENDING 256u

static struct random disk_random;
static struct {
    struct model_chain chain[PENDING]; /* that the disk works on */
    u32 count;
    bool eager;    /* answers as soon as it is kicked */
    bool deaf;     /* never answers */
    bool nameless; /* has no GET_ID */
    bool short_of; /* claims to have written a byte less than it has */
    u64 bad_sector;
    u32 reads, writes, flushes, zeroes, unmapping_zeroes, discards, most_parts, most_at_once;
} model;

static struct virtio_blk_config *config_of(void)
{
    return (struct virtio_blk_config *)virtio.config;
}

/* ---- the disk ---- */

static void check_range(const struct virtio_blk_range *range, bool unmap_allowed, u32 most)
{
    assert_int_equal(range->flags & ~(unmap_allowed ? VIRTIO_BLK_RANGE_UNMAP : 0), 0);
    assert_true(range->sectors > 0 && range->sectors <= most);
    assert_true(range->sector + range->sectors <= DISK_SECTORS);
}

static u8 run_range(const struct model_chain *chain, bool zero)
{
    struct virtio_blk_range range;

    assert_int_equal(model_bytes(chain, false), sizeof(struct virtio_blk_req) + sizeof(range));
    model_copy(chain, false, sizeof(struct virtio_blk_req), &range, sizeof(range));
    check_range(&range, zero, zero ? config_of()->max_write_zeroes_sectors : config_of()->max_discard_sectors);
    model.zeroes += zero;
    model.unmapping_zeroes += zero && range.flags;
    model.discards += !zero;
    memset(disk_data + range.sector * 512, zero ? 0 : 0xdd, range.sectors * 512ull);
    return VIRTIO_BLK_S_OK;
}

static u8 run_data(const struct model_chain *chain, u64 sector, bool read)
{
    u32 frame = read ? 1 : sizeof(struct virtio_blk_req);
    u64 bytes = model_bytes(chain, read) - frame, block = config_of()->blk_size ? config_of()->blk_size : 512;

    assert_true(bytes > 0 && bytes % block == 0 && sector * 512 % block == 0);
    assert_true(sector + bytes / 512 <= DISK_SECTORS);
    u32 seg_max = virtio.accepted & VIRTIO_BLK_F_SEG_MAX ? config_of()->seg_max : 1;
    assert_true(chain->count - 2 <= seg_max);
    for (u32 i = 1; i + 1 < chain->count; i++)
        if (virtio.accepted & VIRTIO_BLK_F_SIZE_MAX)
            assert_true(chain->part[i].len <= config_of()->size_max);
    if (chain->count > model.most_parts)
        model.most_parts = chain->count;
    if (model.bad_sector >= sector && model.bad_sector < sector + bytes / 512)
        return VIRTIO_BLK_S_IOERR;
    model.reads += read;
    model.writes += !read;
    model_copy(chain, read, read ? 0 : frame, disk_data + sector * 512, bytes);
    return VIRTIO_BLK_S_OK;
}

static u8 run_id(const struct model_chain *chain)
{
    static char id[VIRTIO_BLK_ID_BYTES] = "SN-VIRTIO";

    assert_int_equal(model_bytes(chain, true), sizeof(id) + 1);
    if (model.nameless)
        return VIRTIO_BLK_S_UNSUPP;
    model_copy(chain, true, 0, id, sizeof(id));
    return VIRTIO_BLK_S_OK;
}

/* 5.2.6: one request, to its end. */
static void run_request(const struct model_chain *chain)
{
    struct virtio_blk_req header;
    u64 writable = model_bytes(chain, true);
    u8 status = VIRTIO_BLK_S_UNSUPP;

    assert_int_equal(model_copy(chain, false, 0, &header, sizeof(header)), sizeof(header));
    assert_true(writable >= 1);
    if (header.type == VIRTIO_BLK_T_IN || header.type == VIRTIO_BLK_T_OUT)
        status = run_data(chain, header.sector, header.type == VIRTIO_BLK_T_IN);
    else if (header.type == VIRTIO_BLK_T_GET_ID)
        status = run_id(chain);
    else if (header.type == VIRTIO_BLK_T_DISCARD || header.type == VIRTIO_BLK_T_WRITE_ZEROES)
        status = run_range(chain, header.type == VIRTIO_BLK_T_WRITE_ZEROES);
    else
        assert_int_equal(header.type, VIRTIO_BLK_T_FLUSH);
    if (header.type == VIRTIO_BLK_T_FLUSH) {
        assert_true(virtio.accepted & VIRTIO_BLK_F_FLUSH);
        assert_int_equal(header.sector, 0);
        model.flushes++;
        status = VIRTIO_BLK_S_OK;
    }
    model_copy(chain, true, writable - 1, &status, 1);
    model_give(&virtio.queue[0], chain->head, (u32)writable - model.short_of);
}

static void fetch(void)
{
    while (model.count < PENDING && model_take(&virtio.queue[0], &model.chain[model.count]))
        model.count++;
    if (model.count > model.most_at_once)
        model.most_at_once = model.count;
}

/* The disk ends one request of its choice; false: it has none. */
static bool disk_work(void)
{
    if (!model.deaf)
        fetch();
    if (model.count == 0)
        return false;
    u64 n = random_below(&disk_random, model.count);
    struct model_chain chain = model.chain[n];
    model.chain[n] = model.chain[--model.count];
    run_request(&chain);
    return true;
}

static void device_kick(u32 index)
{
    assert_int_equal(index, 0);
    while (model.eager && disk_work())
        ;
}

static bool device_has_news(void)
{
    bool news = virtio.news || !info.interrupts;

    virtio.news = false;
    return news;
}

/* ---- the guest ---- */

static void complete(u32 count)
{
    for (u32 n = 0; completions->produced - seen < count; n++) {
        assert_true(n < 100000);
        loop_once();
        for (u64 work = random_below(&disk_random, 6); work > 0; work--)
            disk_work();
    }
    assert_int_equal(completions->produced - seen, count);
    seen = completions->produced;
}

static u8 status_after(u16 tag)
{
    complete(1);
    return guest[tag].status;
}

/* Data in `pieces` pieces, all over our memory. */
static void submit_scattered(u16 tag, u32 type, u64 sector, u8 *data, u32 pieces, u32 piece_bytes)
{
    u32 at = request_ring->page.produced;
    bool reads = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;

    guest[tag].header = (struct virtio_blk_req){.type = type, .sector = sector};
    guest[tag].status = 0xcc;
    request_ring->cells[at++ % RING_CELLS].header =
        (struct ring_header_cell){.tag = tag, .segments = (u16)(pieces + 2), .readable = reads ? 1 : pieces + 1};
    request_ring->cells[at++ % RING_CELLS].segment =
        (struct ring_segment_cell){(u64)&guest[tag].header, sizeof(guest[tag].header), 0};
    for (u32 i = 0; i < pieces; i++)
        request_ring->cells[at++ % RING_CELLS].segment = (struct ring_segment_cell){
            (u64)data + (u64)i * piece_bytes, piece_bytes, reads ? RING_SEGMENT_WRITABLE : 0};
    request_ring->cells[at++ % RING_CELLS].segment =
        (struct ring_segment_cell){(u64)&guest[tag].status, 1, RING_SEGMENT_WRITABLE};
    request_ring->page.produced = at;
}

static void submit_range(u16 tag, u32 type, u64 sector, u32 sectors, u32 flags)
{
    struct virtio_blk_range range = {sector, sectors, flags};

    memcpy(guest[tag].data, &range, sizeof(range));
    submit_scattered(tag, type, 0, guest[tag].data, 1, sizeof(range));
}

static void power_on(u64 features)
{
    model_power_on(VIRTIO_ID_BLOCK, features, 1);
    memset(&model, 0, sizeof(model));
    model.bad_sector = ~0ull;
    model.eager = true;
    *config_of() = (struct virtio_blk_config){.capacity = DISK_SECTORS,
                                              .seg_max = 254,
                                              .blk_size = 512,
                                              .physical_block_exp = 3,
                                              .max_discard_sectors = ~0u,
                                              .max_discard_seg = 1,
                                              .max_write_zeroes_sectors = ~0u,
                                              .max_write_zeroes_seg = 1,
                                              .write_zeroes_may_unmap = 1};
}

static struct virtio_blk_config begin(void)
{
    struct virtio_blk_config config = started();

    model.eager = false;
    return config;
}

static int setup(void **state)
{
    disk_random = random_start("virtio-blk");
    guest_begin(&disk_random);
    power_on(ALL_FEATURES);
    return 0;
}

/* ---- bring-up ---- */

static void a_disk_is_found_and_offered(void **state)
{
    virtio.offered |= 1ull << 27 | 1ull << 35 | VIRTIO_BLK_F_RO; /* two that nobody asked for */
    struct virtio_blk_config config = begin();

    assert_int_equal(config.capacity, DISK_SECTORS);
    assert_int_equal(config.blk_size, 512);
    assert_int_equal(config.physical_block_exp, 3);
    assert_int_equal(offer.features & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES),
                     VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES);
    assert_int_equal(virtio.accepted, ALL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM | VIRTIO_BLK_F_RO);
    assert_int_equal(virtio.status, 15);
    assert_int_equal(virtio.resets, 1);
    assert_int_equal(virtio.config_vector, 0);
    assert_int_equal(pci_command_register, 0x0100 | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    submit_scattered(0, VIRTIO_BLK_T_GET_ID, 0, guest[0].data, 1, VIRTIO_BLK_ID_BYTES);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_string_equal((char *)guest[0].data, "SN-VIRTIO");
}

static status_t fails(void)
{
    memset(stash, 0, sizeof(stash));
    info.stash_length = 0;
    return driver.start(&offer);
}

static void transports_that_we_refuse(void **state)
{
    virtio.offered &= ~VIRTIO_F_ACCESS_PLATFORM;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    assert_true(virtio.status & VIRTIO_STATUS_FAILED);
    assert_false(virtio.queue[0].enabled);
    power_on(ALL_FEATURES);
    virtio.offered &= ~VIRTIO_F_VERSION_1;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.refuses = true;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.never_reset = true;
    assert_int_equal(fails(), ERR_TIMEOUT);
    assert_false(pci_command_register & PCI_COMMAND_MASTER);
    power_on(ALL_FEATURES);
    virtio.restless = true;
    assert_int_equal(fails(), ERR_BUSY);
    power_on(ALL_FEATURES);
    virtio.no_vectors = true;
    assert_int_equal(fails(), ERR_NO_SPACE);
    power_on(ALL_FEATURES);
    info.pci_device = 0x1001; /* transitional */
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    model.deaf = true;
    assert_int_equal(fails(), ERR_TIMEOUT);
    power_on(ALL_FEATURES);
    virtio.reset_lag = 1000;
    assert_int_equal(fails(), OK);
}

static void queues_that_we_refuse(void **state)
{
    virtio.queues = 0;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queue[0].most = 0;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queue[0].most = 96;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    power_on(ALL_FEATURES);
    virtio.queue[0].most = 2; /* no room for data */
    assert_int_equal(fails(), ERR_UNSUPPORTED);
}

/* A capability of this type, to break it. */
static struct virtio_pci_cap *capability(u32 type)
{
    for (u32 at = virtio.space[PCI_CAPABILITIES]; at; at = virtio.space[at + 1])
        if (virtio.space[at] == PCI_CAP_VENDOR && virtio.space[at + 3] == type)
            return (struct virtio_pci_cap *)(virtio.space + at);
    fail_msg("no capability %u", type);
    return NULL;
}

static void structures_that_we_refuse(void **state)
{
    for (u32 type = VIRTIO_PCI_CAP_COMMON; type <= VIRTIO_PCI_CAP_DEVICE; type++) {
        power_on(ALL_FEATURES);
        capability(type)->bar = 7;
        assert_int_equal(fails(), ERR_NOT_FOUND);
        power_on(ALL_FEATURES);
        capability(type)->bar = 1; /* which is not there */
        assert_int_equal(fails(), ERR_NOT_FOUND);
        power_on(ALL_FEATURES);
        capability(type)->offset = 0x3004;
        assert_int_equal(fails(), ERR_NOT_FOUND); /* goes on behind the BAR */
        power_on(ALL_FEATURES);
        capability(type)->offset = ~0u & ~3u;
        assert_int_equal(fails(), ERR_NOT_FOUND);
        power_on(ALL_FEATURES);
        capability(type)->length = 0;
        assert_int_equal(fails(), ERR_NOT_FOUND);
        power_on(ALL_FEATURES);
        capability(type)->cap_len = 15;
        assert_int_equal(fails(), ERR_NOT_FOUND);
        power_on(ALL_FEATURES);
        capability(type)->cfg_type = 9;
        assert_int_equal(fails(), ERR_NOT_FOUND);
    }
    power_on(ALL_FEATURES);
    capability(VIRTIO_PCI_CAP_COMMON)->offset = 2;
    assert_int_equal(fails(), ERR_NOT_FOUND);
    power_on(ALL_FEATURES);
    capability(VIRTIO_PCI_CAP_NOTIFY)->length = 4; /* our queue's is the second */
    assert_int_equal(fails(), ERR_RANGE);
    power_on(ALL_FEATURES);
    memset((u8 *)capability(VIRTIO_PCI_CAP_NOTIFY) + sizeof(struct virtio_pci_cap), 0xff, 4);
    assert_int_equal(fails(), ERR_RANGE);
    power_on(ALL_FEATURES);
    *((u8 *)capability(VIRTIO_PCI_CAP_NOTIFY) + sizeof(struct virtio_pci_cap)) = 3; /* 16 bits at an odd address */
    assert_int_equal(fails(), ERR_RANGE);
}

/* Lists that go in circles or point outside, and what random bytes say. */
static void any_list_of_capabilities_has_an_end(void **state)
{
    virtio.space[CAP_FIRST + 1] = CAP_FIRST;
    assert_int_equal(fails(), ERR_NOT_FOUND);
    power_on(ALL_FEATURES);
    virtio.space[PCI_CAPABILITIES] = 0xfc;
    virtio.space[0xfc] = PCI_CAP_VENDOR;
    assert_int_equal(fails(), ERR_DENIED);
    for (u32 round = 0; round < 300; round++) {
        power_on(ALL_FEATURES);
        for (u32 n = 0; n < 40; n++)
            virtio.space[random_below(&disk_random, sizeof(virtio.space))] = (u8)random_u64(&disk_random);
        for (u32 i = 0; i < ARRAY_SIZE(info.bar); i++) /* whatever it says, only ISR has room in these */
            info.bar[i] = (struct driver_bar){.address = MODEL_BAR, .size = 2, .kind = DRIVER_BAR_MEMORY};
        assert_int_not_equal(fails(), OK);
    }
}

static void configurations_that_we_refuse(void **state)
{
    config_of()->blk_size = 256;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    config_of()->blk_size = 8192;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    config_of()->blk_size = 1536;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    config_of()->blk_size = 512;
    config_of()->capacity = 0;
    assert_int_equal(fails(), ERR_FORMAT);
    config_of()->capacity = ~0ull;
    assert_int_equal(fails(), ERR_FORMAT);
    config_of()->capacity = DISK_SECTORS;
    virtio.offered |= VIRTIO_BLK_F_SIZE_MAX;
    config_of()->size_max = 512;
    assert_int_equal(fails(), ERR_UNSUPPORTED);
    config_of()->size_max = 4096;
    assert_int_equal(fails(), OK);
}

static void a_restart_wants_the_same_disk(void **state)
{
    begin();
    model.eager = true;
    assert_int_equal(driver.start(&offer), OK);
    config_of()->capacity -= 8;
    assert_int_equal(driver.start(&offer), ERR_STATE);
    config_of()->capacity += 8;
    model.nameless = true; /* what lies at the place of the name is another's then */
    assert_int_equal(driver.start(&offer), ERR_STATE);
}

/* ---- requests ---- */

/* Reads and writes of all sizes, several at once, of which the disk ends now this one and now that one. */
static void mixed_load(u32 rounds)
{
    u32 block = config_of()->blk_size, most = BUFFER_BYTES / block;

    for (u32 round = 0; round < rounds; round++) {
        u32 count = 1 + (u32)random_below(&disk_random, BUFFERS), bytes[BUFFERS];
        for (u16 tag = 0; tag < count; tag++) {
            bytes[tag] = block * (1 + (u32)random_below(&disk_random, most));
            bool write = random_below(&disk_random, 2);
            u64 sector = (u64)tag * 128 + random_below(&disk_random, 64 / (block / 512)) * (block / 512);
            cut_at = 1 + (u32)random_below(&disk_random, bytes[tag] - 1); /* at any byte */
            if (write)
                random_fill(&disk_random, guest[tag].data, bytes[tag]);
            submit(tag, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector, bytes[tag]);
        }
        complete(count);
        for (u16 tag = 0; tag < count; tag++) {
            assert_int_equal(guest[tag].status, VIRTIO_BLK_S_OK);
            assert_memory_equal(guest[tag].data, disk_data + guest[tag].lba * 512, bytes[tag]);
        }
    }
    cut_at = 0;
}

static void indirect_with_event_index(void **state)
{
    begin();
    mixed_load(60);
    assert_true(virtio.interrupts > 0 && virtio.kicks > 0);
    assert_true(model.most_at_once > 30);
    assert_int_equal(virtio.isr_reads, 0);
}

static void without_event_index(void **state)
{
    virtio.offered &= ~VIRTIO_F_EVENT_IDX;
    begin();
    mixed_load(40);
}

static void without_indirect_descriptors(void **state)
{
    virtio.offered &= ~VIRTIO_F_INDIRECT_DESC;
    begin();
    mixed_load(40);
    assert_int_equal(model.most_at_once, 16);
}

static void small_queues(void **state)
{
    static const u16 sizes[] = {4, 8, 16, 32, 128, 1024};

    for (u32 i = 0; i < ARRAY_SIZE(sizes); i++)
        for (u32 indirect = 0; indirect < 2; indirect++) {
            power_on(indirect ? ALL_FEATURES : ALL_FEATURES & ~VIRTIO_F_INDIRECT_DESC);
            virtio.queue[0].most = sizes[i];
            begin();
            mixed_load(6);
        }
}

static void one_segment_of_a_page(void **state)
{
    virtio.offered = (virtio.offered & ~VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BLK_F_SIZE_MAX;
    config_of()->size_max = 4096 + 512;
    begin();
    mixed_load(20);
    assert_int_equal(model.most_parts, 3);
}

static void blocks_of_4_kib(void **state)
{
    config_of()->blk_size = 4096;
    config_of()->physical_block_exp = 0xff;
    struct virtio_blk_config config = begin();
    assert_int_equal(config.blk_size, 4096);
    assert_int_equal(config.physical_block_exp, 0);
    mixed_load(20);
    submit(0, VIRTIO_BLK_T_IN, 1, 4096);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
}

static void by_a_line_and_without_interrupts(void **state)
{
    use_line();
    begin();
    assert_false(pci_command_register & PCI_COMMAND_INTX_DISABLE);
    mixed_load(20);
    assert_true(virtio.isr_reads > 0);
    for (u32 events_too = 0; events_too < 2; events_too++) {
        power_on(events_too ? ALL_FEATURES : ALL_FEATURES & ~VIRTIO_F_EVENT_IDX);
        info.interrupts = 0;
        begin();
        mixed_load(20);
        assert_int_equal(virtio.interrupts, 0);
    }
}

static void notification_by_port(void **state)
{
    struct virtio_pci_cap *cap = capability(VIRTIO_PCI_CAP_NOTIFY);

    cap->bar = 0;
    cap->offset = 0;
    cap->length = 32;
    begin();
    assert_true(pci_command_register & PCI_COMMAND_IO);
    mixed_load(10);
}

static void many_pieces(void **state)
{
    static u8 data[126 * 4096];

    begin();
    for (u32 pieces = 1; pieces <= 126; pieces += 25) {
        submit_scattered(0, VIRTIO_BLK_T_IN, 8, data, pieces, 4096);
        assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
        assert_memory_equal(data, disk_data + 8 * 512, (u64)pieces * 4096);
    }
    assert_int_equal(model.reads, 6);
    config_of()->seg_max = 7;
    model.eager = true;
    info.stash_length = 0;
    begin();
    submit_scattered(0, VIRTIO_BLK_T_OUT, 1024, data, 126, 4096);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_memory_equal(data, disk_data + 1024 * 512, sizeof(data));
    assert_int_equal(model.writes, 126 / 7);
}

static void zeroes_and_discards(void **state)
{
    static const u8 zeroes[16 * 512];

    begin();
    submit_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 100, 16, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_memory_equal(disk_data + 100 * 512, zeroes, sizeof(zeroes));
    submit_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 200, 16, VIRTIO_BLK_RANGE_UNMAP);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    submit_range(0, VIRTIO_BLK_T_DISCARD, 300, 8, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(model.zeroes, 2);
    assert_int_equal(model.unmapping_zeroes, 1);
    assert_int_equal(model.discards, 1);
    assert_int_equal(disk_data[300 * 512], 0xdd);
}

static void ranges_are_cut(void **state)
{
    config_of()->max_write_zeroes_sectors = 20; /* 16 are whole pages */
    config_of()->write_zeroes_may_unmap = 0;
    config_of()->max_discard_seg = 0;
    begin();
    assert_int_equal(offer.features & VIRTIO_BLK_F_DISCARD, 0);
    submit_range(0, VIRTIO_BLK_T_WRITE_ZEROES, 100, 100, VIRTIO_BLK_RANGE_UNMAP);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(model.zeroes, 7);
    assert_int_equal(model.unmapping_zeroes, 0);
    submit_range(0, VIRTIO_BLK_T_DISCARD, 300, 8, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_UNSUPP);
}

static void flushes(void **state)
{
    begin();
    submit(0, VIRTIO_BLK_T_FLUSH, 0, 0);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_OK);
    assert_int_equal(model.flushes, 1);
    power_on(ALL_FEATURES & ~VIRTIO_BLK_F_FLUSH);
    begin();
    submit(0, VIRTIO_BLK_T_FLUSH, 0, 0);
    submit(1, VIRTIO_BLK_T_OUT, 0, 512);
    submit(2, VIRTIO_BLK_T_FLUSH, 0, 0);
    complete(3);
    for (u32 tag = 0; tag < 3; tag++)
        assert_int_equal(guest[tag].status, VIRTIO_BLK_S_OK);
}

static void an_error_fails_one_request_only(void **state)
{
    begin();
    model.bad_sector = 131;
    for (u16 tag = 0; tag < 3; tag++)
        submit(tag, VIRTIO_BLK_T_IN, tag * 128ull, 8192);
    complete(3);
    assert_int_equal(guest[0].status, VIRTIO_BLK_S_OK);
    assert_int_equal(guest[1].status, VIRTIO_BLK_S_IOERR);
    assert_int_equal(guest[2].status, VIRTIO_BLK_S_OK);
    model.short_of = true; /* a byte that it does not vouch for is the status */
    submit(0, VIRTIO_BLK_T_IN, 0, 512);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    submit(0, VIRTIO_BLK_T_OUT, 0, 512);
    assert_int_equal(status_after(0), VIRTIO_BLK_S_IOERR);
    model.short_of = false;
    model.bad_sector = ~0ull;
    mixed_load(5);
}

/* What comes between the last look and the request for an interrupt raises none, so it has to be seen by another look.
 */
static void nothing_is_lost_before_the_sleep(void **state)
{
    static struct virtq q;
    static u8 byte;
    u32 slot, length;

    for (u32 events_too = 0; events_too < 2; events_too++) {
        power_on(events_too ? ALL_FEATURES : ALL_FEATURES & ~VIRTIO_F_EVENT_IDX);
        begin();
        assert_int_equal(virtio_negotiate(0), OK);
        assert_int_equal(virtq_start(&q, 0, 4, 2, false), OK);
        virtio_go();
        for (u32 n = 0; n < 2; n++) {
            virtq_begin(&q, n);
            virtq_put(&q, (u64)&byte, 1, true);
            virtq_end(&q);
        }
        virtq_flush(&q);
        fetch();
        model_give(&virtio.queue[0], model.chain[0].head, 1);
        assert_true(virtq_next(&q, &slot, &length));
        assert_false(virtq_next(&q, &slot, &length));
        virtio.news = false;
        model_give(&virtio.queue[0], model.chain[1].head, 1);
        assert_int_equal(virtio.news, !events_too);
        assert_false(virtq_listen(&q));
        assert_true(virtq_next(&q, &slot, &length));
        assert_int_equal(slot, 1);
        assert_true(virtq_listen(&q));
    }
}

/* ---- a hostile device ---- */

static void one_read(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 512);
    loop_once();
    fetch();
    assert_int_equal(model.count, 1);
    virtio.news = true;
}

static void work_well(void)
{
    submit(0, VIRTIO_BLK_T_IN, 0, 512);
    if (status_after(0) != VIRTIO_BLK_S_OK)
        _exit(1);
}

static void use_what_is_not_out(void)
{
    one_read();
    model_give(&virtio.queue[0], (model.chain[0].head + 1u) % 256, 513);
    loop_once();
}

static void use_beyond_the_queue(void)
{
    one_read();
    model_give(&virtio.queue[0], 0x80000000u, 513);
    loop_once();
}

static void use_twice(void)
{
    one_read();
    submit(1, VIRTIO_BLK_T_IN, 8, 512);
    loop_once();
    model_give(&virtio.queue[0], model.chain[0].head, 513);
    model_give(&virtio.queue[0], model.chain[0].head, 513);
    loop_once();
}

static void jump_ahead(void)
{
    one_read();
    used_of(&virtio.queue[0])->idx += 2;
    loop_once();
}

static void jump_back(void)
{
    one_read();
    used_of(&virtio.queue[0])->idx -= 1;
    loop_once();
}

static void need_a_reset(void)
{
    virtio.status |= VIRTIO_STATUS_NEEDS_RESET;
    virtio.news = true;
    loop_once();
}

static void vanish(void)
{
    virtio.status = 0xff;
    virtio.news = true;
    loop_once();
}

static void reset_itself(void)
{
    virtio.status = 0;
    virtio.news = true;
    loop_once();
}

static void broken_devices_end_in_a_fault(void **state)
{
    begin();
    assert_int_equal(fault_of(work_well), 0);
    assert_int_equal(fault_of(use_what_is_not_out), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(use_beyond_the_queue), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(use_twice), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(jump_ahead), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(jump_back), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(need_a_reset), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(vanish), DRIVER_FAULT_DEVICE);
    assert_int_equal(fault_of(reset_itself), DRIVER_FAULT_DEVICE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_disk_is_found_and_offered),
        TEST(transports_that_we_refuse),
        TEST(queues_that_we_refuse),
        TEST(structures_that_we_refuse),
        TEST(any_list_of_capabilities_has_an_end),
        TEST(configurations_that_we_refuse),
        TEST(a_restart_wants_the_same_disk),
        TEST(indirect_with_event_index),
        TEST(without_event_index),
        TEST(without_indirect_descriptors),
        TEST(small_queues),
        TEST(one_segment_of_a_page),
        TEST(blocks_of_4_kib),
        TEST(by_a_line_and_without_interrupts),
        TEST(notification_by_port),
        TEST(many_pieces),
        TEST(zeroes_and_discards),
        TEST(ranges_are_cut),
        TEST(flushes),
        TEST(an_error_fails_one_request_only),
        TEST(nothing_is_lost_before_the_sleep),
        TEST(broken_devices_end_in_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
