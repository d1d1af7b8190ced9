/* One port: its engine (AHCI 1.3.1 10.3), its link (10.4), and commands in its slots (5.5). */
#include "drivervm/drivers/ahci/ahci.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define ENGINE_STOP_US 500000u    /* 10.1.2: CR and FR clear within 500 ms */
#define DEVICE_READY_US 10000000u /* a disk may have to spin up first */
#define LINK_HOLD_US 1000u        /* 10.4.2: DET = 1 for at least 1 ms */
#define LINK_UP_US 1000000u
#define FETCH_US 5000000u
#define DRAIN_STEP_US 25000u
/* The offer has 2 s. On a busy host the hypervisor's clock for that runs up to twice as fast as device_wait_more()'s.
 */
#define DRAIN_SINGLE_STEPS 32u
/* No slot has moved for 100 ms of the time in which we ran: none will. A busy host's disk may pause for longer by the
 * clock. Less would not do: with bus mastering off QEMU takes a request of 1 MiB to its end in 256 pieces. */
#define DRAIN_STEPS 4u
/* Between two looks: each takes the lock in QEMU that the thread needs which lets commands end. */
#define DRAIN_LOOK_US 100u

u32 port_read(const struct ahci *ahci, u32 offset)
{
    return mmio_read32(ahci->port + offset);
}

void port_write(const struct ahci *ahci, u32 offset, u32 value)
{
    mmio_write32(ahci->port + offset, value);
}

status_t port_stop_commands(const struct ahci *ahci)
{
    port_write(ahci, PORT_CMD, port_read(ahci, PORT_CMD) & ~CMD_ST);
    return mmio_wait(ahci->port + PORT_CMD, CMD_CR, 0, ENGINE_STOP_US) ? OK : ERR_TIMEOUT;
}

status_t port_stop(const struct ahci *ahci)
{
    status_t status = port_stop_commands(ahci); /* FRE must stay on while CR is (3.3.7) */

    if (status != OK)
        return status;
    port_write(ahci, PORT_CMD, port_read(ahci, PORT_CMD) & ~CMD_FRE);
    return mmio_wait(ahci->port + PORT_CMD, CMD_FR, 0, ENGINE_STOP_US) ? OK : ERR_TIMEOUT;
}

static void pause_between_looks(void)
{
    for (u64 next = deadline_after(DRAIN_LOOK_US); !deadline_passed(next);)
        __builtin_ia32_pause();
}

/*
 * On silicon this takes no time: a command whose DMA is refused ends with a host bus error, and one that runs on ends.
 * In QEMU 7.2 a refused one hangs in its slot without an error, and resetting the HBA while it is there stops the
 * emulator for good (docs/decisions/006). So slots without progress are found before PxCMD.ST goes off, which clears
 * PxSACT (3.3.14).
 */
bool port_drain(const struct ahci *ahci, u32 known, struct drain *drain)
{
    struct device_wait still = device_wait_begin(DRAIN_STEP_US);

    for (drain->left = 0; !(port_read(ahci, PORT_IS) & INT_ERRORS);) {
        u32 queued = port_read(ahci, PORT_SACT) & ~known;
        u32 single = port_read(ahci, PORT_CI) & ~known & ~queued; /* one that waits to be accepted counts as queued */
        bool more = device_wait_more(&still);
        if ((single | queued) == 0)
            return true;
        if ((single | queued) != drain->slots) {
            *drain = (struct drain){.slots = single | queued};
            still = device_wait_begin(DRAIN_STEP_US);
        } else if (!more) {
            /* One that is not queued, say a flush, must not meet our own in its slot, so it has time unless a reset
             * ends it. */
            drain->steps++;
            drain->left = queued;
            return drain->steps >= (single && (queued | known) ? DRAIN_SINGLE_STEPS : DRAIN_STEPS);
        }
        pause_between_looks();
    }
    return true;
}

static bool wait_idle(const struct ahci *ahci)
{
    return mmio_wait(ahci->port + PORT_TFD, TFD_BSY | TFD_DRQ, 0, DEVICE_READY_US);
}

