/* Queues: submission and completion (NVMe 1.4 4.1, 7.2), and admin commands one at a time. */
#include "drivervm/drivers/nvme/nvme.h"
#include "drivervm/runtime/io.h"

#define ADMIN_US 1000000u /* an identify, or a queue: none touches the medium */

void queue_submit(struct nvme_queue *queue, const struct nvme_command *command)
{
    queue->commands[queue->tail] = *command;
    queue->tail = queue->tail + 1 == queue->entries ? 0 : queue->tail + 1;
    mmio_write32(queue->tail_doorbell, queue->tail);
}

bool queue_next(struct nvme_queue *queue, struct nvme_completion *completion)
{
    const struct nvme_completion *entry = &queue->completions[queue->head];
    /* Acquire: the phase is written last (4.6), so what it belongs to is there, and so is the data. */
    u16 status = __atomic_load_n(&entry->status, __ATOMIC_ACQUIRE);

    if ((status & STATUS_PHASE) != queue->phase)
        return false;
    completion->status = status;
    completion->id = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
    queue->head++;
    if (queue->head == queue->entries) {
        queue->head = 0;
        queue->phase ^= STATUS_PHASE;
    }
    return true;
}

void queue_release(struct nvme_queue *queue)
{
    mmio_write32(queue->head_doorbell, queue->head);
}

status_t admin_run(struct nvme_queue *admin, struct nvme_command *command)
{
    struct nvme_completion completion;

    command->id = (u16)admin->tail; /* another than the one before had */
    queue_submit(admin, command);
    for (struct device_wait wait = device_wait_begin(ADMIN_US); !queue_next(admin, &completion);)
        if (!device_wait_more(&wait))
            return ERR_TIMEOUT;
    queue_release(admin);
    if (completion.id != command->id)
        return ERR_FORMAT;
    return STATUS_CODE(completion.status) == 0 ? OK : ERR_IO;
}
