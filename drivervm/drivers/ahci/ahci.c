/*
 * A SATA disk behind an AHCI 1.3.1 controller. Reads top to bottom as chapter 10.1.2 does: take the controller over,
 * reset it, find the disk, identify it, then submit and poll. One disk, the first one found, and after a restart the
 * same one. Whatever ran before us, firmware or a crashed predecessor, ends with the reset: until then bus mastering is
 * off, and afterwards no port has a pointer of theirs.
 */
#include "drivervm/drivers/ahci/ahci.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define HBA_BAR 5u /* 2.1.11: ABAR */

#define RESET_US 1000000u /* 10.4.3 */
#define HANDOFF_US 25000u /* 10.6.3 */
#define HANDOFF_BUSY_US 2000000u
#define LINK_SETTLE_US 20000u   /* a device answers COMRESET within 10 ms (SATA 3.2 8.4.1) */
#define LINK_RETURN_US 1000000u /* the disk that was there before the restart */

/* What a successor must know: which disk the guest has been using, and what is broken about the way to it. */
struct ahci_stash {
    u32 port;
    u32 lost;           /* slots of which it was not known yet whether a command hangs in them (port_drain) ... */
    u32 refused;        /* ... and those that no command may use any more (port_reclaim) */
    struct drain drain; /* of one that did not live to its end; kills may come faster than that */
    char serial[20];
};

static struct ahci ahci;

static u32 hba_read(u32 offset)
{
    return mmio_read32(ahci.hba + offset);
}

static void hba_write(u32 offset, u32 value)
{
    mmio_write32(ahci.hba + offset, value);
}

/* 10.6.3: ask the firmware, if it still drives the controller, to leave. If it does not, the reset will make it. */
static void hba_take_over(void)
{
    if (!(hba_read(HBA_CAP2) & CAP2_BOH))
        return;
    hba_write(HBA_BOHC, hba_read(HBA_BOHC) | BOHC_OOS);
    if (mmio_wait(ahci.hba + HBA_BOHC, BOHC_BOS, 0, HANDOFF_US) || !(hba_read(HBA_BOHC) & BOHC_BB))
        return;
    if (!mmio_wait(ahci.hba + HBA_BOHC, BOHC_BOS, 0, HANDOFF_BUSY_US))
        log_line("ahci: the firmware keeps the controller");
}

static status_t hba_reset(void)
{
    hba_write(HBA_GHC, GHC_AE); /* 3.1.2: AE before anything else; interrupts off */
    hba_write(HBA_GHC, GHC_AE | GHC_HR);
    if (!mmio_wait(ahci.hba + HBA_GHC, GHC_HR, 0, RESET_US))
        return ERR_TIMEOUT;
    hba_write(HBA_GHC, GHC_AE);
    ahci.capabilities = hba_read(HBA_CAP);
    return OK;
}

static u32 implemented_ports(void)
{
    u64 fit = (driver_info->bar[HBA_BAR].size - HBA_PORT(0)) / (HBA_PORT(1) - HBA_PORT(0));

    return fit < HBA_PORTS ? hba_read(HBA_PI) & ((1u << fit) - 1) : hba_read(HBA_PI);
}

static void select_port(u32 number)
{
    ahci.port_number = number;
    ahci.port = ahci.hba + HBA_PORT(number);
}

/*
 * There was a predecessor, but its stash is not one of ours: a fault may have overwritten it. Then each slot may be a
 * lost one, and only a try can tell (port_reclaim).
 */
static status_t hba_settle_blindly(void)
{
    u32 ports = implemented_ports();

    for (u32 n = 0; n < HBA_PORTS; n++) {
        struct drain drain = {0};
        if (!(ports & 1u << n))
            continue;
        select_port(n);
        while (!port_drain(&ahci, 0, &drain))
            ; /* nobody to leave word for: a bounded number of times */
        if (port_stop(&ahci) != OK)
            return hba_reset();
    }
    log_line("ahci: no reset: no word from a predecessor, each slot is tried");
    ahci.lost = ~0u;
    ahci.refused = 0;
    hba_write(HBA_GHC, GHC_AE);
    ahci.capabilities = hba_read(HBA_CAP);
    return OK;
}

