/* The parts of the NVMe driver and their one state. Context: the driver VM's only thread. */
#pragma once

#include "drivervm/drivers/nvme/command.h"

/* What the controller reads and writes in our RAM. Queues begin at pages (PC = 1, 4.1.3). */
struct nvme_memory {
    union {
        struct nvme_command commands[NVME_ENTRIES];
        u8 commands_pages[3 * PAGE_SIZE];
    };
    union {
        struct nvme_completion completions[NVME_ENTRIES];
        u8 completions_page[PAGE_SIZE];
    };
    union {
        struct nvme_command admin_commands[NVME_ADMIN_ENTRIES];
        u8 admin_commands_page[PAGE_SIZE];
    };
    union {
        struct nvme_completion admin_completions[NVME_ADMIN_ENTRIES];
        u8 admin_completions_page[PAGE_SIZE];
    };
    u8 identify[PAGE_SIZE]; /* data of IDENTIFY lands here */
    struct nvme_slot slot[NVME_DEPTH];
};
_Static_assert(offsetof(struct nvme_memory, identify) == 6 * PAGE_SIZE, "NVMe 4.1.3");
_Static_assert(offsetof(struct nvme_memory, slot) % PAGE_SIZE == 0, "NVMe 4.3");

/* A submission queue and the completion queue that belongs to it alone. */
struct nvme_queue {
    struct nvme_command *commands;
    struct nvme_completion *completions;
    u64 tail_doorbell; /* of the submission queue */
    u64 head_doorbell; /* of the completion queue */
    u32 entries;
    u32 tail;
    u32 head;
    u32 phase; /* that a new completion has */
};

/*
 * At most entries - 1 commands may be out: then the tail never meets an entry that the controller has not fetched.
 * queue_next: the next completion, copied once; false: there is none. queue_release: those looked at may be
 * overwritten.
 */
void queue_submit(struct nvme_queue *queue, const struct nvme_command *command);
NODISCARD bool queue_next(struct nvme_queue *queue, struct nvme_completion *completion);
void queue_release(struct nvme_queue *queue);

/* Run one admin command, polling. ERR_IO: the controller says error; ERR_TIMEOUT; ERR_FORMAT: not the answer to it. */
NODISCARD status_t admin_run(struct nvme_queue *admin, struct nvme_command *command);
