/*
 * Split virtqueues (VirtIO 1.2 2.7), the device's side. Guest memory changes under our hands: every field is read
 * exactly once, into the chain, and only the copy is checked and used.
 */
#include "hv/relay/internal.h"
#include "shared/lib/checked.h"

/* An indirect table has no alignment rule (2.7.5.3), hence the packed word. Volatile: one load each, never repeated. */
struct unaligned_u64 {
    u64 v;
} __attribute__((packed, may_alias));

/*@ requires \valid_read(at + (0 .. 15)); assigns \nothing; */
static struct virtq_desc descriptor_copy(const u8 *at)
{
    u64 addr = ((const volatile struct unaligned_u64 *)at)->v;
    u64 rest = ((const volatile struct unaligned_u64 *)(at + 8))->v;
    return (struct virtq_desc){.addr = addr, .len = (u32)rest, .flags = (u16)(rest >> 32), .next = (u16)(rest >> 48)};
}

status_t virtqueue_enable(struct virtqueue *vq, const struct vm *vm, u16 max_size, u64 features)
{
    u16 size = vq->size;
    if (size == 0 || size > max_size || (size & (size - 1)) != 0)
        return ERR_INVALID;
    /* 2.7: alignment 16, 2, 4; the event fields behind the rings are there whether negotiated or not. */
    if ((vq->desc_gpa & 15) != 0 || (vq->avail_gpa & 1) != 0 || (vq->used_gpa & 3) != 0)
        return ERR_INVALID;
    const u8 *desc = vm_ram(vm, GPA(vq->desc_gpa), size * sizeof(struct virtq_desc));
    const void *avail = vm_ram(vm, GPA(vq->avail_gpa), sizeof(struct virtq_avail) + (size + 1u) * sizeof(u16));
    void *used = vm_ram(vm, GPA(vq->used_gpa), sizeof(struct virtq_used) + size * sizeof(struct virtq_used_elem) + 2);
    if (desc == NULL || avail == NULL || used == NULL)
        return ERR_INVALID;

    vq->desc = desc;
    vq->avail = avail;
    vq->used = used;
    vq->features = features;
    vq->last_avail = vq->used_idx = vq->published = 0;
    vq->enabled = 1;
    return OK;
}

/* Append one descriptor; NULL, or which rule it breaks. */
/*@ requires \valid(chain) && \valid_read(desc) && \valid_read(vm) && \separated(chain, desc, vm);
    requires chain_holds(chain, vm);
    assigns \result, *chain \from *chain, *desc, *vm;
    ensures chain_holds(chain, vm); */
static const char *chain_add(struct chain *chain, const struct virtq_desc *desc, const struct vm *vm)
{
    bool writable = (desc->flags & VIRTQ_DESC_F_WRITE) != 0;
    u32 total;
    if (chain->count == RING_MAX_SEGMENTS)
        return "chain is too long";
    if (desc->len == 0)
        return "empty segment";
    if (vm_ram(vm, GPA(desc->addr), desc->len) == NULL)
        return "segment outside memory";
    //@ assert inside: in_ram(vm, desc->addr, desc->len);
    if (!writable && chain->readable != chain->count)
        return "readable segment after a writable one"; /* 2.7.4.2 */
    if (!add_u32(chain->readable_bytes + chain->writable_bytes, desc->len, &total))
        return "chain is longer than 4 GiB"; /* 2.7.5.1 */
    struct chain_segment *segment = &chain->segment[chain->count++];
    segment->gpa = desc->addr;
    segment->length = desc->len;
    //@ assert kept: vm->ram_size == \at(vm->ram_size, Pre);
    /*@ assert kept: \forall integer i; 0 <= i < chain->count - 1 ==>
            chain->segment[i].gpa == \at(chain->segment[i].gpa, Pre) &&
            chain->segment[i].length == \at(chain->segment[i].length, Pre); */
    /*@ assert appended: chain->segment[chain->count - 1].gpa == desc->addr &&
            chain->segment[chain->count - 1].length == desc->len; */
    //@ assert appended: segment_holds(chain, vm, chain->count - 1);
    //@ assert appended: \forall integer i; 0 <= i < chain->count ==> segment_holds(chain, vm, i);
    if (writable) {
        chain->writable_bytes += desc->len;
    } else {
        chain->readable_bytes += desc->len;
        chain->readable++;
    }
    return NULL;
}

/* The rules for a descriptor that refers to an indirect table (2.7.5.3); its WRITE flag is ignored. */
/*@ requires \valid_read(vq) && \valid_read(desc);
    assigns \result \from *vq, *desc, inside;
    ensures \result == \null ==> !inside && desc->len > 0 && desc->len % 16 == 0; */
