/* Registers and commands of an ATA device on a parallel channel (ATA-6 chapters 7 and 8), as ports. */
#pragma once

/* 7.1: command block, from its first port on */
#define ATA_DATA 0u
#define ATA_ERROR 1u    /* read */
#define ATA_FEATURES 1u /* write */
#define ATA_COUNT 2u
#define ATA_LBA_LOW 3u
#define ATA_LBA_MID 4u
#define ATA_LBA_HIGH 5u
#define ATA_DEVICE 6u
#define ATA_STATUS 7u  /* read: takes the interrupt back */
#define ATA_COMMAND 7u /* write */
#define ATA_PORTS 8u

/* 7.14 status */
#define STATUS_ERR 0x01u
#define STATUS_DRQ 0x08u
#define STATUS_DF 0x20u
#define STATUS_DRDY 0x40u
#define STATUS_BSY 0x80u

/* Control block: one port; written device control (7.8), read alternate status (7.3), which leaves the interrupt. */
#define CONTROL_NIEN 0x02u /* no interrupts */
#define CONTROL_SRST 0x04u

/* 7.7 device register; bits 7 and 5 are obsolete and were once to be 1 */
#define DEVICE_SELECT(device) (0xa0u | (device) << 4)
#define DEVICE_LBA 0x40u

/* 9.12: what the registers hold after a reset when the device has the PACKET commands; a disk has zeros */
#define SIGNATURE_ATAPI_MID 0x14u
#define SIGNATURE_ATAPI_HIGH 0xebu

/* 8.x */
#define ATA_READ_SECTORS 0x20u
#define ATA_READ_SECTORS_EXT 0x24u
#define ATA_READ_MULTIPLE_EXT 0x29u
#define ATA_WRITE_SECTORS 0x30u
#define ATA_WRITE_SECTORS_EXT 0x34u
#define ATA_WRITE_MULTIPLE_EXT 0x39u
#define ATA_READ_MULTIPLE 0xc4u
#define ATA_WRITE_MULTIPLE 0xc5u
#define ATA_SET_MULTIPLE_MODE 0xc6u
#define ATA_FLUSH_CACHE 0xe7u
#define ATA_FLUSH_CACHE_EXT 0xeau
#define ATA_IDENTIFY_DEVICE 0xecu

#define ATA_MAX_SECTORS 256u        /* of one 28-bit command, written as 0; enough for 48-bit ones too */
#define ATA_LBA28_LAST 0xfffffffull /* 6.2: the last address + 1 of a disk that 28 bits can name */
#define ATA_MAX_BLOCK 128u          /* sectors: the largest power of two that SET MULTIPLE MODE's count can be */
