/*
 * The guest's console with the hypervisor at its other end: the transport of the relays, and queues that are looked at
 * when hv/control has time for them, so a guest that kicks without end is none of its business. The guest may change a
 * chain while its bytes are taken piece by piece: each look copies and checks it anew.
 */
#include "shared/virtio/console.h"
#include "hv/relay/internal.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define CHAINS_AT_ONCE 16u /* each is walked, whatever it holds */

static struct relay *console;

void relay_console_create(void)
{
    console = boot_frames(PAGE_UP(sizeof(*console)) / PAGE_SIZE, "the guest's console");
    console->owner = main_guest;
    console->offer = (struct driver_offer){
        .virtio_type = VIRTIO_ID_CONSOLE, .queues = VIRTIO_CONSOLE_QUEUES, .queue_size = RING_TAGS};
    device_create(console);
    relays[main_guest->id] = console;
}

/* Into the chain's writable segments, or out of its readable ones from byte `skip` on; how many. */
static u32 copy_bytes(const struct chain *chain, bool write, u32 skip, char *bytes, u32 size)
{
    u32 done = 0, end = write ? chain->count : chain->readable;
    for (u32 i = write ? chain->readable : 0; i < end && done < size; i++) {
        const struct chain_segment *segment = &chain->segment[i];
        u32 start = min_u32(skip, segment->length), part = min_u32(segment->length - start, size - done);
        skip -= start;
        u8 *ram = vm_ram(main_guest, GPA(segment->gpa + start), part); /* a part of what was checked in the copy */
        memcpy(write ? ram : (u8 *)bytes + done, write ? (u8 *)bytes + done : ram, part);
        done += part;
    }
    return done;
}

u32 relay_console_move(bool to_guest, char *bytes, u32 size)
{
    static struct chain chain;
    struct virtqueue *vq = &console->queue[to_guest ? VIRTIO_CONSOLE_RECEIVE : VIRTIO_CONSOLE_TRANSMIT].vq;
    u32 moved = 0;
    for (u32 left = CHAINS_AT_ONCE; left != 0 && moved < size && vq->enabled && device_is_live(console); left--) {
        const char *why;
        status_t status = virtqueue_next(vq, main_guest, &chain, &why);
        if (status == ERR_INVALID)
            device_break(console, why);
        if (status != OK)
            break;
        u32 part = copy_bytes(&chain, to_guest, vq->taken, bytes + moved, size - moved);
        moved += part;
        vq->taken = to_guest || vq->taken + part >= chain.readable_bytes ? 0 : vq->taken + part;
        if (vq->taken != 0)
            break; /* the rest of this buffer is for the next time */
        vq->last_avail++;
        virtqueue_fill(vq, chain.head, to_guest ? part : 0);
    }
    if (vq->published != vq->used_idx && virtqueue_publish(vq))
        device_interrupt(console, vq->vector, ISR_QUEUE);
    return moved;
}
