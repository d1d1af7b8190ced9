/*
 * A model of an IDE controller: two channels with two places each, in one of them the disk. It behaves as ATA-6 says,
 * switches let it misbehave, and a rule that the driver breaks fails the test: registers written to a busy device, a
 * status looked at too early, data moved that nobody asked for, a place that holds no disk disturbed. For
 * drivervm_ata_pio_test.c alone.
 */
#pragma once

#include "drivervm/drivers/ata_pio/regs.h"
#include "tests/unit/drivervm_disk_guest.h"

#define EARLY_LOOKS 3u /* the status of before shows so often after a command, at 100 ns each (9.x HI4) */

enum ide_content { IDE_EMPTY, IDE_DISK, IDE_PACKET, IDE_STUCK };

struct ide_device {
    enum ide_content content;
    u8 status, error;
    u8 reg[8], before[8]; /* task file, and the bytes written before (6.2.1) */
    u8 multiple;          /* sectors of a block; 0: not set */
    /* the command in hand */
    u8 code;
    bool write, last_look;
    u32 resetting; /* so many looks until the reset is over */
    u64 lba;
    u32 sectors; /* left */
    u32 block;   /* of these, in the block under way */
    u32 moved;   /* bytes of it */
    u8 buffer[ATA_MAX_BLOCK * 512];
};

static struct ide_channel {
    struct ide_device device[2];
    u8 selected, control;
    bool interrupt; /* INTRQ of the selected device */
    u32 early;      /* looks at the status that still show the past */
    u64 srst_at, settled_at;
} ide[2];

static struct {
    /* switches */
    u64 bad_sector, defect_sector; /* ERR there, DF there */
    u64 silent_sector;             /* no answer any more from there on */
    bool data_with_error, multiple_refused, dies_in_reset, floats_low, ends_early, wants_more, loses_interrupts;
    u32 slow; /* work that is to be done before the device is ready once more: of 1 .. slow */
    /* what happened */
    u32 work; /* of that, left */
    u32 resets, flushes, flushes_ext, short_commands, long_commands, multiples, edges, silent_polls, guard_polls;
    bool mute; /* the device has fallen silent */
    bool edge; /* an interrupt that the driver was not told of yet */
} ide_world;
static struct random ide_random;

static const u16 command_base[2] = {0x1f0, 0x170}, control_port[2] = {0x3f6, 0x376};

static struct ide_device *device_selected(struct ide_channel *channel)
{
    return &channel->device[channel->selected];
}

static void set_interrupt(struct ide_channel *channel)
{
    if (!channel->interrupt && !(channel->control & CONTROL_NIEN) && !ide_world.loses_interrupts) {
        ide_world.edge = true;
        ide_world.edges++;
    }
    channel->interrupt = true;
}

static void be_busy(struct ide_device *device)
{
    device->status = STATUS_DRDY | STATUS_BSY;
    ide_world.work = (u32)random_between(&ide_random, 1, ide_world.slow);
}

static void end_command(struct ide_channel *channel, struct ide_device *device, u8 status, u8 error, bool interrupt)
{
    device->status = STATUS_DRDY | status;
    device->error = error;
    device->code = 0;
    if (interrupt)
        set_interrupt(channel);
}

/* ---- transfers ---- */

static u32 block_of(const struct ide_device *device)
{
    bool multiple = device->code == ATA_READ_MULTIPLE || device->code == ATA_READ_MULTIPLE_EXT ||
                    device->code == ATA_WRITE_MULTIPLE || device->code == ATA_WRITE_MULTIPLE_EXT;
    u32 block = multiple ? device->multiple : 1;

    return block < device->sectors ? block : device->sectors;
}

static bool block_holds(const struct ide_device *device, u64 sector)
{
    return sector >= device->lba && sector < device->lba + device->block;
}

/* A block's data lies on the medium or comes from there; an error ends the command. */
static bool medium_fails(struct ide_channel *channel, struct ide_device *device)
{
    if (block_holds(device, ide_world.bad_sector))
        end_command(channel, device, STATUS_ERR | (ide_world.data_with_error ? STATUS_DRQ : 0), 0x40, true);
    else if (block_holds(device, ide_world.defect_sector))
        end_command(channel, device, STATUS_DF, 0, true);
    else
        return false;
    return true;
}

