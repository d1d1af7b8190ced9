/*
 * One IDE channel and the device selected on it: resets, commands, polled transfers (ATA-6 9.x). All of it by port I/O
 * and without interrupts; times in microseconds. Context: the driver VM's only thread. A device is never believed: each
 * wait has an end.
 */
#pragma once

#include "drivervm/drivers/ata_pio/regs.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"

struct ata_channel {
    u16 command; /* first port of the command block */
    u16 control; /* the control port */
    u8 device;   /* the one in use: 0 or 1 */
};

/* What the registers of a command are to hold. */
struct ata_command {
    u8 code;
    bool ext; /* a 48-bit command: the registers take two bytes each */
    u16 count;
    u64 lba;
};

enum ata_kind { ATA_KIND_NONE, ATA_KIND_DISK, ATA_KIND_PACKET, ATA_KIND_STUCK };

u8 channel_read(const struct ata_channel *channel, u32 reg);

/* The status without taking an interrupt back. */
u8 channel_status(const struct ata_channel *channel);

/* The device's status has (status & mask) == wanted. False after timeout_us; a sign of life meanwhile. */
NODISCARD bool channel_wait(const struct ata_channel *channel, u8 mask, u8 wanted, u64 timeout_us);

/*
 * Reset both devices of the channel by SRST (9.3), whatever they are at; interrupts are off afterwards. May take half a
 * second. False: device 0 stays busy, and there is no talking to device 1 past it.
 */
NODISCARD bool channel_reset(const struct ata_channel *channel);

/* After a reset: select channel->device and see what answers there. May take a second. */
enum ata_kind channel_probe(const struct ata_channel *channel);

/* Write the command's registers to the selected device, which is idle, and give it time to take notice. */
void channel_issue(const struct ata_channel *channel, const struct ata_command *command);

/*
 * Move an even number of bytes of the block that the device asks for. The controller makes two accesses to the device
 * out of one of 32 bits (82371AB 5.2.1), which are half as many for us; what is left over goes by 16 bits.
 */
void channel_read_data(const struct ata_channel *channel, void *to, u32 bytes);
void channel_write_data(const struct ata_channel *channel, const void *from, u32 bytes);

/* Run a command without data to its end. ERR_IO: the device says error. ERR_TIMEOUT. */
NODISCARD status_t channel_run(const struct ata_channel *channel, const struct ata_command *command, u64 timeout_us);

/* IDENTIFY DEVICE. As channel_run; ERR_IO too when there is no data. */
NODISCARD status_t channel_identify(const struct ata_channel *channel, u16 words[256]);

/* Interrupts on or off, for both devices. */
void channel_set_interrupts(const struct ata_channel *channel, bool on);
