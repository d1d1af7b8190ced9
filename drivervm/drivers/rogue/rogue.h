/*
 * A driver VM written to break out (docs/HOSTILE.md). The VM's name says which group of attempts it makes; generation 0
 * only offers its device and waits (but that of `first`, whose attempt only it can make), and each generation after it
 * makes one attempt, the next in the group's table. So
 * an attempt that ends the VM needs nothing to be remembered, and what ended which one is read off the fault records.
 * After the last one it is a driver like any other, which shows that none of them did lasting harm.
 *
 * Groups run on QEMU's `edu` device (its DMA engine goes wherever it is told), `msix` on any device with an MSI-X
 * table. Where an attempt needs requests of the guest to lie about, the VM shows a disk of DISK_SECTORS in its own RAM.
 *
 * Log lines, for whoever reads the event log:
 *   rogue: <attempt> attacks: <invariant>    before it
 *   rogue: <attempt>: <what came of it>      after it, if there is an after
 *   rogue: <attempt>: over                   the VM survived it and gives up on itself to make room for the next
 *   rogue: <group> has made <n> attempts     after the last
 */
#pragma once

#include "drivervm/runtime/runtime.h"

enum rogue_when {
    ROGUE_BEFORE_OFFER,
    ROGUE_AFTER_OFFER,
    ROGUE_WITH_REQUEST,  /* once the driver holds a request of the guest: it may be all that the guest asks for */
    ROGUE_WITH_REQUESTS, /* once the driver holds two requests of the guest */
    ROGUE_WITH_WRITE,    /* once it holds one that is a write */
};

struct rogue_attempt {
    const char *name;
    const char *invariant; /* what must hold in spite of it */
    void (*run)(void);
    enum rogue_when when;
};

struct rogue_group {
    const char *name; /* of the VM */
    const struct rogue_attempt *attempts;
    u32 count;
    bool is_disk; /* what it shows to the guest; else a source of entropy, of which nobody asks anything */
};
#define ROGUE_GROUP(group, table, disk)                                                                                \
    {                                                                                                                  \
        .name = (group), .attempts = (table), .count = ARRAY_SIZE(table), .is_disk = (disk)                            \
    }

extern const struct rogue_group rogue_cpu_groups[2], rogue_device_groups[3], rogue_call_groups[4], rogue_ring_groups[3];

/* "rogue: <attempt>: <text>" to the event log. */
void rogue_say(const char *format, ...) PRINTF_LIKE(1, 2);

/* Log what a call that has to be refused has answered. */
void rogue_call_result(const char *what, i64 result);

/* ---- the disk, disk.c ---- */

#define DISK_SECTORS 512u
#define DISK_HELD 64u

struct disk_request {
    struct ring *ring;
    u16 tag;
    u16 segments;
    u32 readable, written; /* bytes that a driver may claim to have written: of the writable segments */
    struct ring_segment_cell segment[RING_MAX_SEGMENTS];
};
extern struct disk_request disk_held[DISK_HELD];
extern u32 disk_held_count;

extern const struct driver_offer disk_offer;
void disk_take(struct ring *ring, const struct ring_header_cell *header);

/* Do what it asks for (no completion yet). */
void disk_execute(const struct disk_request *request);

/* Execute and complete all that are held: the newest first where reversed. */
void disk_serve(bool reversed);

/* The first of the held ones that is a write: its data may be read by the driver, and no more. NULL: none. */
const struct disk_request *disk_find_write(void);

/* Hand over what was completed. */
void disk_deliver(void);

/* ---- the device, edu.c ---- */

#define EDU_TRANSFER 512u /* bytes of one DMA */

/* Bus master on, and a look at what it is. False, with a line in the log: it is no edu device. */
NODISCARD bool edu_open(void);

/* Start a transfer between memory and the device's buffer and come back; QEMU's takes 100 ms to begin it. */
void edu_start(u64 address, bool to_memory, u32 bytes);
/* Until it is over; false: never. Asleep meanwhile: requests of the guest come and are granted. */
NODISCARD bool edu_finish(void);
/* The same awake, and alone. */
NODISCARD bool edu_finish_awake(void);
/* Both, with `value` in the device's buffer before a write. */
void edu_write(u64 address, u8 value);

void edu_raise_interrupt(u32 count);
bool edu_is_there(void);
bool edu_is_busy(void);
