/*
 * What is proven of the relay, and what is taken for granted: predicates, and contracts of the functions that other files
 * call. Contracts of static functions and of loops stand beside them in hv/relay. Included before each source by
 * test_proof.py; docs/PROOFS.md explains.
 */
#pragma once

#include "tests/proof/builtins.h"

#include "hv/core/hypervisor.h"
#include "hv/relay/internal.h"
#include "shared/lib/string.h"

/* ---- predicates ---- */

/*@
  // [gpa, gpa + length) lies in the VM's RAM.
  predicate in_ram(struct vm *vm, integer gpa, integer length) = 0 <= gpa && gpa + length <= vm->ram_size;

  predicate segment_holds(struct chain *c, struct vm *vm, integer i) =
      c->segment[i].length > 0 && in_ram(vm, c->segment[i].gpa, c->segment[i].length);

  // What internal.h promises of a copied chain.
  predicate chain_holds(struct chain *c, struct vm *vm) =
      c->readable <= c->count <= RING_MAX_SEGMENTS &&
      c->readable_bytes + c->writable_bytes <= 0xffffffff &&
      \forall integer i; 0 <= i < c->count ==> segment_holds(c, vm, i);

  // The three parts of an enabled queue, in bytes (VirtIO 1.2 2.7).
  predicate queue_holds(struct virtqueue *vq) =
      vq->size > 0 &&
      \valid_read(vq->desc + (0 .. 16 * vq->size - 1)) &&
      \valid_read((u8 *)vq->avail + (0 .. 4 + 2 * (vq->size + 1) - 1)) &&
      \valid((u8 *)vq->used + (0 .. 4 + 8 * vq->size + 2 - 1));

  // The log's order: tags, none twice; those in flight, and no others, come first.
  predicate tags_hold(struct inflight *l) =
      l->count <= RING_TAGS && \forall integer i; 0 <= i < RING_TAGS ==> l->order[i] < RING_TAGS;
  predicate distinct(struct inflight *l) =
      \forall integer i, j; 0 <= i < j < RING_TAGS ==> l->order[i] != l->order[j];
  predicate first_in_flight(struct inflight *l) =
      \forall integer i; 0 <= i < l->count ==> l->slot[l->order[i]].in_flight;
  predicate in_flight_first(struct inflight *l) =
      \forall integer t; 0 <= t < RING_TAGS && l->slot[t].in_flight ==>
          \exists integer i; 0 <= i < l->count && l->order[i] == t;
  predicate log_holds(struct inflight *l) =
      tags_hold(l) && distinct(l) && first_in_flight(l) && in_flight_first(l);

  // order[at] went to order[count], those between moved up, the rest stayed.
  predicate moved_up{L1, L2}(struct inflight *l, integer at, integer count) =
      0 <= at <= count < RING_TAGS &&
      (\forall integer i; 0 <= i < at || count < i < RING_TAGS ==> \at(l->order[i], L2) == \at(l->order[i], L1)) &&
      (\forall integer i; at <= i < count ==> \at(l->order[i], L2) == \at(l->order[i + 1], L1)) &&
      \at(l->order[count], L2) == \at(l->order[at], L1);

  lemma distinct_after_move{L1, L2}: \forall struct inflight *l, integer at, integer count;
      moved_up{L1, L2}(l, at, count) ==> distinct{L1}(l) ==> distinct{L2}(l);
  lemma gone_after_move{L1, L2}: \forall struct inflight *l, integer at, integer count, integer i;
      moved_up{L1, L2}(l, at, count) ==> distinct{L1}(l) ==> 0 <= i < count ==>
      \at(l->order[i], L2) != \at(l->order[at], L1);
  lemma pulled_by_move{L1, L2}: \forall struct inflight *l, integer at, integer count, integer i;
      moved_up{L1, L2}(l, at, count) ==> at < i <= count ==> \at(l->order[i - 1], L2) == \at(l->order[i], L1);
  lemma found_after_move{L1, L2}: \forall struct inflight *l, integer at, integer count, integer t;
      moved_up{L1, L2}(l, at, count) ==> (\exists integer i; 0 <= i <= count && \at(l->order[i], L1) == t) ==>
      t != \at(l->order[at], L1) ==> \exists integer i; 0 <= i < count && \at(l->order[i], L2) == t;

  predicate queue_of(struct relay *r, struct relay_queue *q) =
      \exists integer i; 0 <= i < RING_MAX_QUEUES && q == &r->queue[i];
  // What virtio_pci.c keeps true of a queue: a request is in flight only while it is enabled, or the device resets.
  predicate ring_holds(struct relay *r, struct relay_queue *q) =
      \valid(q->completions) && \valid(q->requests) && log_holds(&q->log) &&
      (q->vq.enabled != 0 ==> queue_holds(&q->vq)) &&
      (q->log.count > 0 && !r->device.resetting ==> q->vq.enabled != 0);
*/

/* ---- proven ---- */

/*@ requires \valid(vq) && \valid_read(vm);
    assigns *vq;
    ensures \result == OK ==> queue_holds(vq); */
status_t virtqueue_enable(struct virtqueue *vq, const struct vm *vm, u16 max_size, u64 features);

/*@ requires \valid_read(vq) && \valid_read(vm) && \valid(out) && \valid(why) && \separated(vq, vm, out, why);
    requires queue_holds(vq);
    assigns \result, *out, *why \from *vq, *vm;
    ensures \result == OK ==> chain_holds(out, vm); */
