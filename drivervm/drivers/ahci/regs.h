/* Registers and memory structures of AHCI 1.3.1, and the ATA commands that go through them (ACS-3). */
#pragma once

#include "shared/lib/types.h"

/* 3.1 generic host control */
#define HBA_CAP 0x00u
#define HBA_GHC 0x04u
#define HBA_IS 0x08u
#define HBA_PI 0x0cu
#define HBA_CAP2 0x24u
#define HBA_BOHC 0x28u

#define CAP_NCS(cap) (((cap) >> 8 & 0x1f) + 1) /* command slots */
#define CAP_SSS (1u << 27)                     /* staggered spin-up */
#define CAP_SNCQ (1u << 30)
#define CAP_S64A (1u << 31)
#define GHC_HR (1u << 0)
#define GHC_IE (1u << 1)
#define GHC_AE (1u << 31)
#define CAP2_BOH (1u << 0)
#define BOHC_BOS (1u << 0)
#define BOHC_OOS (1u << 1)
#define BOHC_BB (1u << 4)

/* 3.3 port registers, from HBA_PORT(n) on */
#define HBA_PORT(n) (0x100u + 0x80u * (n))
#define HBA_PORTS 32u
#define PORT_CLB 0x00u
#define PORT_CLBU 0x04u
#define PORT_FB 0x08u
#define PORT_FBU 0x0cu
#define PORT_IS 0x10u
#define PORT_IE 0x14u
#define PORT_CMD 0x18u
#define PORT_TFD 0x20u
#define PORT_SIG 0x24u
#define PORT_SSTS 0x28u
#define PORT_SCTL 0x2cu
#define PORT_SERR 0x30u
#define PORT_SACT 0x34u
#define PORT_CI 0x38u

#define CMD_ST (1u << 0)
#define CMD_SUD (1u << 1)
#define CMD_POD (1u << 2)
#define CMD_FRE (1u << 4)
#define CMD_FR (1u << 14)
#define CMD_CR (1u << 15)
#define CMD_ICC_ACTIVE (1u << 28)

/* 3.3.5 and 3.3.6: interrupt status and enable */
#define INT_DHRS (1u << 0)  /* device to host register FIS: a command is done */
#define INT_PSS (1u << 1)   /* PIO set-up FIS */
#define INT_SDBS (1u << 3)  /* set device bits FIS: queued commands are done */
#define INT_PCS (1u << 6)   /* a device came or went */
#define INT_PRCS (1u << 22) /* the link did */
#define INT_OFS (1u << 24)  /* more data than the PRDT has room for */
#define INT_IFS (1u << 27)  /* interface fatal error */
#define INT_HBDS (1u << 28) /* host bus data error */
#define INT_HBFS (1u << 29) /* host bus fatal error */
#define INT_TFES (1u << 30) /* the device says error */
#define INT_LINK (INT_PCS | INT_PRCS)
#define INT_ERRORS (INT_OFS | INT_IFS | INT_HBDS | INT_HBFS | INT_TFES) /* 6.1: what stops the port */
#define INT_WANTED (INT_DHRS | INT_SDBS | INT_LINK | INT_ERRORS)

#define TFD_ERR (1u << 0)
#define TFD_DRQ (1u << 3)
#define TFD_BSY (1u << 7)

#define SIG_ATA 0x00000101u

#define SSTS_DET_MASK 0xfu
#define SSTS_DET_READY 3u /* device present, link up */
#define SCTL_DET_MASK 0xfu
#define SCTL_DET_RESET 1u
#define SCTL_IPM_NONE (3u << 8) /* no partial or slumber: latency before watts */

/* 4.2.2 command header */
struct command_header {
    u16 flags; /* bits 4:0 FIS length in dwords */
    u16 prdt_length;
    u32 prd_bytes; /* moved so far; not maintained for queued commands */
    u64 table;     /* 128-byte aligned */
    u32 reserved[4];
};
_Static_assert(sizeof(struct command_header) == 32, "AHCI 4.2.2");
#define HEADER_WRITE (1u << 6)

/* 4.2.3.3 */
struct prd {
    u64 address; /* even */
    u32 reserved;
    u32 count; /* bytes - 1; odd, as the bytes are even */
};
_Static_assert(sizeof(struct prd) == 16, "AHCI 4.2.3.3");
#define PRD_MAX_BYTES (4u << 20)

/* Serial ATA 3.2 10.5.5: register FIS, host to device */
struct fis_h2d {
    u8 type;
    u8 flags;
    u8 command;
    u8 feature_low;
    u8 lba_low[3];
    u8 device;
    u8 lba_high[3];
    u8 feature_high;
    u8 count_low;
    u8 count_high;
    u8 icc;
    u8 control;
    u8 reserved[4];
};
_Static_assert(sizeof(struct fis_h2d) == 20, "SATA 10.5.5");
#define FIS_TYPE_H2D 0x27u
#define FIS_COMMAND (1u << 7) /* a command, not device control */
#define FIS_DEVICE_LBA (1u << 6)

/* 4.2.3; so many PRDs: a full VirtIO request (126 pieces of 4 MiB at most, any of them cut once at a 4 MiB limit) */
#define AHCI_PRDS 168u
struct command_table {
    union {
        struct fis_h2d fis;
        u8 cfis[64];
    };
    u8 acmd[16];
    u8 reserved[48];
    struct prd prd[AHCI_PRDS];
};
_Static_assert(sizeof(struct command_table) % 128 == 0, "AHCI 4.2.2 wants tables 128-byte aligned");

#define AHCI_SLOTS 32u
#define AHCI_FIS_BYTES 256u /* 4.2.1 */

/* ACS-3 commands */
#define ATA_READ_DMA_EXT 0x25u
#define ATA_READ_LOG_EXT 0x2fu
#define ATA_WRITE_DMA_EXT 0x35u
#define ATA_READ_FPDMA_QUEUED 0x60u
#define ATA_WRITE_FPDMA_QUEUED 0x61u
#define ATA_FLUSH_CACHE_EXT 0xeau
#define ATA_IDENTIFY 0xecu

#define ATA_LOG_NCQ_ERROR 0x10u
#define ATA_MAX_SECTORS 65536u /* of one 48-bit command; written as 0 */
