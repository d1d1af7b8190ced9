/*
 * A driver VM: its VM, its device, its DMA domain, its relay and the state that recovery keeps about it.
 *
 *   STOPPED --boot--> STARTING --offer--> RUNNING --fault, order--> RECOVERING --> STARTING (generation + 1)
 *                                                    \-> WAITING (back-off) --> STARTING
 *                                                    \-> FAILED (policy gave up), STOPPED (the operator's wish)
 * In STOPPED and FAILED the device stays in the blocking domain, until an order leads to RECOVERING.
 * Owner of the state: recovery (STARTING to RUNNING: the offer hypercall). Context: hv lock held.
 */
#pragma once

#include "hv/core/vm.h"
#include "hv/iommu/iommu.h"
#include "hv/pci/pci.h"
#include "hv/recovery/recovery.h"
#include "shared/abi/hypercall.h"

enum driver_state { DRIVER_STOPPED, DRIVER_STARTING, DRIVER_RUNNING, DRIVER_RECOVERING, DRIVER_WAITING, DRIVER_FAILED };

/* How the device's interrupt arrives. */
enum driver_interrupt { DRIVER_POLLS, DRIVER_MSI, DRIVER_INTX };
extern const char *const driver_interrupt_name[]; /* "polled" "MSI" "INTx" */

/* Below DRIVER_LOAD_ADDRESS, in the VM's own RAM: it may destroy them, and then has destroyed itself. */
#define DRIVER_PML4_ADDRESS 0x1000ull
#define DRIVER_GDT_ADDRESS 0x3000ull
#define DRIVER_STACK_MIN KIB(16) /* above every image */

struct relay;

/*
 * The VM's RAM as each generation of an image finds it, and where it begins: written before the first one, and with
 * `spare = yes` once more by that one's `ready`. From then on this is a booted VM that has not touched its device.
 */
struct driver_image {
    u8 *memory;       /* NULL: none yet */
    u64 size, room;   /* an even number of pages, of so many; above is zero, as is the page that follows size */
    u64 entry, bytes; /* bytes of its segments */
    struct vcpu_registers regs;
    bool booted;
    const char *origin; /* "manifest", "fallback" or "uploaded" */
};

struct driver {
    struct vm *vm;
    const struct manifest_vm *config;
    enum driver_state state;
    u32 generation;
    struct pci_device *pci;
    struct iommu_domain *domain; /* NULL: dma = none, or unprotected and no IOMMU that holds it */
    const char *isolation;       /* for boot log and status: "iommu", "no DMA" or "UNPROTECTED DMA" */
    struct relay *relay;
    struct recovery recovery;

    struct driver_image image, other; /* of the next start; the one before it, kept as long as image is on trial */
    struct driver_image running;      /* of this generation: image, as it was at its start */
    hpa_t next_ram; /* of the next generation: with `spare = yes` not the VM's, which the dead one then leaves here */
    u64 next_clean; /* up to here it is as in `running`; what the dead one had changed there is in crash_memory */
    const struct boot_module *fallback; /* the file of escalate = image, in loader memory */
    /*
     * What the generation that failed last has left, for `core` (hv/recovery/crash.c). Until its successor starts, the
     * VM's own memory is that still. A driver's bytes: nobody here looks into them.
     */
    struct fault_record crash; /* as it was when the VM had been stopped; sequence 0: no fault so far */
    struct vcpu crash_vcpu;    /* its registers then */
    u8 *crash_memory;          /* RAM, of it the pages that are kept; then the info page */
    u8 *crash_kept;            /* for each page of RAM: 1, or 0: it was as in the image of the successor */
    hpa_t info_page;           /* struct driver_info */
    hpa_t events_page;         /* struct driver_events */
    hpa_t stash_page;
    u32 stash_length;
    u32 stash_checksum; /* of the first stash_length bytes */