static void offer_block(struct ide_channel *channel, struct ide_device *device, bool interrupt)
{
    device->block = block_of(device);
    device->moved = 0;
    ide_world.mute = block_holds(device, ide_world.silent_sector);
    if (ide_world.mute)
        return;
    if (!device->write && device->code != ATA_IDENTIFY_DEVICE) {
        if (medium_fails(channel, device))
            return;
        for (u32 i = 0; i < device->block; i++)
            memcpy(device->buffer + i * 512, disk_data + (device->lba + i) % DISK_SECTORS * 512, 512);
    }
    device->status = STATUS_DRDY | STATUS_DRQ;
    if (interrupt)
        set_interrupt(channel);
}

/* What was received is on the medium now. */
static void store_block(struct ide_channel *channel, struct ide_device *device)
{
    if (medium_fails(channel, device))
        return;
    for (u32 i = 0; i < device->block; i++)
        memcpy(disk_data + (device->lba + i) % DISK_SECTORS * 512, device->buffer + i * 512, 512);
    device->lba += device->block;
    device->sectors -= device->block;
    if (device->sectors == 0 || ide_world.ends_early)
        end_command(channel, device, 0, 0, true);
    else
        offer_block(channel, device, true);
}

/* The device gets one thing done, if it has one to do. */
static void device_works(struct ide_channel *channel)
{
    struct ide_device *device = device_selected(channel);

    if (!(device->status & STATUS_BSY) || device->resetting > 0 || device->content != IDE_DISK || ide_world.mute ||
        channel->early > 0 || --ide_world.work > 0)
        return;
    if (device->last_look) { /* after a read's last block: no interrupt (9.5) */
        device->last_look = false;
        end_command(channel, device, ide_world.wants_more ? STATUS_DRQ : 0, 0, false);
    } else if (device->write && device->block > 0) {
        store_block(channel, device);
    } else if (device->write) {
        offer_block(channel, device, false); /* the first block is asked for without an interrupt (9.6) */
    } else if (device->sectors > 0) {
        offer_block(channel, device, true);
    } else {
        end_command(channel, device, 0, 0, true);
    }
}

static void after_block(struct ide_channel *channel, struct ide_device *device)
{
    channel->early = 1; /* 9.5, 9.6: the status follows one cycle later */
    if (device->write) {
        be_busy(device);
        return;
    }
    device->lba += device->block;
    device->sectors -= device->block;
    device->last_look = device->sectors == 0 || ide_world.ends_early;
    be_busy(device);
}

static struct ide_channel *channel_of_data(u16 port)
{
    struct ide_channel *channel = port == command_base[0] ? &ide[0] : &ide[1];

    assert_true(port == command_base[0] || port == command_base[1]);
    assert_int_equal(channel->early, 0);
    assert_int_equal(device_selected(channel)->status & (STATUS_BSY | STATUS_DRQ), STATUS_DRQ);
    return channel;
}

static void read_data(u16 port, void *to, u32 bytes)
{
    struct ide_channel *channel = channel_of_data(port);
    struct ide_device *device = device_selected(channel);

    assert_false(device->write);
    assert_true(bytes > 0 && device->moved + bytes <= device->block * 512);
    memcpy(to, device->buffer + device->moved, bytes);
    device->moved += bytes;
    if (device->moved == device->block * 512)
        after_block(channel, device);
}

static void write_data(u16 port, const void *from, u32 bytes)
{
    struct ide_channel *channel = channel_of_data(port);
    struct ide_device *device = device_selected(channel);

    assert_true(device->write);
    assert_true(bytes > 0 && device->moved + bytes <= device->block * 512);
    memcpy(device->buffer + device->moved, from, bytes);
    device->moved += bytes;
    if (device->moved == device->block * 512)
        after_block(channel, device);
}

void port_read32s(u16 port, void *to, u32 count)
{
    if (count > 0)
        read_data(port, to, 4 * count);
}

void port_read16s(u16 port, void *to, u32 count)
{
    read_data(port, to, 2 * count);
}

void port_write32s(u16 port, const void *from, u32 count)
{
    if (count > 0)
        write_data(port, from, 4 * count);
}

void port_write16s(u16 port, const void *from, u32 count)
{
    write_data(port, from, 2 * count);
}

/* ---- commands ---- */