static const char *indirect_check(const struct virtqueue *vq, const struct virtq_desc *desc, bool inside)
{
    if ((vq->features & VIRTIO_F_INDIRECT_DESC) == 0)
        return "indirect descriptor without the feature";
    if (inside)
        return "indirect table inside an indirect table";
    if ((desc->flags & VIRTQ_DESC_F_NEXT) != 0)
        return "indirect descriptor with a successor";
    if (desc->len == 0 || desc->len % sizeof(struct virtq_desc) != 0)
        return "impossible length of an indirect table";
    return NULL;
}

/* Walk from the head. Ends after at most size + RING_MAX_SEGMENTS steps, whatever the guest does. */
/*@ requires \valid_read(vq) && \valid_read(vm) && \valid(out) && \separated(vq, vm, out);
    requires queue_holds(vq) && chain_holds(out, vm);
    assigns \result, *out \from *vq, *vm;
    ensures chain_holds(out, vm); */
static const char *chain_walk(const struct virtqueue *vq, const struct vm *vm, struct chain *out)
{
    const u8 *table = vq->desc;
    u32 entries = vq->size, index = out->head, steps = 0;
    bool inside = false;
    /*@ loop invariant \valid_read(table + (0 .. 16 * entries - 1)) && steps <= entries <= 0x0fffffff;
        loop invariant chain_holds(out, vm);
        loop assigns table, entries, index, steps, inside, *out;
        loop variant (inside ? 0 : 0x10000000) + entries - steps; */
    for (;;) {
        if (index >= entries)
            return "descriptor index out of range";
        if (steps++ == entries)
            return "chain has a loop"; /* more steps than the table has entries */
        struct virtq_desc desc = descriptor_copy(table + (u64)index * sizeof(desc));
        const char *why;
        if ((desc.flags & VIRTQ_DESC_F_INDIRECT) != 0) {
            why = indirect_check(vq, &desc, inside);
            if (why != NULL)
                return why;
            table = vm_ram(vm, GPA(desc.addr), desc.len);
            if (table == NULL)
                return "indirect table outside memory";
            entries = desc.len / sizeof(desc);
            index = steps = 0;
            inside = true;
            continue;
        }
        why = chain_add(out, &desc, vm);
        if (why != NULL)
            return why;
        if ((desc.flags & VIRTQ_DESC_F_NEXT) == 0)
            return NULL;
        index = desc.next;
    }
}

status_t virtqueue_next(const struct virtqueue *vq, const struct vm *vm, struct chain *out, const char **why)
{
    /* Acquire: the ring entry and the descriptors were written before the index (2.7.13.3). */
    u16 available = __atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE);
    u16 waiting = (u16)(available - vq->last_avail);
    if (waiting == 0)
        return ERR_NOT_FOUND;
    if (waiting > vq->size) {
        *why = "available index jumps";
        return ERR_INVALID;
    }
    out->head = __atomic_load_n(&vq->avail->ring[vq->last_avail & (vq->size - 1)], __ATOMIC_RELAXED);
    out->count = out->readable = 0;
    out->readable_bytes = out->writable_bytes = 0;
    *why = chain_walk(vq, vm, out);
    return *why == NULL ? OK : ERR_INVALID;
}

void virtqueue_fill(struct virtqueue *vq, u16 head, u32 length)
{
    struct virtq_used_elem *element = &vq->used->ring[vq->used_idx & (vq->size - 1)];
    __atomic_store_n(&element->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&element->len, length, __ATOMIC_RELAXED);
    vq->used_idx++;
}

bool virtqueue_publish(struct virtqueue *vq)
{
    u16 before = vq->published;
    __atomic_store_n(&vq->used->idx, vq->used_idx, __ATOMIC_RELEASE);
    vq->published = vq->used_idx;
    /*
     * Full barrier: the guest writes used_event (or the flag) and then looks at used.idx; we write used.idx and then
     * look at used_event. Without it both could miss the other's store and the interrupt would be lost (2.7.7, 2.7.10).
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if ((vq->features & VIRTIO_F_EVENT_IDX) != 0)
        return virtq_need_event(__atomic_load_n(&vq->avail->ring[vq->size], __ATOMIC_RELAXED), vq->used_idx, before);
    return (__atomic_load_n(&vq->avail->flags, __ATOMIC_RELAXED) & VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
}

void virtqueue_want_kicks(struct virtqueue *vq, bool want)
{
    if ((vq->features & VIRTIO_F_EVENT_IDX) != 0) {
        /* "None" is an event half the index space away: the guest would have to add 32,768 chains to reach it. */
        u16 event = want ? vq->last_avail : (u16)(vq->last_avail + 0x8000u);
        u16 *avail_event = (u16 *)&vq->used->ring[vq->size];
        __atomic_store_n(avail_event, event, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&vq->used->flags, want ? 0 : VIRTQ_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
    }
    /* The mirror image of the barrier in virtqueue_publish(): the caller looks at avail.idx next. */
    if (want)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