    bool waiting;      /* blocked in `wait` */
    u64 wait_deadline; /* while it waits: TSC; ~0 when none */
    u64 hypercalls;
    u64 device_interrupts;
    enum driver_interrupt interrupt;
    u32 irq_vector;      /* host vector of its interrupt; 0: none, it polls */
    u64 message_address; /* of DRIVER_MSI: what pci_enable_message() gets */
    u32 message_data;
    u64 started; /* TSC of the last driver_start() */

    /* For `status`; times since the last start. */
    u64 frames;                 /* all that was taken for this VM, less its page tables, which grow */
    u64 entered, run_before;    /* TSC of the first entry; run_ticks before it */
    u64 start_us, start_run_us; /* from there to the offer; of it in guest mode */
    u32 device_wait_us;         /* the driver's own word */
};

extern struct driver *drivers[VM_MAX];
extern u32 driver_count;

/* The driver VM that owns this source id; NULL. */
struct driver *driver_by_bdf(u16 bdf);

/* Where the driver VM finds that BAR: guest-physical, or its first port. */
u64 driver_bar_address(const struct pci_device *dev, u32 index);
/*
 * Open the device's BARs to the driver VM, less the pages of its MSI-X table. Boot, once; memory BARs have at most
 * DRIVER_BAR_MOST bytes. ERR_NO_MEMORY.
 */
NODISCARD status_t driver_map_bars(struct driver *driver);

/*
 * Make an image of this ELF file, to which nobody writes meanwhile, the one of the next start. Errors, with *why for
 * people and nothing changed: elf_parse()'s, ERR_RANGE when it does not fit the VM's memory, ERR_NO_MEMORY.
 */
NODISCARD status_t driver_load(struct driver *driver, const void *file, u64 size, const char *origin, const char **why);
/* Back to the image before the last driver_load(). */
static inline void driver_swap_images(struct driver *driver)
{
    struct driver_image last = driver->image;

    driver->image = driver->other;
    driver->other = last;
}
/* Does the other one need this driver VM, itself or through those that it needs? */
static inline bool driver_needs(const struct driver *other, const struct driver *driver)
{
    return other->config->needs >> driver->config->index & 1;
}
/* Boot, once: room for what a crash leaves. */
void driver_create_crash(struct driver *driver);
/* The page at that offset of RAM, as this generation found it. */
const u64 *driver_pristine_page(const struct driver *driver, u64 at);
/* The next generation's RAM as the running image has it, up to `end`; what that changes goes to crash_memory first. */
void driver_restore_memory(struct driver *driver, u64 end);

/*
 * (Re)build the VM: RAM from its pristine copy, or the spare RAM where that has been done; info page; reset the vCPU;
 * state STARTING; runnable. What that changes goes to crash_memory first. Does not touch device, relay or rings, and
 * the device is blocked. Cannot fail.
 */
void driver_start(struct driver *driver);
/* The `ready` of a driver VM that starts: with `spare = yes`, the first of an image, it is what successors begin as. */
void driver_ready(struct driver *driver);
/* A running driver VM's successor is made ready, a piece each time. */
void driver_prepare_spare(struct driver *driver);
/* "ready": the next start is an exchange of RAM; "preparing": it has to finish the copy first; "none". */
const char *driver_spare_state(const struct driver *driver);

/* Frames in its nested page table and its device's tables, now. */
static inline u64 driver_table_frames(const struct driver *driver)
{
    return driver->vm->npt.frames + (driver->domain ? driver->domain->table.frames : 0);
}

/* Set event bits for the driver VM and wake it if it waits. */
void driver_signal(struct driver *driver, u32 events);

/* Boot, once the device is assigned: a message, else its line, else the driver polls, and the log says why. Opens it.
 */
void driver_interrupt_assign(struct driver *driver);
/* Let the device's interrupt in, at boot and at each restart. ERR_UNSUPPORTED: it does not take its message any more.
 */
NODISCARD status_t driver_interrupt_open(struct driver *driver);
/* From quiesce on, and when it storms. */
void driver_interrupt_close(struct driver *driver);

/* First request for bus mastering of this generation: leave the blocking domain, then set the bit. ERR_DENIED: no DMA.
 */
NODISCARD status_t driver_enable_dma(struct driver *driver);