static void clear_errors(const struct ahci *ahci)
{
    port_write(ahci, PORT_SERR, ~0u); /* first: PxIS.PCS and PRCS only mirror bits of PxSERR (3.3.5) */
    port_write(ahci, PORT_IS, ~0u);
    mmio_write32(ahci->hba + HBA_IS, 1u << ahci->port_number);
}

status_t port_prepare(const struct ahci *ahci)
{
    u64 headers = dma_address((u64)ahci->memory->header);
    u64 received = dma_address((u64)ahci->memory->received);

    port_write(ahci, PORT_CLB, (u32)headers);
    port_write(ahci, PORT_CLBU, (u32)(headers >> 32));
    port_write(ahci, PORT_FB, (u32)received);
    port_write(ahci, PORT_FBU, (u32)(received >> 32));
    clear_errors(ahci);
    /* The device's first FIS sits in the HBA until there is a place for it; PxTFD and PxSIG come from it (10.3.2). */
    port_write(ahci, PORT_CMD, port_read(ahci, PORT_CMD) | CMD_FRE);
    return wait_idle(ahci) ? OK : ERR_TIMEOUT;
}

status_t port_start(const struct ahci *ahci)
{
    clear_errors(ahci);
    if (!wait_idle(ahci))
        return ERR_TIMEOUT;
    port_write(ahci, PORT_CMD, port_read(ahci, PORT_CMD) | CMD_ST);
    return OK;
}

status_t port_reset_link(const struct ahci *ahci)
{
    u32 control = port_read(ahci, PORT_SCTL) & ~SCTL_DET_MASK;

    port_write(ahci, PORT_SCTL, control | SCTL_DET_RESET);
    spin_us(LINK_HOLD_US);
    port_write(ahci, PORT_SCTL, control);
    return mmio_wait(ahci->port + PORT_SSTS, SSTS_DET_MASK, SSTS_DET_READY, LINK_UP_US) ? OK : ERR_IO;
}

static void header_fill(struct command_header *header, const struct command_table *table, u32 prds, bool write)
{
    *header = (struct command_header){.flags = sizeof(struct fis_h2d) / 4 | (write ? HEADER_WRITE : 0),
                                      .prdt_length = (u16)prds,
                                      .table = dma_address((u64)table)};
}

bool io_is_queued(const struct ahci *ahci, const struct blk_io *io)
{
    return ahci->queued && io->op != BLK_FLUSH;
}

bool slot_fill(const struct ahci *ahci, u32 slot, struct blk_io *io)
{
    struct command_table *table = &ahci->memory->table[slot];
    u32 prds = prdt_build(table->prd, io);

    if (prds == 0 && io->bytes != 0)
        return false;
    fis_build_io(&table->fis, io, io_is_queued(ahci, io), slot);
    header_fill(&ahci->memory->header[slot], table, prds, io->op == BLK_WRITE);
    return true;
}

status_t port_run(const struct ahci *ahci, u32 slot, u64 timeout_us)
{
    ahci->memory->header[slot].prd_bytes = 0;
    port_write(ahci, PORT_CI, 1u << slot);
    for (struct device_wait wait = device_wait_begin(timeout_us);;) {
        bool idle = !(port_read(ahci, PORT_CI) & 1u << slot);
        /* In this order: some HBAs (QEMU's) clear PxCI of a failed command too, but never before they set the error. */
        if (port_read(ahci, PORT_IS) & (INT_ERRORS | INT_PCS) || (idle && port_read(ahci, PORT_TFD) & TFD_ERR))
            return ERR_IO;
        if (idle)
            return OK;
        if (!device_wait_more(&wait))
            return ERR_TIMEOUT;
    }
}

