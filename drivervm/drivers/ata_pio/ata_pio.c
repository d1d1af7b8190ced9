/*
 * An ATA disk on an IDE channel, by programmed I/O alone (ATA-6). The CPU moves every word between the data port and
 * the guest's pages, so neither device nor driver needs DMA: bus mastering stays off, and nested paging and the I/O
 * bitmap confine both of them completely on a machine without an IOMMU.
 *
 * One disk, the first one found, and after a restart the same one. Whatever ran before us, firmware or a predecessor in
 * the middle of a transfer, ends with the software reset.
 *
 * One command at a time. The device raises its interrupt for each data block of `block` sectors:
 *
 *   IDLE --submit read--> BUSY <--block in--+       left counts down; at 0 the status is looked at once more,
 *    ^                     | '--------------'       for which no interrupt comes (9.5)
 *    |   --submit write--> BUSY --block out--+      the first block is asked for without an interrupt (9.6);
 *    |                     |  ^-------------'       after the last one the device says when it has all of it
 *    |   --submit flush--> BUSY
 *    +----- not BSY, no DRQ, nothing left: done
 *    +----- ERR, DF, DRQ out of step, no answer: the I/O fails, and a reset if the device is not clean
 */
#include "drivervm/drivers/ata/identity.h"
#include "drivervm/drivers/ata_pio/channel.h"
#include "drivervm/runtime/blk.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define CHANNELS 2u
#define IO_US 10000000u    /* one block of a command; a disk may have to spin up first */
#define FLUSH_US 60000000u /* 8.10: "may take more than 30 s" */
#define SET_US 500000u
/* A status for which no interrupt comes is there within microseconds, or not soon: about one exit's worth of looking.
 */
#define BRIEF_US 20u
#define SILENT_US 50u   /* then look again after so long */
#define GUARD_US 20000u /* an interrupt may get lost: it is an edge */

/* What a successor must know: which disk the guest has been using. */
struct ata_stash {
    u32 position; /* 2 * channel + device */
    char serial[20];
};

static struct {
    struct ata_channel channel;
    u32 position;
    struct ata_identity identity;
    u32 block;              /* sectors of a data block */
    struct blk_io *io;      /* the command that the device is at; NULL: none */
    u32 left;               /* bytes of it to move */
    struct blk_piece piece; /* memory for the next of them */
    bool silent;            /* no interrupt announces what comes next */
    u64 deadline;           /* for it */
} ata;

static const char *const position_name[] = {"primary master", "primary slave", "secondary master", "secondary slave"};

/* ---- bring-up ---- */

/* Choose a place. False: the platform gave us no such channel. */
static bool select_position(u32 position)
{
    const struct driver_bar *command = &driver_info->bar[position & ~1u], *control = command + 1;

    if (command->kind != DRIVER_BAR_PORTS || control->kind != DRIVER_BAR_PORTS || command->size < ATA_PORTS ||
        control->size == 0)
        return false;
    ata.position = position;
    ata.channel = (struct ata_channel){
        .command = (u16)command->address, .control = (u16)control->address, .device = position % 2};
    return true;
}

static bool reset(void)
{
    bool ready = channel_reset(&ata.channel);

    if (!ready)
        log_line("ata_pio: the channel of the %s stays busy, status %02x", position_name[ata.position],
                 channel_status(&ata.channel));
    return ready;
}

/* Is there a disk at the selected place? */
static bool probe(void)
{
    enum ata_kind kind = channel_probe(&ata.channel);

    if (kind == ATA_KIND_PACKET)
        log_line("ata_pio: %s: an ATAPI device, passed over", position_name[ata.position]);
    else if (kind == ATA_KIND_STUCK)
        log_line("ata_pio: %s: never ready, status %02x", position_name[ata.position], channel_status(&ata.channel));
    return kind == ATA_KIND_DISK;
}

static status_t find_disk(void)
{
    bool usable = false;

    for (u32 position = 0; position < 2 * CHANNELS; position++) {
        if (!select_position(position))
            continue;
        if (position % 2 == 0)
            usable = reset();
        if (usable && probe())
            return OK;
    }
    log_line("ata_pio: no ATA disk on any channel");
    return ERR_NOT_FOUND;
}