/* What a predecessor left in the slots ends first; then a reset, unless some of it never ends (port_drain says why). */
static status_t hba_settle(struct ahci_stash *predecessor)
{
    if (!predecessor && driver_info->generation > 0)
        return hba_settle_blindly();
    if (!predecessor || predecessor->port >= HBA_PORTS || !(implemented_ports() & 1u << predecessor->port))
        return hba_reset();
    select_port(predecessor->port);
    ahci.refused = predecessor->refused;
    while (!port_drain(&ahci, ahci.refused, &predecessor->drain))
        if (stash_save(predecessor, sizeof(*predecessor)) != OK)
            return ERR_STATE;
    ahci.lost = predecessor->lost | predecessor->drain.left;
    if (!ahci.lost)
        return hba_reset();
    log_line("ahci: no reset: in slots %08x commands seem to hang", ahci.lost);
    predecessor->lost = ahci.lost;
    status_t status = stash_save(predecessor, sizeof(*predecessor)); /* now: we may not live to find the disk */
    if (status != OK)
        return status;
    hba_write(HBA_GHC, GHC_AE);
    ahci.capabilities = hba_read(HBA_CAP);
    return port_stop(&ahci);
}

static status_t hba_open(struct ahci_stash *predecessor)
{
    const struct driver_bar *bar = &driver_info->bar[HBA_BAR];

    if (bar->kind != DRIVER_BAR_MEMORY || bar->size < HBA_PORT(1))
        return ERR_NOT_FOUND;
    ahci.hba = bar->address;
    status_t status = pci_command(PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, PCI_COMMAND_MASTER);
    if (status != OK)
        return status;
    hba_take_over();
    status = hba_settle(predecessor);
    if (status != OK)
        return status;
    ahci.memory = dma_alloc(sizeof(*ahci.memory), PAGE_SIZE);
    if (!ahci.memory)
        return ERR_NO_MEMORY;
    /* All ports stand still and know no address: from here on the controller may be let loose. */
    return pci_command(PCI_COMMAND_MASTER, 0);
}

/* Let every port look for its device: power and spin it up (10.10.1), interrupts off, link kept awake. */
static void wake_ports(u32 ports)
{
    for (u32 n = 0; n < HBA_PORTS; n++) {
        if (!(ports & 1u << n))
            continue;
        select_port(n);
        port_write(&ahci, PORT_IE, 0);
        port_write(&ahci, PORT_SCTL, SCTL_IPM_NONE);
        port_write(&ahci, PORT_CMD, CMD_SUD | CMD_POD | CMD_ICC_ACTIVE);
    }
}

static bool port_has_link(void)
{
    return (port_read(&ahci, PORT_SSTS) & SSTS_DET_MASK) == SSTS_DET_READY;
}

/* Is the selected port's device a disk? If so the port is left ready to start, if not stopped. */
static bool port_is_disk(void)
{
    if (!port_has_link())
        return false;
    if (port_prepare(&ahci) == OK && port_read(&ahci, PORT_SIG) == SIG_ATA)
        return true;
    if (port_stop(&ahci) != OK)
        log_line("ahci: port %u does not stop", ahci.port_number);
    return false;
}

/* First start: give all links the time they may take, then the lowest port with a disk; a quick one must not win. */
static status_t find_disk(u32 ports)
{
    struct device_wait wait = device_wait_begin(LINK_SETTLE_US);
    u32 linked;

    do {
        linked = 0;
        for (u32 n = 0; n < HBA_PORTS; n++) {
            if (ports & 1u << n) {
                select_port(n);
                linked |= port_has_link() ? 1u << n : 0;
            }
        }
    } while (linked != ports && device_wait_more(&wait));
    for (u32 n = 0; n < HBA_PORTS; n++) {
        select_port(n);
        if ((linked & 1u << n) && port_is_disk())
            return OK;
    }
    return ERR_NOT_FOUND;
}

