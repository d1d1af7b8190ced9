/* The parts of the AHCI driver and their one state. Context: the driver VM's only thread. */
#pragma once

#include "drivervm/drivers/ahci/command.h"
#include "drivervm/drivers/ata/identity.h"

/* What the HBA reads and writes in our RAM (AHCI 1.3.1 4.1). */
struct ahci_memory {
    struct command_header header[AHCI_SLOTS]; /* 1 KiB aligned */
    u8 received[AHCI_FIS_BYTES];              /* 256-byte aligned; never read: the registers say what we need */
    u8 fetched[512];                          /* IDENTIFY and log pages land here */
    u8 padding[4096 - 1024 - AHCI_FIS_BYTES - 512];
    struct command_table table[AHCI_SLOTS];
    struct command_table fetch_table; /* for commands of our own, whatever the slots hold */
};
_Static_assert(offsetof(struct ahci_memory, received) % 256 == 0, "AHCI 3.3.3");
_Static_assert(offsetof(struct ahci_memory, table) % 128 == 0, "AHCI 4.2.2");

/* How long slots have been standing still (port_drain). */
struct drain {
    u32 slots, steps;
    u32 left;
};

struct ahci {
    u64 hba;  /* address of the registers */
    u64 port; /* of the chosen port's registers */
    u32 port_number;
    u32 capabilities; /* HBA_CAP */
    struct ahci_memory *memory;
    struct ata_identity identity;
    bool queued;                   /* reads and writes go as native queued commands */
    u32 lost;                      /* slots in which a predecessor's command seems to hang (port_drain) */
    u32 refused;                   /* those of them that our own command did not free either (port_reclaim) */
    u32 issued;                    /* slots that the HBA works on */
    u32 slot_of[AHCI_SLOTS];       /* blk_io.index -> slot: the lost ones are left out */
    struct blk_io *io[AHCI_SLOTS]; /* behind each of them */
};

/* ---- port.c: one port's engine; times in microseconds ---- */

/* Registers of the chosen port. */
u32 port_read(const struct ahci *ahci, u32 offset);
void port_write(const struct ahci *ahci, u32 offset, u32 value);

/* Stop command processing and FIS reception (10.1.2, 10.3.2). ERR_TIMEOUT: only a reset of the HBA helps. */
NODISCARD status_t port_stop_commands(const struct ahci *ahci);
NODISCARD status_t port_stop(const struct ahci *ahci);

/*
 * Let the queued commands that a predecessor left in the slots end. True: it is over, and drain->left are the slots
 * that showed neither progress nor an error for 100 ms. False: nothing has moved for 25 ms; call again. drain may be a
 * predecessor's, who did not live to the end. `known` are slots of which it is known already that they do not move. A
 * command that is not queued has longer when slots forbid a reset.
 */
NODISCARD bool port_drain(const struct ahci *ahci, u32 known, struct drain *drain);

/*
 * Give the slots in ahci->lost that were not tried yet a command of our own: those that it leaves are free again, the
 * others are ahci->refused from then on. The disk is identified and idle, its port runs; up to 100 ms without progress.
 */
void port_reclaim(struct ahci *ahci);

/* Give the port its memory, let it receive FISes, wait until the device is idle. ERR_TIMEOUT: it stays busy. */
NODISCARD status_t port_prepare(const struct ahci *ahci);

/* Start command processing; the device is idle. Clears errors of the past (6.2.2.1). */
NODISCARD status_t port_start(const struct ahci *ahci);

/* Reset the link and with it the device (10.4.2). ERR_IO: no link afterwards. */
NODISCARD status_t port_reset_link(const struct ahci *ahci);

/* Run the non-queued command in a slot to its end, polling; nothing else runs. ERR_IO: the device says error.
 * ERR_TIMEOUT. */
NODISCARD status_t port_run(const struct ahci *ahci, u32 slot, u64 timeout_us);

/* Run a command that reads one 512-byte block into memory->fetched; nothing else runs. Slot contents survive. As
 * port_run. */
NODISCARD status_t port_fetch(const struct ahci *ahci, u8 command, u8 log);

/* Fill slot's command table and header for io. False: io breaks the limits that we named. */
NODISCARD bool slot_fill(const struct ahci *ahci, u32 slot, struct blk_io *io);

/* Do I/Os of this kind go as queued commands? */
bool io_is_queued(const struct ahci *ahci, const struct blk_io *io);

/* ---- recover.c ---- */

/* The port stands still with an error (`status`: PxIS): bring it back, answer the request that failed, run the others.
 */
void ahci_recover(struct ahci *ahci, u32 status);
