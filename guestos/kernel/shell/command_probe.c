/*
 * probe: is a page out of a driver's reach once its request is answered? The other half is a hostile driver VM that
 * shows itself as an entropy source (VirtIO 1.2 5.4): it fills the page as asked, answers, and then writes something
 * else to the same page. Only a hypervisor that takes the page back with each answer, in its tables and in everything
 * that caches them, keeps it as it is.
 */
#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/dev/virtio_pci.h"
#include "guestos/kernel/dev/virtqueue.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "shared/lib/string.h"

#define VIRTIO_ID_ENTROPY 4u
#define QUEUE 0u
#define BYTES 512u
#define BEFORE 0x11         /* in the page when it is handed out */
#define FILLED 0xa1         /* what the driver is to write: drivervm/drivers/edu/rogue_probe.c */
#define AFTER 0x33          /* what we put there when it is ours again */
#define ANSWER_US 20000000u /* the driver VM may be in the middle of dying of something else */
#define STATUS_STARTED (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK)

static struct virtio_device device;
static struct virtqueue queue;
static volatile u8 *page;
static bool found; /* the device's registers are known */

static const char *start(void)
{
    u64 features;

    found = virtio_find(VIRTIO_ID_ENTROPY, 0, &device) == OK;
    if (!found)
        return "there is no entropy device";
    if (virtio_reset(&device) != OK || virtio_negotiate(&device, VIRTIO_F_VERSION_1, &features) != OK)
        return "the device does not reset or negotiate";
    VIRTIO_COMMON_WRITE(&device, config_msix_vector, VIRTIO_MSI_NO_VECTOR);
    VIRTIO_COMMON_WRITE(&device, queue_select, QUEUE);
    VIRTIO_COMMON_WRITE(&device, queue_msix_vector,
                        VIRTIO_MSI_NO_VECTOR); /* used is looked at: one request, no hurry */
    u32 size = VIRTIO_COMMON_READ(&device, queue_size);
    if (size == 0 || size > VIRTQUEUE_MAX_SIZE || (size & (size - 1)) != 0)
        return "the device offers a queue of an impossible size";
    page = arena_alloc(PAGE_SIZE, PAGE_SIZE); /* its own: nothing that must be writable for longer is beside it */
    if (page == NULL || virtqueue_alloc(&queue, (u16)size) != OK)
        return "the I/O arena is used up";
    virtqueue_start(&queue, features);
    virtio_enable_queue(&device, (u64)queue.table, (u64)queue.avail, (u64)queue.used);
    VIRTIO_COMMON_WRITE(&device, device_status, STATUS_STARTED | VIRTIO_STATUS_DRIVER_OK);
    return NULL;
}

static const char *request(void)
{
    const struct virtqueue_part part = {(u64)page, BYTES, true};
    u64 deadline = clock_us() + ANSWER_US;
    u16 head = virtqueue_peek_head(&queue, 1);

    memset((void *)page, BEFORE, PAGE_SIZE);
    virtqueue_add(&queue, head, &part, 1, NULL);
    if (virtqueue_must_notify(&queue))
        virtio_notify(&device, (u16)VIRTIO_COMMON_READ(&device, queue_notify_off), QUEUE);
    while (virtqueue_pending(&queue) == 0) {
        if (clock_us() >= deadline)
            return "no answer";
        if (!console_sleep(1000))
            return "interrupted";
    }
    struct virtq_used_elem used = virtqueue_next_used(&queue);
    if (used.id != head || used.len != BYTES)
        return "the answer has a wrong name or length";
    return NULL;
}

/* Every byte of [from, to) has this value. */
static bool page_is(u32 from, u32 to, u8 value)
{
    for (u32 i = from; i < to; i++)
        if (page[i] != value)
            return false;
    return true;
}

static const char *watch(u64 us)
{
    u64 deadline = clock_us() + us;

    memset((void *)page, AFTER, PAGE_SIZE);
    do {
        if (!console_sleep(10000))
            return "interrupted";
        if (!page_is(0, PAGE_SIZE, AFTER))
            return "the page changed after its request was answered";
    } while (clock_us() < deadline);
    return NULL;
}

int command_probe(struct args *args)
{
    u64 seconds = 2, mark = arena_mark();

    if (!args_check(args, 0, 1))
        return SHELL_USAGE;
    if (args->count == 1 && (!args_number(args, 0, &seconds) || seconds > 3600)) {
        console_print("usage: %s\n", args->usage);
        return SHELL_USAGE;
    }
    const char *wrong = start();
    if (wrong == NULL)
        wrong = request();
    if (wrong == NULL && !page_is(0, BYTES, FILLED))
        wrong = "the driver did not fill what it was given";
    if (wrong == NULL && !page_is(BYTES, PAGE_SIZE, BEFORE))
        wrong = "the driver wrote beyond what it was given";
    if (wrong == NULL)
        wrong = watch(seconds * 1000000);
    /* Reset first: until then the device may use what is given back here. A device that does not reset keeps it. */
    if (found && virtio_reset(&device) == OK)
        arena_release(mark);
    if (wrong == NULL)
        console_print("probe: ok, the page stayed as it was for %llu s\n", (unsigned long long)seconds);
    else
        console_print("probe: FAILED: %s\n", wrong);
    return wrong == NULL ? SHELL_OK : SHELL_FAILED;
}
