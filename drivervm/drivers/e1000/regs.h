/*
 * Registers and descriptors of Intel's 82540EM and 82574L. Sections: 82540EM's are those of the PCI/PCI-X Family of
 * Gigabit Ethernet Controllers Software Developer's Manual (317453), 82574's those of its datasheet.
 */
#pragma once

#include "shared/lib/types.h"

#define E1000_REGISTER_BYTES 0x10000u /* of BAR 0, as far as we use it */

#define E1000_CTRL 0x0000u
#define E1000_STATUS 0x0008u
#define E1000_EERD 0x0014u
#define E1000_ICR 0x00c0u /* causes: cleared by reading, or by writing ones (82574 7.4.5) */
#define E1000_ITR 0x00c4u
#define E1000_IMS 0x00d0u
#define E1000_IMC 0x00d8u
#define E1000_RCTL 0x0100u
#define E1000_TCTL 0x0400u
#define E1000_TIPG 0x0410u
#define E1000_RDBAL 0x2800u
#define E1000_RDBAH 0x2804u
#define E1000_RDLEN 0x2808u
#define E1000_RDH 0x2810u
#define E1000_RDT 0x2818u
#define E1000_RDTR 0x2820u
#define E1000_RADV 0x282cu
#define E1000_TDBAL 0x3800u
#define E1000_TDBAH 0x3804u
#define E1000_TDLEN 0x3808u
#define E1000_TDH 0x3810u
#define E1000_TDT 0x3818u
#define E1000_CRCERRS 0x4000u /* statistics: 32 bits, cleared by reading, stop at their largest value (13.7) */
#define E1000_MPC 0x4010u
#define E1000_RNBC 0x40a0u
#define E1000_TPR 0x40d0u
#define E1000_TPT 0x40d4u
#define E1000_RXCSUM 0x5000u
#define E1000_RFCTL 0x5008u
#define E1000_MTA 0x5200u /* 128 words */
#define E1000_RAL 0x5400u /* 16 pairs */
#define E1000_VFTA 0x5600u

/* 13.4.1 */
#define CTRL_LRST (1u << 3)
#define CTRL_ASDE (1u << 5)
#define CTRL_SLU (1u << 6)
#define CTRL_ILOS (1u << 7)
#define CTRL_FRCSPD (1u << 11)
#define CTRL_FRCDPX (1u << 12)
#define CTRL_RST (1u << 26)
#define CTRL_VME (1u << 30)
#define CTRL_PHY_RST (1u << 31)

#define STATUS_LU (1u << 1) /* 13.4.2 */

/* 13.4.4, and 82574 10.2.2.4 with other places: a word of the EEPROM */
#define EERD_START (1u << 0)
#define EERD_DATA(value) ((value) >> 16)

/* 13.4.17 */
#define CAUSE_LSC (1u << 2)
#define CAUSE_RXO (1u << 6)
#define CAUSE_RXT0 (1u << 7)

/* 13.4.22; receive buffers of 2048 bytes, frames of at most 1522 */
#define RCTL_EN (1u << 1)
#define RCTL_UPE (1u << 3)
#define RCTL_MPE (1u << 4)
#define RCTL_BAM (1u << 15)
#define RCTL_SECRC (1u << 26)

/* 13.4.33: retries and their distance as for full duplex */
#define TCTL_EN (1u << 1)
#define TCTL_PSP (1u << 3)
#define TCTL_CT (15u << 4)
#define TCTL_COLD (64u << 12)
#define TIPG_COPPER (8u | 8u << 10 | 6u << 20) /* 13.4.34 */

#define RXCSUM_TUOFLD (1u << 9) /* 13.4.45 */
#define RAH_VALID (1u << 31)    /* 13.5.3 */
#define ADDRESS_PAIRS 16u
#define MULTICAST_WORDS 128u

/* 3.2.3: receive descriptor */
struct e1000_rx {
    u64 address;
    u16 length;
    u16 checksum;
    u8 status;
    u8 errors;
    u16 special;
};
_Static_assert(sizeof(struct e1000_rx) == 16, "82540EM 3.2.3");
#define RX_DONE 0x01u
#define RX_END 0x02u /* of the frame */
#define RX_NOT_CHECKED 0x04u
#define RX_TCP_CHECKED 0x20u /* or UDP */
#define RX_TCP_WRONG 0x20u   /* in errors */
#define RX_BROKEN 0x97u      /* in errors: CRC, symbol, sequence, carrier extension, data */

/* 3.3.5 to 3.3.7: transmit descriptors, of which two kinds are used. `command` has length 19:0, kind 23:20, then bits.
 */
struct e1000_tx_data {
    u64 address;
    u32 command;
    u8 status;
    u8 options;
    u16 special;
};
struct e1000_tx_context {
    u8 ip_start, ip_checksum;
    u16 ip_end; /* its last byte */
    u8 tcp_start, tcp_checksum;
    u16 tcp_end; /* 0: to the end of the packet */
    u32 command;
    u8 status;
    u8 headers;
    u16 mss;
};
union e1000_tx {
    struct e1000_tx_data data;
    struct e1000_tx_context context;
};
_Static_assert(sizeof(union e1000_tx) == 16, "82540EM 3.3.6");
#define TX_LENGTH_MOST 0xfffffu
#define TX_DATA (1u << 20)
#define TX_END (1u << 24)  /* data: of packet */
#define TX_FCS (1u << 25)  /* data: append the frame's check sequence */
#define TX_TCP (1u << 24)  /* context */
#define TX_IPV4 (1u << 25) /* context */
#define TX_CUT (1u << 26)
#define TX_REPORT (1u << 27)
#define TX_EXTENDED (1u << 29)
#define TX_DONE 0x01u   /* in status */
#define TX_SUM_IP 0x01u /* in options */
#define TX_SUM_TCP 0x02u