status_t virtqueue_next(const struct virtqueue *vq, const struct vm *vm, struct chain *out, const char **why);

/* Guest memory is no object of these proofs: what reads it reads any value. So the stores there are not assigns. */
/*@ requires \valid(vq) && queue_holds(vq); assigns vq->used_idx; */
void virtqueue_fill(struct virtqueue *vq, u16 head, u32 length);
/*@ requires \valid(vq) && queue_holds(vq); assigns \result, vq->published \from *vq; */
bool virtqueue_publish(struct virtqueue *vq);

/*@ requires \valid(log) && log->count == 0 && \forall integer t; 0 <= t < RING_TAGS ==> !log->slot[t].in_flight;
    assigns log->free_cells, log->order[0 .. RING_TAGS - 1];
    ensures log_holds(log); */
void inflight_init(struct inflight *log);

/*@ requires \valid(log) && log_holds(log);
    assigns \result \from log;
    ensures \result == \null || (log->count < RING_TAGS && \result == &log->slot[log->order[log->count]].chain); */
struct chain *inflight_draft(struct inflight *log);

/*@ requires \valid(log) && log_holds(log) && log->count < RING_TAGS;
    requires log->slot[log->order[log->count]].chain.count + 1 <= log->free_cells;
    assigns log->count, log->free_cells, log->slot[log->order[log->count]];
    ensures log_holds(log) && log->count == \old(log->count) + 1 && \result == log->order[\old(log->count)]; */
u8 inflight_add(struct inflight *log, u64 id, u64 now);

/*@ requires \valid(log) && log_holds(log) && tag < RING_TAGS && log->slot[tag].in_flight;
    assigns log->count, log->free_cells, log->order[0 .. RING_TAGS - 1], log->slot[tag].in_flight;
    ensures \exists integer at; \old(log->order[at]) == tag && moved_up{Pre, Post}(log, at, log->count);
    ensures tags_hold(log);
    ensures distinct(log);
    ensures first_in_flight(log);
    ensures in_flight_first(log);
    ensures log->count == \old(log->count) - 1 && !log->slot[tag].in_flight; */
void inflight_remove(struct inflight *log, u8 tag);

/*@ requires \valid_read(chain); assigns \result \from chain->count; ensures \result == chain->count + 1; */
static inline u32 inflight_cells(const struct chain *chain);

/*@ requires \valid(relay) && queue_of(relay, queue) && \valid_read(queue->completions);
    assigns \result, queue->consumed, relay->state \from *queue;
    ensures \result ==>
            (u32)(queue->consumed - \old(queue->consumed)) <= (u32)(queue->produced - \old(queue->consumed)); */
bool ring_take_consumed(struct relay *relay, struct relay_queue *queue);

/*@ requires \valid(relay) && queue_of(relay, queue) && ring_holds(relay, queue);
    requires \separated(relay, queue->requests);
    assigns relay->grants, relay->stats, relay->device, relay->awaits_completion, queue->requests->produced,
            queue->vq.published; */
void relay_publish(struct relay *relay, struct relay_queue *queue);

/* ---- assumed ---- */

/*@ requires \valid_read(vm);
    assigns \result \from vm, gpa, len, vm->ram, vm->ram_size;
    ensures \result == \null || (in_ram(vm, gpa.v, len) && \valid((u8 *)\result + (0 .. len - 1))); */
void *vm_ram(const struct vm *vm, gpa_t gpa, u64 len);
/*@ requires \valid_read(vm) && \valid_read((u8 *)data + (0 .. len - 1));
    assigns \result \from *vm, gpa, len;
    ensures in_ram(vm, gpa.v, len) ==> \result == OK; */
status_t vm_write(const struct vm *vm, gpa_t gpa, const void *data, u64 len);

/*@ requires \valid(relay) && \valid_read(chain); assigns relay->grants, relay->stats; */
void grants_release(struct relay *relay, const struct chain *chain);
/*@ requires \valid(relay); assigns relay->grants, relay->stats; */
void grants_settle(struct relay *relay);
/*@ requires \valid(relay); assigns relay->device; ensures relay->device.resetting == \old(relay->device.resetting); */
void device_interrupt(struct relay *relay, u16 vector, u8 isr);
/*@ requires \valid(relay); assigns relay->state; */
void relay_close(struct relay *relay);
/*@ assigns \nothing; */
void recovery_first_completion(struct driver *driver);
/*@ assigns \result \from \nothing; */
u64 tsc_now(void);

/* Functions with variable arguments, by macros: a report changes nothing of the relay, a panic must be out of reach. */
/*@ assigns \nothing; */
void proof_report(struct driver *driver, enum fault_kind kind, u64 detail, u64 address);
#define recovery_report(driver, kind, detail, address, ...) proof_report(driver, kind, detail, address)
/*@ requires \false; assigns \nothing; ensures \false; */
void proof_panic(void);
#define panic(...) proof_panic()

/* memmove() as inflight_remove() calls it: one place down. In indices of the array, which the provers can follow. */
/*@ requires to == order + at && from == to + 1;
    requires \valid(order + (at .. at + n)) && \valid_read(order + (at .. at + n));
    assigns order[at .. at + n - 1];
    ensures \forall integer i; at <= i < at + n ==> order[i] == \old(order[i + 1]); */
void proof_move_down(u8 *to, const u8 *from, size_t n, u8 *order, u32 at);
#define memmove(to, from, n) proof_move_down(to, from, n, log->order, at)