/* After a restart: only the disk that the guest knows will do, and it is ready as soon as its link is. */
static status_t find_same_disk(u32 ports, const struct ahci_stash *stash)
{
    if (stash->port >= HBA_PORTS || !(ports & 1u << stash->port))
        return ERR_NOT_FOUND;
    select_port(stash->port);
    if (!mmio_wait(ahci.port + PORT_SSTS, SSTS_DET_MASK, SSTS_DET_READY, LINK_RETURN_US))
        return ERR_NOT_FOUND;
    return port_is_disk() ? OK : ERR_NOT_FOUND;
}

static status_t identify(void)
{
    u16 words[256];
    status_t status = port_start(&ahci);

    if (status == OK)
        status = port_fetch(&ahci, ATA_IDENTIFY, 0);
    if (status != OK)
        return status;
    memcpy(words, ahci.memory->fetched, sizeof(words)); /* once: the device could still write there */
    status = ata_parse_identity(words, &ahci.identity);
    if (status != OK)
        return status;
    return ahci.identity.dma && ahci.identity.lba48 && ahci.identity.flush_ext ? OK : ERR_UNSUPPORTED;
}

/* Queued commands need both ends. */
static bool can_queue(void)
{
    return (ahci.capabilities & CAP_SNCQ) && ahci.identity.queue_depth > 0;
}

static status_t find_and_identify(const struct ahci_stash *predecessor)
{
    struct ahci_stash now = {0};
    u32 ports = implemented_ports();

    wake_ports(ports);
    status_t status = predecessor ? find_same_disk(ports, predecessor) : find_disk(ports);
    if (status == OK)
        status = identify();
    if (status != OK)
        return status;
    if (can_queue())
        port_reclaim(&ahci);
    else
        ahci.lost = ahci.refused; /* only queued commands leave lost slots */
    now.port = ahci.port_number;
    now.lost = ahci.lost;
    now.refused = ahci.refused;
    memcpy(now.serial, ahci.identity.serial, sizeof(now.serial));
    if (predecessor && memcmp(now.serial, predecessor->serial, sizeof(now.serial)) != 0)
        return ERR_STATE; /* somebody swapped the disk */
    return stash_save(&now, sizeof(now));
}

/* Without queued commands one at a time, which leaves no doubt about which one failed. */
static u32 choose_depth(void)
{
    u32 slots = CAP_NCS(ahci.capabilities);
    u32 depth = 0;

    ahci.queued = can_queue();
    if (ahci.queued && slots > ahci.identity.queue_depth)
        slots = ahci.identity.queue_depth;
    for (u32 slot = 0; slot < slots; slot++)
        if (!(ahci.lost & 1u << slot))
            ahci.slot_of[depth++] = slot;
    return ahci.queued || depth == 0 ? depth : 1;
}

static void describe(struct blk_disk *disk)
{
    disk->sectors = ahci.identity.sectors;
    disk->physical_block_exp = ahci.identity.physical_block_exp;
    disk->alignment_offset = ahci.identity.alignment_offset;
    memcpy(disk->id, ahci.identity.serial, sizeof(disk->id));
    disk->limits = (struct blk_limits){.depth = choose_depth(),
                                       .max_pieces = AHCI_PRDS,
                                       .max_piece = PRD_MAX_BYTES,
                                       .max_bytes = ATA_MAX_SECTORS * VIRTIO_BLK_SECTOR,
                                       .alignment = 2, /* 4.2.3.3 */
                                       .address_end = ahci.capabilities & CAP_S64A ? 0 : GIB(4)};
}

static void enable_interrupts(void)
{
    port_write(&ahci, PORT_IS, ~0u);
    hba_write(HBA_IS, ~0u);
    port_write(&ahci, PORT_IE, INT_WANTED);
    if (driver_info->interrupts)
        hba_write(HBA_GHC, GHC_AE | GHC_IE);
}

/*
 * The disk answers IDENTIFY with an error: it works on queued commands still, only slowly, and so no emulator is before
 * us in which one hangs (port_reclaim). What such a disk wants is a reset (SATA 3.2 13.6).
 */
static status_t hba_reset_after_all(void)
{
    status_t status = pci_command(0, PCI_COMMAND_MASTER);

    ahci.lost = 0;
    if (status == OK)
        status = hba_reset();
    return status == OK ? pci_command(PCI_COMMAND_MASTER, 0) : status;
}

