/* clang-format off */
/*
 * The manifest: a commented INI text on the EFI system partition that says which VMs there are. One parser for the
 * loader, the hypervisor and `scripts/bulkhead check`. The text is untrusted: any byte string gives either a manifest
 * that obeys the limits below or one error with its line.
 *
 *   # comment (also ';'), whole lines or after white space
 *   [hypervisor]
 *   control   = com2 | off          # default off
 *   exit_port = 0xf4                # QEMU's isa-debug-exit; default 0: the CPUs halt
 *
 *   [vm blk0]                       # a driver VM: name 1..15 of [a-z0-9_-], starting with a letter
 *   kind      = driver
 *   image     = ahci.elf            # a file in \bulkhead\, no separators
 *   device    = pci:00:1f.2         # or class:010601 (base, sub[, interface]) = the first such device that is free
 *   memory    = 1M                  # K, M, G; 512K..64M for a driver, 16M..64G for the guest; page multiple (guest: 2M multiple)
 *   grants    = sticky | strict     # default sticky
 *   grant_pages = 16384             # sticky cache limit in 4 KiB pages, 256..1048576; default 16384
 *   dma       = isolated | unprotected | none   # default isolated
 *                                   # isolated: by an IOMMU, and refused without one, or for a VirtIO device that goes past it.
 *                                   # unprotected: where no IOMMU holds the device it may reach ALL memory. none: no DMA at all, hence
 *                                   # isolated on any machine: for drivers that move data by port or register I/O
 *   heartbeat = 20ms                # us, ms, s; default 20ms; 1ms..10s
 *   misses    = 3                   # 1..100, default 3
 *   deadline  = 2s                  # of one request; default 5s; 10ms..10m
 *   restart   = always | never      # default always
 *   backoff   = 0ms                 # first delay before a restart, doubled each time in the window; default 0; 0..10s
 *   limit     = 5                   # restarts within window before giving up; default 5; 1..1000
 *   window    = 10s                 # default 10s; 1ms..1h
 *   give_up   = errors | stop       # errors: the device answers every request with its error; stop: it goes silent
 *   escalate  = dependents | image | fail | stop   # before giving up, once, with fresh counters: restart it and all that need
 *                                   # it, or go on with the fallback image. fail, stop: at once; other words for give_up
 *   fallback  = ahci_old.elf        # of escalate = image
 *   after     = net0 nvme0          # starts when these driver VMs have offered, or were given up on
 *   needs     = net0                # the same, but is not started, and counts as failed, when they were given up on
 *   rejuvenate = 1h                 # a planned restart after so much time of a generation; default never; 1s..720h
 *   spare     = yes | no            # a successor stands by in a RAM of its own, booted; default no
 *
 *   [vm main]
 *   kind      = guest               # exactly one guest
 *   image     = guestos.elf
 *   memory    = 256M
 *   cmdline   = text to the end of the line (at most 255 bytes; taken as it stands, no comment after it)
 *   control   = no | read | yes     # a control port of its own, a virtio-console; default no: no such device
 *                                   # read: status, stats, events, faults; yes: restart, stop, start a driver VM, too
 */
/* clang-format on */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

#define MANIFEST_MAX_SIZE 65536u /* bytes of text */
#define MANIFEST_MAX_VMS 16u
#define MANIFEST_NAME_SIZE 16u
#define MANIFEST_IMAGE_SIZE 48u
#define MANIFEST_CMDLINE_SIZE 256u

enum manifest_vm_kind { MANIFEST_DRIVER = 1, MANIFEST_GUEST };
enum manifest_device_kind { MANIFEST_DEVICE_NONE, MANIFEST_DEVICE_PCI, MANIFEST_DEVICE_CLASS };
enum manifest_dma { MANIFEST_DMA_ISOLATED, MANIFEST_DMA_UNPROTECTED, MANIFEST_DMA_NONE };
extern const char *const manifest_dma_name[]; /* as the text has them */
enum manifest_grants { MANIFEST_GRANTS_STICKY, MANIFEST_GRANTS_STRICT };
enum manifest_control { MANIFEST_CONTROL_NO, MANIFEST_CONTROL_YES, MANIFEST_CONTROL_READ };
enum manifest_give_up { MANIFEST_GIVE_UP_ERRORS, MANIFEST_GIVE_UP_STOP };
/* FAIL and STOP are in the text only: a manifest that was read says it in give_up. */
enum manifest_escalate {
    MANIFEST_ESCALATE_NONE,
    MANIFEST_ESCALATE_DEPENDENTS,
    MANIFEST_ESCALATE_IMAGE,
    MANIFEST_ESCALATE_FAIL,
    MANIFEST_ESCALATE_STOP
};
extern const char *const manifest_escalate_name[]; /* "none" "dependents" "image" */

struct manifest_device {
    enum manifest_device_kind kind;
    u16 bdf;        /* PCI: bus << 8 | device << 3 | function */
    u32 class_code; /* CLASS: base << 16 | sub << 8 | interface */
    u32 class_mask; /* 0xffff00 when the text gives four digits, 0xffffff for six */
};

struct manifest_vm {
    char name[MANIFEST_NAME_SIZE];
    enum manifest_vm_kind kind;
    char image[MANIFEST_IMAGE_SIZE];
    u64 memory; /* bytes */
    char cmdline[MANIFEST_CMDLINE_SIZE];
    enum manifest_control control; /* the guest's own port */
    struct manifest_device device;
    enum manifest_grants grants;
    u32 grant_pages;
    enum manifest_dma dma;
    u64 heartbeat_us;
    u32 misses;
    u64 deadline_us;
    bool restart;
    u64 backoff_us;
    u32 limit;
    u64 window_us;
    enum manifest_give_up give_up;
    enum manifest_escalate escalate;
    char fallback[MANIFEST_IMAGE_SIZE]; /* "" without escalate = image */
    u64 rejuvenate_us;                  /* 0: never */
    bool spare;                         /* a second RAM, in which the successor stands by */
    u32 index;                          /* in vm[] of the manifest */
    u32 after, needs; /* bits 1 << index of driver VMs, with all that these wait for; needs is part of after */
    /* where it stands in the text, for errors found later; 0 when the key is absent */
    u32 line;
    u32 line_image;
    u32 line_memory;
    u32 line_device;
    u32 line_fallback;
};

struct manifest {
    bool control; /* the control port is on (COM2) */
    u16 exit_port;
    u32 vm_count;
    struct manifest_vm vm[MANIFEST_MAX_VMS]; /* in the order of the text */
};

struct manifest_error {
    u32 line; /* 1-based; 0 when no line is at fault (an empty file) */
    char message[120];
};

/*
 * Parse text[0..size) (no terminator needed). On failure *error says line and cause ("unknown key 'devise' in [vm
 * blk0]") and *out is zeroed. Checks everything that needs no machine: keys, values, duplicates (section names, keys,
 * two drivers with one PCI address), exactly one guest, at least one VM, required keys per kind (driver: image, device,
 * memory; guest: image, memory), keys that do not belong to the kind. Errors: ERR_FORMAT, or ERR_RANGE when the text is
 * larger than MANIFEST_MAX_SIZE.
 */
NODISCARD status_t manifest_parse(const char *text, size_t size, struct manifest *out, struct manifest_error *error);
