/* SOURCES: hv/relay/relay.c hv/relay/queue.c hv/relay/inflight.c hv/relay/grant.c hv/relay/forward.c
 * hv/relay/complete.c hv/relay/virtio_pci.c hv/relay/console.c */
/* INCLUDE_FAKES */
/*
 * The input drives both hostile sides at once: the guest's registers, descriptors and rings, and the driver's
 * completion pages; with crashes and guest resets in between. ASan watches the ends of guest memory; world_check()
 * recomputes users, rights and tables; and no request may be published more often than it was taken from the guest.
 */
#include "tests/unit/relay_world.h"

#define SIZE 16u
#define QUEUES 2u

static const u8 *input;
static size_t left;

static u32 take(u32 bytes)
{
    u32 value = 0;
    for (u32 i = 0; i < bytes && left != 0; i++, left--)
        value |= (u32)*input++ << i * 8;
    return value;
}

/* Addresses that mean something: rings, buffers, the ends of memory, or anything. */
static u64 take_address(void)
{
    u32 kind = take(1), offset = take(2);
    switch (kind & 7) {
    case 0:
        return WORLD_RAM - (offset & 0xff);
    case 1:
        return (u64)0 - offset;
    case 2:
        return (u64)take(4) << 16 | offset;
    case 3:
        return offset; /* the rings themselves */
    default:
        return BUFFERS_AT + (offset & 0xfff) * 16;
    }
}

static void guest_acts(u32 what)
{
    u16 queue = what >> 4 & 1;
    u64 at;
    u32 width;
    switch (what & 7) {
    case 0:
    case 1:
        guest_desc(queue)[take(1) % SIZE] =
            (struct virtq_desc){.addr = take_address(), .len = take(2), .flags = (u16)take(1), .next = (u16)take(1)};
        break;
    case 2: /* an element of an indirect table */
        at = BUFFERS_AT + take(1) % 64 * 16;
        *(struct virtq_desc *)(world.ram + at) =
            (struct virtq_desc){.addr = take_address(), .len = take(4), .flags = (u16)take(1), .next = (u16)take(1)};
        break;
    case 3:
        guest_make_available(queue, SIZE, (u16)take(1) % (SIZE + 1));
        guest_kick(queue);
        break;
    case 4:
        guest_avail(queue)->idx = (u16)take(2);
        guest_kick(queue);
        break;
    case 5:
        guest_out(take(1), 1u << take(1) % 3, take(4));
        break;
    case 6:
        guest_msix_write(take(2) & 0xfff, 4u << (take(1) & 1), take(4));
        width = 1u << take(1) % 3;
        guest_config_write(take(1) / width * width, width, take(4)); /* as the bus makes them */
        break;
    default:
        guest_set_status(0);
        guest_start(take(1) & 1 ? GUEST_FEATURES : VIRTIO_F_VERSION_1, SIZE);
        break;
    }
}

static void driver_acts(u32 what)
{
    static struct driver_request request;
    u32 queue = what >> 4 & 1, max;
    u16 tag;
    struct ring_completion_page *page = relay_completion_page(world.relay, queue);
    switch (what & 7) {
    case 0:
        page->produced = take(4);
        break;
    case 1:
        page->consumed = take(4);
        break;
    case 2:
        driver_complete(queue, (u16)take(2), take(4));
        break;
    case 3:
    case 4:
        if (relay_some_in_flight(world.relay, queue, &tag, &max) == OK)
            driver_complete(queue, tag, max);
        break;
    case 5: /* an honest reader meets only what was granted */
        if (world.reports == 0 && page->consumed == world.relay->queue[queue].consumed &&
            driver_take(queue, &request)) {
            /* Its cells may be read late: after a forged completion, even after another request took the tag. */
            const struct log_slot *slot = &world.relay->queue[queue].log.slot[request.tag];
            bool owed = slot->in_flight && slot->id == request.id;
            for (u32 i = 0; i < request.count; i++) {
                bool write = (request.segment[i].flags & RING_SEGMENT_WRITABLE) != 0;
                CHECK(!owed || device_reach(request.segment[i].address, request.segment[i].length, write) != NULL);
            }
        }
        break;
    case 6:
        (void)relay_arm_kicks(world.relay);
        break;
    default:
        relay_want_kicks(world.relay, false);
        break;
    }
    relay_complete(world.relay);
    relay_forward(world.relay);
}

static void successor(void)
{
    world_crash();
    world.reports = 0;
    CHECK(relay_offer(world.relay, &world.offer) == OK);
}

/* The same guest with a console: no more is moved than was asked for, and ASan watches both ends. */
static int console_fuzz(void)
{
    static char bytes[512];
    world_create(MANIFEST_GRANTS_STICKY, 8, true);
    relay_console_create();
    world.relay = relays[0];
    world.offer.queues = QUEUES;
    guest_start(GUEST_FEATURES, SIZE);
    while (left != 0) {
        u32 what = take(1);
        if (what == 0xff) {
            relay_guest_reset(world.relay);
        } else if (what & 0x80) {
            u32 want = take(2) % sizeof(bytes);
            CHECK(relay_console_move((what & 1) != 0, bytes, want) <= want);
        } else {
            guest_acts(what);
        }
        CHECK(!world.signalled && world.reports == 0);
    }
    relays[0] = NULL;
    world_destroy();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct relay_stats stats;
    input = data;
    left = size;
    u32 mode = take(1);
    if (mode & 0x10)
        return console_fuzz();
    world_create(mode & 1 ? MANIFEST_GRANTS_STRICT : MANIFEST_GRANTS_STICKY, mode & 2 ? 8 : 256, (mode & 4) == 0);
    world.offer.queues = QUEUES;
    CHECK(relay_offer(world.relay, &world.offer) == OK);
    guest_start(GUEST_FEATURES, SIZE);
    while (left != 0) {
        u32 what = take(1);
        if (what == 0xff)
            successor();
        else if (what == 0xfe)
            relay_guest_reset(world.relay);
        else if (what == 0xfd)
            relay_give_up(world.relay, (mode & 8) != 0);
        else if (what & 0x80)
            driver_acts(what);
        else
            guest_acts(what);
        if (world.reports != 0)
            successor();
        world_check();
        stats = relay_stats(world.relay);
        CHECK(stats.completions + stats.errors_answered + stats.in_flight <= stats.requests);
        if (world.relay->state == RELAY_DEAD)
            break;
    }
    world_destroy();
    return 0;
}