static status_t start(struct blk_disk *disk)
{
    u64 began = tsc_read();
    struct ahci_stash stash;
    struct ahci_stash *predecessor = stash_load(&stash, sizeof(stash)) ? &stash : NULL;
    status_t status = hba_open(predecessor);

    if (status == OK)
        status = find_and_identify(predecessor);
    if (status == ERR_IO && ahci.lost && !ahci.refused) {
        status = hba_reset_after_all();
        if (status == OK)
            status = find_and_identify(predecessor);
    }
    if (status != OK)
        return status;
    describe(disk);
    if (disk->limits.depth == 0)
        return ERR_NO_SPACE; /* each slot holds a command that never ends */
    enable_interrupts();
    log_line("ahci: port %u, %s, %llu sectors, %s, %u slots, ready after %llu us", ahci.port_number,
             ahci.identity.model, (unsigned long long)disk->sectors, ahci.queued ? "NCQ" : "no NCQ", disk->limits.depth,
             (unsigned long long)microseconds_since(began));
    return OK;
}

static void submit(struct blk_io *io)
{
    u32 slot = ahci.slot_of[io->index];
    u32 bit = 1u << slot;

    DRIVER_CHECK(!(ahci.issued & bit) && slot_fill(&ahci, slot, io));
    ahci.io[slot] = io;
    ahci.issued |= bit;
    if (io_is_queued(&ahci, io))
        port_write(&ahci, PORT_SACT, bit); /* 5.5.1: before PxCI */
    port_write(&ahci, PORT_CI, bit);
}

/* Did the single non-queued command in `slot` do what it was to do? PRDBC counts for such commands (5.4.1). */
static bool moved_all(u32 slot)
{
    const struct blk_io *io = ahci.io[slot];

    return io_is_queued(&ahci, io) ||
           __atomic_load_n(&ahci.memory->header[slot].prd_bytes, __ATOMIC_ACQUIRE) == io->bytes;
}

static void finish_slots(u32 done)
{
    ahci.issued &= ~done;
    for (; done; done &= done - 1) {
        u32 slot = (u32)__builtin_ctz(done);
        blk_io_done(ahci.io[slot], moved_all(slot));
    }
}

/* Slots that the HBA no longer works on. The device may not know of more than we issued. */
static u32 slots_done(void)
{
    u32 working = (port_read(&ahci, PORT_SACT) | port_read(&ahci, PORT_CI)) & ~ahci.lost;

    if (working & ~ahci.issued) {
        log_line("ahci: port %u works on slots %08x, issued were %08x", ahci.port_number, working, ahci.issued);
        driver_fault(DRIVER_FAULT_DEVICE, working);
    }
    return ahci.issued & ~working;
}

/* A queued command that failed stays in PxSACT, so what left it is good. One that is not queued may leave PxCI too. */
static bool slots_are_good(u32 done, u32 status)
{
    return io_is_queued(&ahci, ahci.io[__builtin_ctz(done)]) ||
           !((status & INT_ERRORS) || (port_read(&ahci, PORT_TFD) & TFD_ERR));
}

static bool poll(void)
{
    u32 status = port_read(&ahci, PORT_IS);

    if (status) { /* 10.7.2.1: the port's bits, then the HBA's, then look: what happens later raises a new interrupt */
        port_write(&ahci, PORT_IS, status);
        hba_write(HBA_IS, 1u << ahci.port_number);
    }
    if ((status & INT_LINK) && !port_has_link()) {
        log_line("ahci: port %u: the disk is gone", ahci.port_number);
        driver_fault(DRIVER_FAULT_DEVICE, status);
    }
    u32 done = ahci.issued ? slots_done() : 0;
    if (done && slots_are_good(done, status))
        finish_slots(done);
    else if (done)
        status |= INT_TFES;
    if (status & (INT_ERRORS | INT_LINK))
        ahci_recover(&ahci, status);
    return done != 0 || (status & (INT_ERRORS | INT_LINK));
}

const struct blk_driver blk_driver = {.name = "ahci", .start = start, .submit = submit, .poll = poll};
