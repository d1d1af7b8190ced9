#include "guestos/kernel/shell/disk_writer.h"

#include "guestos/kernel/arch/clock.h"
#include "guestos/kernel/dev/console.h"
#include "guestos/kernel/mm/arena.h"
#include "guestos/kernel/shell/commands.h"
#include "guestos/kernel/shell/shell.h"
#include "guestos/kernel/shell/stream.h"
#include "shared/lib/string.h"

#define BUFFERS 16u
#define BUFFER_SIZE ((u32)KIB(128))
#define DRAIN_US 100000u

/* Free, then filled, then in flight until its done(). */
struct buffer {
    struct blk_request request;
    struct blk_segment segment[BLK_MAX_SEGMENTS];
    u8 *data;
    bool busy;
};

static struct {
    struct blk *disk;
    struct buffer buffer[BUFFERS];
    u32 current, filled; /* the buffer that is being filled, and how far */
    u32 busy;
    u64 sector;
    bool failed, too_large;
} writer;

_Static_assert((BUFFERS - 1) * BUFFER_SIZE > 2 * DISK_WRITER_RESERVE, "tight before it is full, but not all the time");

bool disk_writer_open(struct blk *disk)
{
    memset(&writer, 0, sizeof(writer));
    writer.disk = disk;
    for (u32 i = 0; i < BUFFERS; i++) {
        writer.buffer[i].data = arena_alloc(BUFFER_SIZE, PAGE_SIZE);
        if (writer.buffer[i].data == NULL) {
            console_print("http: the I/O arena has no room\n");
            return false;
        }
    }
    return true;
}

static void on_done(struct blk_request *request)
{
    struct buffer *buffer = request->context;

    if (request->result != BLK_OK && !writer.failed)
        console_print("http: sector %llu: %s\n", (unsigned long long)request->sector,
                      stream_result_text(request->result));
    writer.failed |= request->result != BLK_OK;
    buffer->busy = false;
    writer.busy--;
}

/* The current buffer goes to the disk; its size is a multiple of the sector's. */
static void submit(void)
{
    struct buffer *buffer = &writer.buffer[writer.current];

    buffer->request =
        (struct blk_request){.type = VIRTIO_BLK_T_OUT,
                             .sector = writer.sector,
                             .segment = buffer->segment,
                             .segments = blk_cut_segments(writer.disk, buffer->data, writer.filled, buffer->segment),
                             .done = on_done,
                             .context = buffer};
    writer.too_large |= writer.sector + writer.filled / VIRTIO_BLK_SECTOR > blk_get_info(writer.disk)->sectors;
    if (writer.too_large || blk_submit(writer.disk, &buffer->request) != OK) {
        writer.failed = true;
        return;
    }
    blk_kick(writer.disk);
    buffer->busy = true;
    writer.busy++;
    writer.sector += writer.filled / VIRTIO_BLK_SECTOR;
    writer.current = (writer.current + 1) % BUFFERS;
    writer.filled = 0;
}

void disk_writer_add(const u8 *data, u32 size)
{
    while (size > 0 && !writer.failed) {
        struct buffer *buffer = &writer.buffer[writer.current];
        u32 part = size < BUFFER_SIZE - writer.filled ? size : BUFFER_SIZE - writer.filled;
        if (buffer->busy) { /* who adds did not keep the rule */
            writer.failed = true;
            return;
        }
        memcpy(buffer->data + writer.filled, data, part);
        writer.filled += part;
        data += part;
        size -= part;
        if (writer.filled == BUFFER_SIZE)
            submit();
    }
}

bool disk_writer_is_tight(void)
{
    return !writer.failed && (BUFFERS - 1 - writer.busy) * BUFFER_SIZE < DISK_WRITER_RESERVE + BUFFER_SIZE;
}

void disk_writer_drain(void)
{
    (void)blk_wait(clock_us() + DRAIN_US);
}

int disk_writer_finish(void)
{
    u32 rest = writer.filled % VIRTIO_BLK_SECTOR;

    if (rest != 0) {
        memset(writer.buffer[writer.current].data + writer.filled, 0, VIRTIO_BLK_SECTOR - rest);
        writer.filled += VIRTIO_BLK_SECTOR - rest;
    }
    if (writer.filled != 0 && !writer.failed)
        submit();
    for (u64 since = clock_us(); writer.busy != 0;) {
        int waited = stream_wait("http", since);
        if (waited != SHELL_OK)
            return waited;
    }
    if (writer.too_large)
        console_print("http: %s is too small\n", blk_get_info(writer.disk)->name);
    return writer.failed ? SHELL_FAILED : command_flush(writer.disk);
}
