/*
 * Error recovery of the port (AHCI 1.3.1 6.2.2). An error stops the port with commands in its slots. One of them is to
 * blame, and only that one fails; the others run again, which is safe: reads and writes of whole sectors may be
 * repeated as long as they have not been answered.
 *
 *   stop -> (device still busy: reset the link) -> start
 *     -> one command was out: it is the one
 *     -> queued: ask the disk (READ LOG EXT, page 10h), fail that one, issue the rest
 *     -> it does not say: reset the link, run all of them singly and see which fails
 */
#include "drivervm/drivers/ahci/ahci.h"
#include "drivervm/runtime/io.h"

#define SINGLE_RUN_US 5000000u

static __attribute__((noreturn)) void give_up(const struct ahci *ahci, const char *what)
{
    log_line("ahci: port %u: %s, PxSSTS %08x PxTFD %08x PxSERR %08x", ahci->port_number, what,
             port_read(ahci, PORT_SSTS), port_read(ahci, PORT_TFD), port_read(ahci, PORT_SERR));
    driver_fault(DRIVER_FAULT_DEVICE, port_read(ahci, PORT_TFD));
}

/* Bring the port to a clean start; with its link reset when asked, or when the device is stuck in a command. */
static void restart_port(const struct ahci *ahci, bool reset_link)
{
    if (port_stop_commands(ahci) != OK)
        give_up(ahci, "does not stop");
    if (port_read(ahci, PORT_TFD) & (TFD_BSY | TFD_DRQ))
        reset_link = true;
    if (reset_link && ahci->lost)
        give_up(ahci, "a reset would touch lost slots");
    if (reset_link && port_reset_link(ahci) != OK)
        give_up(ahci, "link stays down");
    if (port_start(ahci) != OK)
        give_up(ahci, "stays busy");
}

/* Ask the disk which queued command failed. Its answer must be one that we gave it. */
static bool find_failed_tag(const struct ahci *ahci, u32 outstanding, u32 *tag)
{
    return port_fetch(ahci, ATA_READ_LOG_EXT, ATA_LOG_NCQ_ERROR) == OK &&
           ncq_log_tag(ahci->memory->fetched, tag) == OK && (outstanding & 1u << *tag);
}

static void run_singly(struct ahci *ahci, u32 outstanding)
{
    for (u32 slot = 0; slot < AHCI_SLOTS; slot++) {
        if (!(outstanding & 1u << slot))
            continue;
        struct blk_io *io = ahci->io[slot];
        fis_build_io(&ahci->memory->table[slot].fis, io, false, slot); /* the PRDT stays as it is */
        status_t status = port_run(ahci, slot, SINGLE_RUN_US);
        if (status == ERR_TIMEOUT)
            give_up(ahci, "no answer");
        if (status != OK) {
            log_line("ahci: I/O error at sector %llu, %u bytes", (unsigned long long)io->lba, io->bytes);
            restart_port(ahci, true);
        }
        blk_io_done(io, status == OK);
    }
}

static void issue_again(struct ahci *ahci, u32 slots)
{
    if (slots == 0)
        return;
    ahci->issued = slots;
    port_write(ahci, PORT_SACT, slots);
    port_write(ahci, PORT_CI, slots);
}

static void fail_one(struct ahci *ahci, u32 slot)
{
    struct blk_io *io = ahci->io[slot];

    log_line("ahci: I/O error at sector %llu, %u bytes", (unsigned long long)io->lba, io->bytes);
    blk_io_done(io, false);
}

void ahci_recover(struct ahci *ahci, u32 status)
{
    u32 outstanding = ahci->issued;
    u32 first = outstanding ? (u32)__builtin_ctz(outstanding) : 0;
    bool queued = outstanding && io_is_queued(ahci, ahci->io[first]);
    bool blamed = status & INT_TFES; /* else the link or the HBA failed, and no command is known to be at fault */
    u32 tag;

    log_line("ahci: port %u stopped: PxIS %08x PxSERR %08x PxTFD %08x, slots %08x", ahci->port_number, status,
             port_read(ahci, PORT_SERR), port_read(ahci, PORT_TFD), outstanding);
    ahci->issued = 0;
    restart_port(ahci, !blamed);
    if (blamed && outstanding && !queued) {
        fail_one(ahci, first);
    } else if (blamed && queued && find_failed_tag(ahci, outstanding, &tag)) {
        fail_one(ahci, tag);
        issue_again(ahci, outstanding & ~(1u << tag));
    } else if (outstanding) {
        if (blamed) /* what READ LOG EXT left behind, and commands that an HBA still runs although the port stopped */
            restart_port(ahci, true);
        run_singly(ahci, outstanding);
    }
}