/* In the first slot that is not lost, or may not be; what its header held comes back. */
status_t port_fetch(const struct ahci *ahci, u8 command, u8 log)
{
    struct ahci_memory *memory = ahci->memory;

    if (ahci->refused == ~0u)
        return ERR_NO_SPACE;
    u32 slot = (u32)__builtin_ctz(~ahci->lost ? ~ahci->lost : ~ahci->refused);
    struct command_header saved = memory->header[slot];
    fis_build_fetch(&memory->fetch_table.fis, command, log);
    memory->fetch_table.prd[0] =
        (struct prd){.address = dma_address((u64)memory->fetched), .count = sizeof(memory->fetched) - 1};
    header_fill(&memory->header[slot], &memory->fetch_table, 1, false);
    status_t status = port_run(ahci, slot, FETCH_US);
    /* A short answer would leave the bytes of an earlier one. */
    if (status == OK && __atomic_load_n(&memory->header[slot].prd_bytes, __ATOMIC_ACQUIRE) != sizeof(memory->fetched))
        status = ERR_IO;
    memory->header[slot] = saved;
    return status;
}

/* A read of the disk's first sector, as a queued command; nobody wants the data. */
static void fill_probe(const struct ahci *ahci, u32 slot)
{
    struct ahci_memory *memory = ahci->memory;
    struct command_table *table = &memory->table[slot];
    struct blk_io io = {.op = BLK_READ, .bytes = VIRTIO_BLK_SECTOR};

    fis_build_io(&table->fis, &io, true, slot);
    table->prd[0] = (struct prd){.address = dma_address((u64)memory->fetched), .count = sizeof(memory->fetched) - 1};
    header_fill(&memory->header[slot], table, 1, false);
}

/* The slots that show neither progress nor an error for 100 ms of the time in which we run. */
static u32 wait_for_probes(const struct ahci *ahci, u32 slots)
{
    struct device_wait still = device_wait_begin(DRAIN_STEPS * DRAIN_STEP_US);
    u32 left = slots, before = 0;

    while (left && !(port_read(ahci, PORT_IS) & INT_ERRORS)) {
        u32 working = port_read(ahci, PORT_SACT) & slots;
        u32 waiting = port_read(ahci, PORT_CI) & slots & ~working; /* in this order: PxCI is the first to be cleared */
        /* QEMU looks at a command that it did not accept when PxCI is written: the slow one has ended, now ours. */
        if (waiting) {
            port_write(ahci, PORT_SACT, waiting);
            port_write(ahci, PORT_CI, waiting);
        }
        left = working | waiting;
        if (left != before)
            still = device_wait_begin(DRAIN_STEPS * DRAIN_STEP_US);
        else if (!device_wait_more(&still))
            break;
        before = left;
        pause_between_looks();
    }
    return left;
}

/*
 * A slot whose command was never issued takes ours and ends with it. QEMU 7.2 does not accept a command in a slot that
 * it works on, so one with a refused DMA stays as it is; and one that was only slow ends, and ours after it, before
 * anybody is served. On silicon all of them take ours, since PxCMD.ST = 0 has cleared PxSACT (3.3.14) and the disk has
 * obeyed our IDENTIFY, which it answers with an error as long as it holds queued commands (SATA 3.2 13.6).
 */
void port_reclaim(struct ahci *ahci)
{
    u32 slots = ahci->lost & ~ahci->refused;

    for (u32 left = slots; left; left &= left - 1)
        fill_probe(ahci, (u32)__builtin_ctz(left));
    if (slots == 0)
        return;
    port_write(ahci, PORT_SACT, slots);
    port_write(ahci, PORT_CI, slots);
    u32 left = wait_for_probes(ahci, slots);
    bool error = port_read(ahci, PORT_IS) & INT_ERRORS; /* a bad sector, say: proves nothing for those still there */
    ahci->refused |= left;
    /* Clears PxCI too (3.3.14), which QEMU looks through at each write; and the disk wants its log read (6.2.2.2). */
    if (left && (port_stop_commands(ahci) != OK || port_start(ahci) != OK))
        log_line("ahci: port %u does not start again", ahci->port_number);
    else if (error && port_fetch(ahci, ATA_READ_LOG_EXT, ATA_LOG_NCQ_ERROR) != OK)
        log_line("ahci: port %u: no log after an error", ahci->port_number);
    ahci->lost = ahci->refused;
    log_line("ahci: tried slots %08x with a command of our own, given up %08x", slots, left);
}
