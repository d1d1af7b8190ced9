/*
 * The virtio-pci transport (VirtIO 1.2, 4.1): finding the device, its registers in port or memory BARs alike, MSI-X.
 * Nothing here knows of queues' contents. One thread.
 */
#pragma once

#include "guestos/kernel/dev/pci.h"
#include "shared/lib/status.h"
#include "shared/lib/types.h"
#include "shared/virtio/virtio.h"

/* A window of registers that a capability describes. */
struct virtio_region {
    bool io;
    u64 base;   /* first port, or physical address (mapped) */
    u32 length; /* 0: the device has none */
};

struct virtio_device {
    u16 bdf;
    struct virtio_region common, notify, isr, config;
    u32 notify_multiplier;
    volatile u8 *msix_table;
    u16 msix_vectors; /* entries in the table */
};

/* Registers of width 1, 2 or 4 at any offset, aligned or not: probes use that. */
u32 virtio_read(const struct virtio_region *region, u32 offset, u32 width);
void virtio_write(const struct virtio_region *region, u32 offset, u32 width, u32 value);

/* A register of the common configuration by its name in struct virtio_pci_common_cfg. */
#define VIRTIO_COMMON_READ(device, field)                                                                              \
    virtio_read(&(device)->common, offsetof(struct virtio_pci_common_cfg, field),                                      \
                sizeof(((struct virtio_pci_common_cfg *)0)->field))
#define VIRTIO_COMMON_WRITE(device, field, value)                                                                      \
    virtio_write(&(device)->common, offsetof(struct virtio_pci_common_cfg, field),                                     \
                 sizeof(((struct virtio_pci_common_cfg *)0)->field), (value))

/*
 * Find modern device number `index` of `type` (VirtIO 1.2 section 5) in the order of the bus, map its registers, enable
 * it and MSI-X. ERR_NOT_FOUND: there are not so many. ERR_FORMAT: a capability is missing or malformed, or a BAR is not
 * assigned. ERR_UNSUPPORTED: no MSI-X.
 */
NODISCARD status_t virtio_find(u16 type, u32 index, struct virtio_device *device);

/* How many modern devices of `type` there are, usable or not. */
u32 virtio_count(u16 type);

/* Write 0 to the status and wait until it reads 0 (4.1.4.3.2). ERR_TIMEOUT: not within 10 s. */
NODISCARD status_t virtio_reset(const struct virtio_device *device);

/*
 * ACKNOWLEDGE, DRIVER, accept offered & wanted, FEATURES_OK (3.1.1 steps 2 to 6). *accepted receives the features.
 * ERR_UNSUPPORTED: the device does not offer VERSION_1 or refuses the choice.
 */
NODISCARD status_t virtio_negotiate(const struct virtio_device *device, u64 wanted, u64 *accepted);

u64 virtio_offered_features(const struct virtio_device *device);

/* Let MSI-X entry `entry` raise `vector` on this CPU. */
void virtio_set_msix(const struct virtio_device *device, u16 entry, u8 vector);

/* Three 64-bit addresses and enable; queue_select must be set. */
void virtio_enable_queue(const struct virtio_device *device, u64 descriptors, u64 driver, u64 dev);

/* The notification for the selected queue's queue_notify_off. */
void virtio_notify(const struct virtio_device *device, u16 notify_off, u16 queue);
