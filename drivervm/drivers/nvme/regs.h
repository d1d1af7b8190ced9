/* Registers and memory structures of NVMe 1.4. Sections are those of the base specification. */
#pragma once

#include "shared/lib/types.h"

/* 3.1 controller registers */
#define NVME_CAP 0x00u /* 64 bits */
#define NVME_CC 0x14u
#define NVME_CSTS 0x1cu
#define NVME_AQA 0x24u
#define NVME_ASQ 0x28u /* 64 bits */
#define NVME_ACQ 0x30u /* 64 bits */
#define NVME_DOORBELLS 0x1000u

/* 3.1.1: lower and upper half of CAP */
#define CAP_MQES(low) (((low)&0xffff) + 1) /* entries of an I/O queue at most */
#define CAP_TO(low) ((low) >> 24)          /* for CSTS.RDY to follow CC.EN, in 500 ms */
#define CAP_DSTRD(high) ((high)&0xf)       /* doorbells lie 4 << DSTRD bytes apart */
#define CAP_CSS_NVM(high) ((high) >> 5 & 1)
#define CAP_MPSMIN(high) ((high) >> 16 & 0xf) /* smallest page: 4 KiB << MPSMIN */

/* 3.1.5; CSS, MPS and AMS are 0: NVM command set, 4 KiB pages, round robin */
#define CC_EN (1u << 0)
#define CC_IOSQES (6u << 16) /* entries of 64 bytes */
#define CC_IOCQES (4u << 20) /* and 16 */

#define CSTS_RDY (1u << 0) /* 3.1.6 */
#define CSTS_CFS (1u << 1) /* fatal */

/* 4.2: submission queue entry */
struct nvme_command {
    u8 opcode;
    u8 flags; /* 0: not fused, PRPs */
    u16 id;
    u32 nsid;
    u32 reserved[2];
    u64 metadata;
    u64 prp1;
    u64 prp2;
    u32 dword[6]; /* 10 to 15 */
};
_Static_assert(sizeof(struct nvme_command) == 64, "NVMe 4.2");
_Static_assert(offsetof(struct nvme_command, dword) == 40, "NVMe 4.2");

/* 4.6: completion queue entry. The controller turns the phase with each round through the queue. */
struct nvme_completion {
    u32 result;
    u32 reserved;
    u16 head; /* of the submission queue */
    u16 queue;
    u16 id;
    u16 status; /* bit 0: phase */
};
_Static_assert(sizeof(struct nvme_completion) == 16, "NVMe 4.6");
#define STATUS_PHASE 1u
#define STATUS_CODE(status) ((status) >> 1 & 0x7ff) /* type and code; 0: success */

/* 5: admin commands */
#define ADMIN_CREATE_SQ 0x01u
#define ADMIN_CREATE_CQ 0x05u
#define ADMIN_IDENTIFY 0x06u
#define ADMIN_SET_FEATURES 0x09u

#define IDENTIFY_NAMESPACE 0u  /* 5.15.2.1 */
#define IDENTIFY_CONTROLLER 1u /* 5.15.2.2 */
#define IDENTIFY_ACTIVE 2u     /* 5.15.2.3 */
#define FEATURE_QUEUES 7u      /* 5.21.1.7 */
#define QUEUE_CONTIGUOUS (1u << 0)
#define QUEUE_INTERRUPTS (1u << 1) /* of a completion queue; vector 0 */

/* 6: NVM commands */
#define NVM_FLUSH 0x00u
#define NVM_WRITE 0x01u
#define NVM_READ 0x02u
#define NVM_WRITE_ZEROES 0x08u
#define NVM_DATASET 0x09u
#define ZEROES_DEALLOCATE (1u << 25) /* 6.17: dword 12 */
#define DATASET_DEALLOCATE (1u << 2) /* 6.7: dword 11 */
#define NVM_MAX_BLOCKS 65536u        /* of one command; written less one */

struct nvme_range { /* 6.7.1 */
    u32 attributes;
    u32 blocks;
    u64 lba;
};
_Static_assert(sizeof(struct nvme_range) == 16, "NVMe 6.7.1");

/* Figure 247, as far as we look */
struct nvme_identify_controller {
    u16 vendor[2];
    char serial[20]; /* ASCII, padded with blanks; not terminated */
    char model[40];
    u8 unused0[13];
    u8 mdts; /* largest transfer: CAP.MPSMIN pages, as a power of two; 0: any */
    u8 unused1[434];
    u8 sqes; /* sizes of entries, powers of two: 3:0 required */
    u8 cqes;
    u8 unused2[6];
    u16 oncs;
    u8 unused3[3574];
};
_Static_assert(sizeof(struct nvme_identify_controller) == 4096, "NVMe figure 247");
_Static_assert(offsetof(struct nvme_identify_controller, mdts) == 77, "NVMe figure 247");
_Static_assert(offsetof(struct nvme_identify_controller, sqes) == 512, "NVMe figure 247");
_Static_assert(offsetof(struct nvme_identify_controller, oncs) == 520, "NVMe figure 247");
#define ONCS_DATASET (1u << 2)
#define ONCS_WRITE_ZEROES (1u << 3)

/* Figure 245, as far as we look */
struct nvme_identify_namespace {
    u64 blocks; /* NSZE */
    u8 unused0[17];
    u8 formats; /* less one */
    u8 format;  /* 3:0: the one in use */
    u8 unused1[2];
    u8 protection;
    u8 unused2[74];
    u64 nguid[2];
    u64 eui64;
    u32 lba_format[16]; /* 15:0 metadata bytes, 23:16 data bytes as a power of two */
    u8 unused3[3904];
};
_Static_assert(sizeof(struct nvme_identify_namespace) == 4096, "NVMe figure 245");
_Static_assert(offsetof(struct nvme_identify_namespace, formats) == 25, "NVMe figure 245");
_Static_assert(offsetof(struct nvme_identify_namespace, protection) == 29, "NVMe figure 245");
_Static_assert(offsetof(struct nvme_identify_namespace, nguid) == 104, "NVMe figure 245");
_Static_assert(offsetof(struct nvme_identify_namespace, lba_format) == 128, "NVMe figure 245");

#define NVME_DEPTH 128u                /* commands at a time */
#define NVME_ENTRIES (NVME_DEPTH + 1u) /* of an I/O queue; one stays free, or full would look like empty (4.1.2) */
#define NVME_ADMIN_ENTRIES 2u          /* one command at a time */
#define NVME_LIST 128u                 /* PRPs in a command's list */
