/*
 * For Eva: what queue.c reads and writes in guest memory, byte by byte. The rings are exactly as large as
 * virtqueue_enable() asks vm_ram() for, for each size that it accepts from a device (a power of two, at most
 * RING_TAGS); indices, features and all that memory holds are anything. chain_walk() is left to WP; here its contract
 * stands in for it.
 */
#include "hv/relay/queue.c"

#include "tests/proof/world.h"

static struct virtqueue vq;
static struct vm vm;
static struct chain chain;
static u8 table[RING_TAGS * sizeof(struct virtq_desc)];
static u8 avail[sizeof(struct virtq_avail) + (RING_TAGS + 1) * sizeof(u16)];
static u8 used[sizeof(struct virtq_used) + RING_TAGS * sizeof(struct virtq_used_elem) + sizeof(u16)];

int main(void)
{
    (void)descriptor_copy(UNKNOWN(table, sizeof(struct virtq_desc)));
    //@ loop unroll 8;
    for (u32 size = 1; size <= RING_TAGS; size *= 2) {
        const char *why;
        Frama_C_make_unknown((char *)&vq, sizeof(vq));
        vq.size = (u16)size;
        vq.desc = UNKNOWN(table, size * sizeof(struct virtq_desc));
        vq.avail = (void *)UNKNOWN(avail, sizeof(struct virtq_avail) + (size + 1) * sizeof(u16));
        vq.used =
            (void *)UNKNOWN(used, sizeof(struct virtq_used) + size * sizeof(struct virtq_used_elem) + sizeof(u16));
        (void)virtqueue_next(&vq, &vm, &chain, &why);
        virtqueue_fill(&vq, (u16)any_u64(), (u32)any_u64());
        (void)virtqueue_publish(&vq);
        virtqueue_want_kicks(&vq, any_u64() & 1);
    }
    return 0;
}
