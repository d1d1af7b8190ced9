/* Wire formats of VirtIO 1.2 (little endian, as the machine): status and feature bits, split virtqueues (2.7), PCI (4.1). */
#pragma once

#include "shared/lib/types.h"

/* 2.1 device status field */
#define VIRTIO_STATUS_ACKNOWLEDGE 1u
#define VIRTIO_STATUS_DRIVER 2u
#define VIRTIO_STATUS_DRIVER_OK 4u
#define VIRTIO_STATUS_FEATURES_OK 8u
#define VIRTIO_STATUS_NEEDS_RESET 64u
#define VIRTIO_STATUS_FAILED 128u

/* 6 reserved feature bits */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_ACCESS_PLATFORM (1ull << 33)

/* 2.7.5 descriptor table */
#define VIRTQ_DESC_F_NEXT 1u
#define VIRTQ_DESC_F_WRITE 2u
#define VIRTQ_DESC_F_INDIRECT 4u

struct virtq_desc {
    u64 addr;
    u32 len;
    u16 flags;
    u16 next;
};
_Static_assert(sizeof(struct virtq_desc) == 16, "2.7.5");

/* 2.7.6 available ring, 2.7.8 used ring; used_event and avail_event follow the ring entries */
#define VIRTQ_AVAIL_F_NO_INTERRUPT 1u
#define VIRTQ_USED_F_NO_NOTIFY 1u

struct virtq_avail {
    u16 flags;
    u16 idx;
    u16 ring[];
};
struct virtq_used_elem {
    u32 id;
    u32 len;
};
struct virtq_used {
    u16 flags;
    u16 idx;
    struct virtq_used_elem ring[];
};

/* 2.7.10: has `event` been passed on the way from old to new? */
static inline bool virtq_need_event(u16 event, u16 new_idx, u16 old_idx)
{
    return (u16)(new_idx - event - 1) < (u16)(new_idx - old_idx);
}

/* 4.1.2 PCI identification, 4.1.4 structure layout */
#define VIRTIO_PCI_VENDOR 0x1af4u
#define VIRTIO_PCI_DEVICE_BASE 0x1040u /* + device type */
#define VIRTIO_PCI_CAP_COMMON 1u
#define VIRTIO_PCI_CAP_NOTIFY 2u
#define VIRTIO_PCI_CAP_ISR 3u
#define VIRTIO_PCI_CAP_DEVICE 4u
#define VIRTIO_PCI_CAP_PCI 5u
#define VIRTIO_MSI_NO_VECTOR 0xffffu

struct virtio_pci_cap {
    u8 cap_vndr; /* 0x09 */
    u8 cap_next;
    u8 cap_len;
    u8 cfg_type;
    u8 bar;
    u8 id;
    u8 padding[2];
    u32 offset;
    u32 length;
};
_Static_assert(sizeof(struct virtio_pci_cap) == 16, "4.1.4");

struct virtio_pci_common_cfg { /* 4.1.4.3 */
    u32 device_feature_select;
    u32 device_feature;
    u32 driver_feature_select;
    u32 driver_feature;
    u16 config_msix_vector;
    u16 num_queues;
    u8 device_status;
    u8 config_generation;
    u16 queue_select;
    u16 queue_size;
    u16 queue_msix_vector;
    u16 queue_enable;
    u16 queue_notify_off;
    u64 queue_desc;
    u64 queue_driver;
    u64 queue_device;
    u16 queue_notify_data;
    u16 queue_reset;
};
_Static_assert(sizeof(struct virtio_pci_common_cfg) == 64, "4.1.4.3 with padding");