/* After a restart: only the disk that the guest knows will do. */
static status_t find_same_disk(const struct ata_stash *stash)
{
    if (stash->position >= 2 * CHANNELS || !select_position(stash->position))
        return ERR_NOT_FOUND;
    return reset() && probe() ? OK : ERR_NOT_FOUND;
}

/* The largest block that both sides can do; a reset may have undone it (8.41). One sector where the disk refuses. */
static void choose_block(void)
{
    u32 block = 1;

    while (block < ATA_MAX_BLOCK && 2 * block <= ata.identity.block)
        block *= 2;
    const struct ata_command set = {.code = ATA_SET_MULTIPLE_MODE, .count = (u16)block};
    ata.block = block > 1 && channel_run(&ata.channel, &set, SET_US) == OK ? block : 1;
}

static status_t identify(void)
{
    u16 words[256];
    status_t status = channel_identify(&ata.channel, words);

    if (status == OK)
        status = ata_parse_identity(words, &ata.identity);
    if (status != OK)
        return status;
    if (!ata.identity.flush && !ata.identity.flush_ext) /* 8.10: mandatory; without it no write would be safe */
        return ERR_UNSUPPORTED;
    choose_block();
    return OK;
}

static status_t find_and_identify(void)
{
    struct ata_stash now = {0}, before;
    bool predecessor = stash_load(&before, sizeof(before));
    status_t status = predecessor ? find_same_disk(&before) : find_disk();

    if (status == OK)
        status = identify();
    if (status != OK)
        return status;
    now.position = ata.position;
    memcpy(now.serial, ata.identity.serial, sizeof(now.serial));
    if (predecessor && memcmp(now.serial, before.serial, sizeof(now.serial)) != 0)
        return ERR_STATE; /* somebody swapped the disk */
    return stash_save(&now, sizeof(now));
}

static void describe(struct blk_disk *disk)
{
    disk->sectors = ata.identity.sectors;
    disk->physical_block_exp = ata.identity.physical_block_exp;
    disk->alignment_offset = ata.identity.alignment_offset;
    memcpy(disk->id, ata.identity.serial, sizeof(disk->id));
    disk->limits = (struct blk_limits){.depth = 1,
                                       .max_pieces = RING_MAX_SEGMENTS,
                                       .max_piece = ATA_MAX_SECTORS * VIRTIO_BLK_SECTOR,
                                       .max_bytes = ATA_MAX_SECTORS * VIRTIO_BLK_SECTOR,
                                       .alignment = 2}; /* the data port moves words */
}

static status_t start(struct blk_disk *disk)
{
    u64 began = tsc_read();
    status_t status = pci_command(PCI_COMMAND_IO, PCI_COMMAND_MASTER);

    if (status == OK)
        status = find_and_identify();
    if (status != OK)
        return status;
    describe(disk);
    channel_set_interrupts(&ata.channel, driver_info->interrupts);
    log_line("ata_pio: %s, %s, %llu sectors, LBA%u, blocks of %u, ready after %llu us", position_name[ata.position],
             ata.identity.model, (unsigned long long)disk->sectors, ata.identity.lba48 ? 48 : 28, ata.block,
             (unsigned long long)microseconds_since(began));
    return OK;
}

/* ---- work ---- */

static void set_patience(bool silent)
{
    ata.silent = silent || !driver_info->interrupts;
    ata.deadline = deadline_after(ata.io->op == BLK_FLUSH ? FLUSH_US : IO_US);
}

static void end_io(bool ok)
{
    struct blk_io *io = ata.io;

    ata.io = NULL;
    blk_io_done(io, ok);
}

/* The I/O failed. A device that is not idle is reset, which also takes it out of a half-moved block. */
static void fail_io(const char *what, u8 status)
{
    u8 error = status & STATUS_ERR ? channel_read(&ata.channel, ATA_ERROR) : 0;

    log_line("ata_pio: I/O error at sector %llu, %u bytes: %s, status %02x error %02x", (unsigned long long)ata.io->lba,
             ata.io->bytes, what, status, error);
    if (status & (STATUS_BSY | STATUS_DRQ | STATUS_DF)) {
        if (!reset() || !probe())
            driver_fault(DRIVER_FAULT_DEVICE, status);
        choose_block();
        channel_set_interrupts(&ata.channel, driver_info->interrupts);
    }
    end_io(false);
}