static void take_address(struct ide_device *device, bool ext)
{
    const u8 *now = device->reg, *before = device->before;

    assert_true(now[ATA_DEVICE] & DEVICE_LBA);
    device->lba = now[ATA_LBA_LOW] | (u64)now[ATA_LBA_MID] << 8 | (u64)now[ATA_LBA_HIGH] << 16;
    device->sectors = now[ATA_COUNT];
    if (ext) {
        device->lba |=
            (u64)before[ATA_LBA_LOW] << 24 | (u64)before[ATA_LBA_MID] << 32 | (u64)before[ATA_LBA_HIGH] << 40;
        device->sectors |= (u32)before[ATA_COUNT] << 8;
        ide_world.long_commands++;
    } else {
        device->lba |= (u64)(now[ATA_DEVICE] & 0xf) << 24;
        ide_world.short_commands++;
    }
    if (device->sectors == 0)
        device->sectors = ext ? 65536 : 256;
    u64 capacity = ext ? identity[100] | (u64)identity[101] << 16 | (u64)identity[102] << 32
                       : identity[60] | (u64)identity[61] << 16;
    assert_true(device->lba + device->sectors <= capacity);
}

static void run_transfer(struct ide_channel *channel, struct ide_device *device, bool write, bool ext, bool multiple)
{
    if (multiple)
        assert_true(device->multiple > 0);
    ide_world.multiples += multiple;
    device->write = write;
    take_address(device, ext);
    be_busy(device);
    if (write && random_one_in(&ide_random, 2)) /* asks for data at once, or takes a while */
        offer_block(channel, device, false);
}

static void run_command(struct ide_channel *channel, struct ide_device *device, u8 code)
{
    device->code = code;
    device->write = device->last_look = false;
    device->sectors = device->block = 0;
    device->error = 0;
    be_busy(device);
    switch (code) {
    case ATA_READ_SECTORS:
        return run_transfer(channel, device, false, false, false);
    case ATA_READ_SECTORS_EXT:
        return run_transfer(channel, device, false, true, false);
    case ATA_READ_MULTIPLE:
        return run_transfer(channel, device, false, false, true);
    case ATA_READ_MULTIPLE_EXT:
        return run_transfer(channel, device, false, true, true);
    case ATA_WRITE_SECTORS:
        return run_transfer(channel, device, true, false, false);
    case ATA_WRITE_SECTORS_EXT:
        return run_transfer(channel, device, true, true, false);
    case ATA_WRITE_MULTIPLE:
        return run_transfer(channel, device, true, false, true);
    case ATA_WRITE_MULTIPLE_EXT:
        return run_transfer(channel, device, true, true, true);
    case ATA_IDENTIFY_DEVICE:
        memcpy(device->buffer, identity, 512);
        device->sectors = 1;
        return;
    case ATA_SET_MULTIPLE_MODE:
        assert_true(device->reg[ATA_COUNT] <= (identity[47] & 0xff));
        if (ide_world.multiple_refused)
            return end_command(channel, device, STATUS_ERR, 0x04, true);
        device->multiple = device->reg[ATA_COUNT];
        return;
    case ATA_FLUSH_CACHE:
        ide_world.flushes++;
        return;
    case ATA_FLUSH_CACHE_EXT:
        ide_world.flushes_ext++;
        return;
    default:
        fail_msg("command %02x", code);
    }
}

/* ---- registers ---- */

static void reset_device(struct ide_device *device)
{
    enum ide_content content = device->content;

    ide_world.mute = false;
    memset(device, 0, sizeof(*device));
    device->content = content;
    device->reg[ATA_COUNT] = device->reg[ATA_LBA_LOW] = 1; /* 9.12 */
    if (content == IDE_PACKET) {
        device->reg[ATA_LBA_MID] = SIGNATURE_ATAPI_MID;
        device->reg[ATA_LBA_HIGH] = SIGNATURE_ATAPI_HIGH;
    }
    if (content == IDE_EMPTY)
        return;
    device->status = STATUS_BSY;
    if (content != IDE_STUCK && !ide_world.dies_in_reset)
        device->resetting = (u32)random_between(&ide_random, 1, 12);
}

static bool channel_is_empty(const struct ide_channel *channel)
{
    return channel->device[0].content == IDE_EMPTY && channel->device[1].content == IDE_EMPTY;
}

static void write_control(struct ide_channel *channel, u8 value)
{
    bool before = channel->control & CONTROL_SRST, after = value & CONTROL_SRST;

    channel->control = value;
    if (after && !before) {
        channel->srst_at = now_us;
    } else if (before && !after) {
        assert_true(now_us - channel->srst_at >= 5);
        channel->settled_at = now_us + 2000;
        channel->selected = 0;
        channel->interrupt = false;
        channel->early = 0;
        ide_world.resets++;
        for (u32 d = 0; d < 2; d++)
            reset_device(&channel->device[d]);
    }
}

