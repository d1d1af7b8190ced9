/* Registers of a remapping unit (VT-d 11.4): offsets and fields. */
#pragma once

#define VTD_VERSION 0x00u
#define VTD_CAPABILITY 0x08u
#define VTD_EXTENDED 0x10u
#define VTD_COMMAND 0x18u
#define VTD_STATUS 0x1cu
#define VTD_ROOT_TABLE 0x20u
#define VTD_FAULT_STATUS 0x34u
#define VTD_FAULT_CONTROL 0x38u
#define VTD_FAULT_DATA 0x3cu
#define VTD_FAULT_ADDRESS 0x40u
#define VTD_FAULT_ADDRESS_HIGH 0x44u
#define VTD_PROTECTED_MEMORY 0x64u
#define VTD_QUEUE_TAIL 0x88u
#define VTD_QUEUE_ADDRESS 0x90u
#define VTD_INTERRUPT_TABLE 0xb8u

/* Global command and status share their bit numbers. */
#define VTD_TRANSLATION (1u << 31)
#define VTD_SET_ROOT (1u << 30)
#define VTD_ADVANCED_FAULT (1u << 28)
#define VTD_WRITE_BUFFER (1u << 27)
#define VTD_QUEUE (1u << 26)
#define VTD_REMAP_INTERRUPTS (1u << 25)
#define VTD_SET_INTERRUPT_TABLE (1u << 24)
#define VTD_COMPATIBILITY (1u << 23) /* compatibility-format interrupts pass: never on here */

#define CAP_DOMAINS(cap) ((u32)(cap)&7)
#define CAP_WRITE_BUFFER (1ull << 4)
#define CAP_PROTECTED_LOW (1ull << 5)
#define CAP_PROTECTED_HIGH (1ull << 6)
#define CAP_CACHING_MODE (1ull << 7)
#define CAP_LEVELS_3 (1ull << 9)  /* SAGAW: 39 bits */
#define CAP_LEVELS_4 (1ull << 10) /* SAGAW: 48 bits */
#define CAP_ADDRESS_BITS(cap) (((u32)((cap) >> 16) & 0x3f) + 1)
#define CAP_FAULT_OFFSET(cap) (((u32)((cap) >> 24) & 0x3ff) * 16)
#define CAP_SUPERPAGES(cap) ((u32)((cap) >> 34) & 3) /* bit 0: 2 MiB, bit 1: 1 GiB */
#define CAP_PAGE_SELECTIVE (1ull << 39)
#define CAP_FAULT_COUNT(cap) (((u32)((cap) >> 40) & 0xff) + 1)
#define CAP_MASK_MAX(cap) ((u32)((cap) >> 48) & 0x3f)
#define CAP_DRAIN_WRITES (1ull << 54)
#define CAP_DRAIN_READS (1ull << 55)

#define ECAP_COHERENT (1ull << 0)
#define ECAP_QUEUE (1ull << 1)
#define ECAP_INTERRUPTS (1ull << 3)

#define FAULT_STATUS_OVERFLOW (1u << 0)
#define FAULT_STATUS_PENDING (1u << 1)
#define FAULT_STATUS_QUEUE_ERRORS (7u << 4) /* queue error, completion error, time-out error */
#define FAULT_STATUS_INDEX(status) ((status) >> 8 & 0xff)
#define FAULT_CONTROL_MASK (1u << 31)
#define FAULT_RECORD_SIZE 16u

#define PROTECTED_MEMORY_ENABLE (1u << 31)
#define PROTECTED_MEMORY_STATUS (1u << 0)

#define QUEUE_ENTRIES 256u            /* one page */
#define INTERRUPT_TABLE_ENTRIES 256u  /* one page */
#define INTERRUPT_TABLE_SIZE_FIELD 7u /* 2^(7+1) entries */
