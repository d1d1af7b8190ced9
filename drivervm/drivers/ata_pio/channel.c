#include "drivervm/drivers/ata_pio/channel.h"
#include "drivervm/runtime/io.h"
#include "drivervm/runtime/runtime.h"

#define RESET_HOLD_US 5u      /* 9.3: SRST stays set for so long */
#define RESET_SETTLE_US 2000u /* 9.3: the status means nothing before */
/* ATA allows 31 s after a reset (9.3), for a disk that spins up. The firmware has seen to that, and the hypervisor
 * wants an offer within 2 s of our start, also when a dead device stands in front of the disk. */
#define READY_US 500000u
#define IDENTIFY_US 500000u

u8 channel_read(const struct ata_channel *channel, u32 reg)
{
    return port_read8((u16)(channel->command + reg));
}

static void write_register(const struct ata_channel *channel, u32 reg, u8 value)
{
    port_write8((u16)(channel->command + reg), value);
}

u8 channel_status(const struct ata_channel *channel)
{
    return port_read8(channel->control);
}

/* A command or a selection shows in the status after 400 ns (9.x HI4): no port access takes less than 100 ns. */
static void settle(const struct ata_channel *channel)
{
    for (u32 i = 0; i < 4; i++)
        channel_status(channel);
}

bool channel_wait(const struct ata_channel *channel, u8 mask, u8 wanted, u64 timeout_us)
{
    for (struct device_wait wait = device_wait_begin(timeout_us); (channel_status(channel) & mask) != wanted;)
        if (!device_wait_more(&wait))
            return false;
    return true;
}

void channel_set_interrupts(const struct ata_channel *channel, bool on)
{
    port_write8(channel->control, on ? 0 : CONTROL_NIEN);
}

/* Nobody drives the bus: its lines float up, the busy bit perhaps pulled down (ATA-6 annex E, DD7). */
static bool status_floats(u8 status)
{
    return status == 0xff || status == 0x7f;
}

bool channel_reset(const struct ata_channel *channel)
{
    port_write8(channel->control, CONTROL_NIEN | CONTROL_SRST);
    spin_us(RESET_HOLD_US);
    port_write8(channel->control, CONTROL_NIEN);
    spin_us(RESET_SETTLE_US);
    /* Device 0 is selected now; nothing may be written, not even a selection, while it is busy (7.7). */
    return status_floats(channel_status(channel)) || channel_wait(channel, STATUS_BSY, 0, READY_US);
}

enum ata_kind channel_probe(const struct ata_channel *channel)
{
    write_register(channel, ATA_DEVICE, (u8)DEVICE_SELECT(channel->device));
    settle(channel);
    if (status_floats(channel_status(channel)))
        return ATA_KIND_NONE;
    if (!channel_wait(channel, STATUS_BSY, 0, READY_US))
        return ATA_KIND_STUCK;
    u8 mid = channel_read(channel, ATA_LBA_MID), high = channel_read(channel, ATA_LBA_HIGH);
    if (mid == SIGNATURE_ATAPI_MID && high == SIGNATURE_ATAPI_HIGH)
        return ATA_KIND_PACKET;
    /* Device 0 answers for a device 1 that is absent: its own signature, and a status of zeros (9.16.1). */
    if (mid != 0 || high != 0 || channel_status(channel) == 0)
        return ATA_KIND_NONE;
    return channel_wait(channel, STATUS_BSY | STATUS_DRDY, STATUS_DRDY, READY_US) ? ATA_KIND_DISK : ATA_KIND_STUCK;
}

void channel_issue(const struct ata_channel *channel, const struct ata_command *command)
{
    u8 device = (u8)(DEVICE_SELECT(channel->device) | DEVICE_LBA);

    if (command->ext) { /* 6.2.1: each register keeps the byte written before the last one */
        write_register(channel, ATA_COUNT, (u8)(command->count >> 8));
        for (u32 i = 0; i < 3; i++)
            write_register(channel, ATA_LBA_LOW + i, (u8)(command->lba >> (24 + 8 * i)));
    } else {
        device |= command->lba >> 24 & 0xf;
    }
    write_register(channel, ATA_FEATURES, 0);
    write_register(channel, ATA_COUNT, (u8)command->count);
    for (u32 i = 0; i < 3; i++)
        write_register(channel, ATA_LBA_LOW + i, (u8)(command->lba >> 8 * i));
    write_register(channel, ATA_DEVICE, device);
    write_register(channel, ATA_COMMAND, command->code);
    settle(channel);
}

void channel_read_data(const struct ata_channel *channel, void *to, u32 bytes)
{
    u16 port = (u16)(channel->command + ATA_DATA);

    port_read32s(port, to, bytes / 4);
    if (bytes % 4)
        port_read16s(port, (u8 *)to + bytes - 2, 1);
}

void channel_write_data(const struct ata_channel *channel, const void *from, u32 bytes)
{
    u16 port = (u16)(channel->command + ATA_DATA);

    port_write32s(port, from, bytes / 4);
    if (bytes % 4)
        port_write16s(port, (const u8 *)from + bytes - 2, 1);
}

status_t channel_run(const struct ata_channel *channel, const struct ata_command *command, u64 timeout_us)
{
    channel_issue(channel, command);
    if (!channel_wait(channel, STATUS_BSY, 0, timeout_us))
        return ERR_TIMEOUT;
    return channel_read(channel, ATA_STATUS) & (STATUS_ERR | STATUS_DF) ? ERR_IO : OK;
}

status_t channel_identify(const struct ata_channel *channel, u16 words[256])
{
    const struct ata_command identify = {.code = ATA_IDENTIFY_DEVICE};
    status_t status = channel_run(channel, &identify, IDENTIFY_US);

    if (status != OK)
        return status;
    if (!(channel_status(channel) & STATUS_DRQ))
        return ERR_IO;
    channel_read_data(channel, words, 512);
    settle(channel);
    return channel_wait(channel, STATUS_BSY | STATUS_DRQ, 0, IDENTIFY_US) ? OK : ERR_TIMEOUT;
}