/* Move the data block that the device asks for, through however many pieces it takes. */
static void move_block(void)
{
    u32 room = ata.block * VIRTIO_BLK_SECTOR;

    if (room > ata.left)
        room = ata.left;
    ata.left -= room;
    while (room > 0) {
        if (ata.piece.length == 0)
            DRIVER_CHECK(blk_next_piece(ata.io, &ata.piece));
        u32 bytes = room < ata.piece.length ? room : ata.piece.length;
        if (ata.io->op == BLK_READ)
            channel_read_data(&ata.channel, (void *)ata.piece.address, bytes);
        else
            channel_write_data(&ata.channel, (const void *)ata.piece.address, bytes);
        ata.piece.address += bytes;
        ata.piece.length -= bytes;
        room -= bytes;
    }
    ring_heartbeat(&driver_rings[0]);
    channel_status(&ata.channel); /* 9.5, 9.6: the status is that of after the transfer one cycle later */
}

/* The device was not busy: do what it wants. False: it changed its mind. */
static bool step(void)
{
    u8 status = channel_read(&ata.channel, ATA_STATUS);
    bool wants_data = status & STATUS_DRQ;

    if (status & STATUS_BSY)
        return false;
    if (status & (STATUS_ERR | STATUS_DF)) {
        fail_io("the disk says so", status);
    } else if (wants_data != (ata.left > 0)) {
        fail_io("data out of step", status);
    } else if (wants_data) {
        move_block();
        set_patience(ata.left == 0 && ata.io->op == BLK_READ);
    } else {
        end_io(true);
    }
    return true;
}

/* Go on as far as the device does without making us wait. */
static bool advance(void)
{
    bool any = false;

    while (ata.io && channel_wait(&ata.channel, STATUS_BSY, 0, ata.silent ? BRIEF_US : 0) && step())
        any = true;
    if (ata.io && deadline_passed(ata.deadline)) {
        fail_io("no answer", channel_status(&ata.channel) | STATUS_BSY);
        any = true;
    }
    return any;
}

static u8 transfer_code(bool write, bool ext)
{
    static const u8 code[2][2][2] = {
        {{ATA_READ_SECTORS, ATA_READ_MULTIPLE}, {ATA_READ_SECTORS_EXT, ATA_READ_MULTIPLE_EXT}},
        {{ATA_WRITE_SECTORS, ATA_WRITE_MULTIPLE}, {ATA_WRITE_SECTORS_EXT, ATA_WRITE_MULTIPLE_EXT}}};

    return code[write][ext][ata.block > 1];
}

static struct ata_command command_for(const struct blk_io *io)
{
    u32 sectors = io->bytes / VIRTIO_BLK_SECTOR;
    bool ext = ata.identity.lba48 && io->lba + sectors > ATA_LBA28_LAST; /* the short form where it will do */

    if (io->op == BLK_FLUSH)
        return (struct ata_command){.code = ata.identity.flush_ext ? ATA_FLUSH_CACHE_EXT : ATA_FLUSH_CACHE};
    return (struct ata_command){
        .code = transfer_code(io->op == BLK_WRITE, ext), .ext = ext, .count = (u16)sectors, .lba = io->lba};
}

static void submit(struct blk_io *io)
{
    struct ata_command command = command_for(io);

    DRIVER_CHECK(!ata.io);
    ata.io = io;
    ata.left = io->bytes;
    ata.piece = (struct blk_piece){0};
    channel_issue(&ata.channel, &command);
    set_patience(io->op == BLK_WRITE);
    if (io->op == BLK_WRITE)
        advance();
}

static bool poll(void)
{
    if (ata.io)
        return advance();
    channel_read(&ata.channel, ATA_STATUS); /* an interrupt that came after its status was seen: take it back */
    return false;
}

static u64 timeout(void)
{
    return ata.silent ? SILENT_US : GUARD_US;
}

const struct blk_driver blk_driver = {
    .name = "ata_pio", .start = start, .submit = submit, .poll = poll, .timeout = timeout};