static u8 read_status(struct ide_channel *channel, bool look_only)
{
    struct ide_device *device = device_selected(channel);

    assert_true(now_us >= channel->settled_at);
    assert_false(channel->control & CONTROL_SRST);
    if (channel_is_empty(channel))
        return ide_world.floats_low ? 0x7f : 0xff;
    if (channel->early > 0) { /* not to be believed, and not to be taken for an answer */
        assert_true(look_only);
        channel->early--;
        return STATUS_DRDY | (random_one_in(&ide_random, 2) ? STATUS_DRQ : 0);
    }
    u8 status = device->status;
    for (u32 d = 0; d < 2; d++) {
        struct ide_device *each = &channel->device[d];
        if (each->resetting > 0 && --each->resetting < 6) /* first no longer busy, then ready */
            each->status = each->content == IDE_DISK ? 0x10 | (each->resetting ? 0 : STATUS_DRDY) : 0;
    }
    if (device->content == IDE_STUCK || ide_world.mute || ide_world.dies_in_reset)
        now_us += 1000; /* nothing will happen, so time may fly */
    if (!look_only)
        channel->interrupt = false;
    if (channel->control & CONTROL_NIEN || !info.interrupts) /* time passes for whoever polls */
        device_works(channel);
    return status;
}

static void write_command_block(struct ide_channel *channel, u32 reg, u8 value)
{
    struct ide_device *device = device_selected(channel);

    assert_int_equal(channel->early, 0);
    assert_int_equal(device->status & (STATUS_BSY | STATUS_DRQ), 0); /* 7.7: not even a selection */
    if (reg == ATA_COMMAND) {
        assert_int_equal(device->content, IDE_DISK);
        assert_true(device->status & STATUS_DRDY);
        channel->early = EARLY_LOOKS;
        channel->interrupt = false;
        run_command(channel, device, value);
        return;
    }
    for (u32 d = 0; d < 2; d++) { /* both devices listen */
        channel->device[d].before[reg] = channel->device[d].reg[reg];
        channel->device[d].reg[reg] = value;
    }
    if (reg == ATA_DEVICE && (value >> 4 & 1) != channel->selected) {
        channel->selected = value >> 4 & 1;
        channel->early = EARLY_LOOKS;
    }
}

void port_write8(u16 port, u8 value)
{
    for (u32 c = 0; c < 2; c++) {
        if (port == control_port[c])
            return write_control(&ide[c], value);
        if (port > command_base[c] && port < command_base[c] + 8)
            return write_command_block(&ide[c], port - command_base[c], value);
    }
    fail_msg("write of %02x to port %x", value, port);
}

u8 port_read8(u16 port)
{
    for (u32 c = 0; c < 2; c++) {
        struct ide_device *device = device_selected(&ide[c]);
        u32 reg = (u32)(port - command_base[c]);
        if (port == control_port[c])
            return read_status(&ide[c], true);
        if (port == command_base[c] + ATA_STATUS)
            return read_status(&ide[c], false);
        if (port == command_base[c] + ATA_ERROR)
            return device->error;
        if (port > command_base[c] && port < command_base[c] + 8) /* device 0 answers for an absent device 1 */
            return device->content == IDE_EMPTY ? ide[c].device[0].reg[reg] : device->reg[reg];
    }
    fail_msg("read of port %x", port);
    return 0;
}

u32 mmio_read32(u64 address)
{
    fail_msg("read of memory at %llx", (unsigned long long)address);
    return 0;
}

/* ---- the loop's view ---- */

static bool someone_works(void)
{
    return !ide_world.mute && ((device_selected(&ide[0])->status | device_selected(&ide[1])->status) & STATUS_BSY);
}

/* With interrupts: one of them, or the time-out that the driver asked for when no interrupt is to come. */
static bool device_has_news(void)
{
    u64 timeout = driver.timeout();

    if (!info.interrupts) {
        now_us += timeout == WAIT_FOREVER ? 0 : timeout;
        return true;
    }
    if (ide_world.edge) {
        ide_world.edge = false;
        return true;
    }
    if (timeout == WAIT_FOREVER)
        return false;
    if (timeout < 1000)
        ide_world.silent_polls++;
    else if (!someone_works())
        ide_world.guard_polls++; /* an interrupt got lost, or the device */
    else
        return false;
    now_us += timeout;
    return true;
}

static void devices_work(void)
{
    device_works(&ide[0]);
    device_works(&ide[1]);
}
