/*
 * A model of an AHCI 1.3.1 controller with one disk: registers behave as the specification says, switches let
 * controller and disk misbehave, and a rule that the driver breaks fails the test. For drivervm_ahci_world.h alone.
 */
#pragma once

#include "drivervm/drivers/ahci/ahci.h"
#include "tests/unit/drivervm_disk_guest.h"

#define ABAR 0xfeb00000ull

/* ---- the controller and its disk ---- */

static struct {
    u32 cap, ghc, is, pi, bohc;
    bool has_handoff;
    struct port {
        u32 clb, clbu, fb, fbu, is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
        bool device, cdrom;
        u32 queued, plain; /* slots accepted and not done */
        u32 seen;          /* those of queued that the running driver issued, and so wants the data of */
        u32 waiting;       /* like QEMU 7.2.22: those of ci whose slot was in use when they came */
        u32 held;          /* tags that the disk works on still, although the controller forgot them when ST went off */
        u32 refused;       /* like QEMU 7.2: slots whose DMA was refused. They never end, and no reset may find them */
    } port[6];
    /* switches */
    bool ncq, log_works, log_lies, stuck_reset, stuck_engine, busy_after_error, short_transfer;
    bool keeps_slots; /* like QEMU 7.2: clearing ST leaves PxSACT and PxCI as they are */
    bool ends_alone; /* queued commands end one by one while somebody looks: a predecessor's, nobody wants their data */
    u64 slow_until;  /* so long none of those ends */
    u64 die_at;      /* whoever looks at PxSACT then is killed; 0: nobody */
    u64 away_us;     /* the host gives nobody a CPU for so long at each look at PxSACT */
    u32 lingers;     /* a predecessor's flush in PxCI: it ends after so many looks, whether the port runs or not */
    bool clears_failed; /* like QEMU 7.2: a failed plain command leaves PxCI */
    u64 bad_sector;
    u32 identify_fails;
    /* what happened */
    u32 resets, link_resets, flushes, plain_count, queued_count, failed_tag, log_reads, interrupts, ignored;
} hba;
static struct random hba_random;
static jmp_buf hba_killed; /* where a start that ends at die_at goes on */

static void raise_bits(struct port *port, u32 bits)
{
    port->is |= bits;
    if (port->is & port->ie) {
        hba.is |= 1u << (port - hba.port);
        if (hba.ghc & GHC_IE)
            hba.interrupts++;
    }
}

static void reset_device(struct port *port)
{
    assert_int_equal(port->refused, 0); /* QEMU would stop here for good (docs/decisions/006) */
    if (hba.ends_alone)
        assert_int_equal(port->queued, 0); /* waiting would have been enough */
    port->sact = port->ci = port->queued = port->plain = port->seen = port->held = port->waiting = 0;
    port->tfd = port->device ? 0x50 : 0x7f;
    port->ssts = port->device ? 0x113 : 0;
    port->sig = port->cdrom ? 0xeb140101 : port->device ? SIG_ATA : ~0u;
}

static void reset_hba(void)
{
    hba.resets++;
    hba.ghc = 0;
    hba.is = 0;
    for (u32 n = 0; n < ARRAY_SIZE(hba.port); n++) {
        struct port *port = &hba.port[n];
        reset_device(port);
        *port = (struct port){.device = port->device, .cdrom = port->cdrom};
        reset_device(port);
    }
}

static const struct command_header *header_of(const struct port *port, u32 slot)
{
    const struct command_header *headers = (void *)((u64)port->clbu << 32 | port->clb);

    assert_int_equal((u64)headers & 1023, 0);
    assert_true(pci_command_register & PCI_COMMAND_MASTER);
    assert_true((u8 *)headers >= image_end && (u8 *)headers < image_end + sizeof(image_end));
    return &headers[slot];
}

static const struct command_table *table_of(const struct port *port, u32 slot)
{
    u64 table = header_of(port, slot)->table;

    assert_int_equal(table & 127, 0);
    return (const void *)table;
}

/* Move bytes between the PRDT and a buffer; every descriptor must obey AHCI 4.2.3.3. */
static void move(struct port *port, u32 slot, u8 *data, u64 bytes, bool to_memory)
{
    struct command_header *header = (struct command_header *)header_of(port, slot);
    const struct command_table *table = table_of(port, slot);
    u64 room = 0;

    for (u32 i = 0; i < header->prdt_length; i++) {
        const struct prd *prd = &table->prd[i];
        u64 length = (u64)(prd->count & 0x3fffff) + 1;
        assert_int_equal(prd->address & 1, 0);
        assert_int_equal(prd->count & 1, 1);
        assert_int_equal(prd->count & 0xffc00000, 0);
        u64 n = length < bytes - room ? length : bytes - room;
        if (to_memory)
            memcpy((void *)prd->address, data + room, n);
        else
            memcpy(data + room, (void *)prd->address, n);
        room += length;
    }
    assert_int_equal(room, bytes); /* neither too little nor too much */
    header->prd_bytes = hba.short_transfer ? 0 : (u32)bytes;
}

static u64 fis_lba(const struct fis_h2d *fis)
{
    u64 lba = 0;

    for (u32 i = 0; i < 3; i++)
        lba |= (u64)fis->lba_low[i] << 8 * i | (u64)fis->lba_high[i] << (24 + 8 * i);
    return lba;
}

static bool move_sectors(struct port *port, u32 slot, u32 count, bool write)
{
    u64 lba = fis_lba(&table_of(port, slot)->fis);

    count = count ? count : 65536;
    assert_true(lba + count <= DISK_SECTORS);
    assert_int_equal(!!(header_of(port, slot)->flags & HEADER_WRITE), write);
    if (hba.bad_sector >= lba && hba.bad_sector < lba + count)
        return false;
    move(port, slot, disk_data + lba * 512, count * 512ull, !write);
    return true;
}

static void fail_command(struct port *port, u32 slot)
{
    hba.failed_tag = slot;
    port->tfd = 0x40 | TFD_ERR | (hba.busy_after_error ? TFD_BSY : 0);
    if (hba.clears_failed && (port->plain & 1u << slot))
        port->ci &= ~(1u << slot);
    raise_bits(port, INT_TFES | (port->queued & 1u << slot ? INT_SDBS : INT_DHRS));
    if (hba.keeps_slots) /* QEMU's disk is done with it, although its bit stays in PxSACT */
        port->queued &= ~(1u << slot);
}

static bool read_log(struct port *port, u32 slot)
{
    u8 log[512] = {0};
    u8 sum = 0;

    hba.log_reads++;
    if (!hba.log_works)
        return false;
    log[0] = (u8)hba.failed_tag;
    if (hba.log_lies) /* a tag that nobody issued */
        log[0] = 31;
    for (u32 i = 0; i < 511; i++)
        sum += log[i];
    log[511] = (u8)-sum;
    move(port, slot, log, sizeof(log), true);
    return true;
}

static bool run_plain(struct port *port, u32 slot)
{
    const struct fis_h2d *fis = &table_of(port, slot)->fis;
    u32 count = fis->count_low | (u32)fis->count_high << 8;

    hba.plain_count++;
    switch (fis->command) {
    case ATA_IDENTIFY:
        if (hba.identify_fails)
            return false;
        move(port, slot, (u8 *)identity, 512, true);
        return true;
    case ATA_READ_DMA_EXT:
    case ATA_WRITE_DMA_EXT:
        return move_sectors(port, slot, count, fis->command == ATA_WRITE_DMA_EXT);
    case ATA_FLUSH_CACHE_EXT:
        hba.flushes++;
        return true;
    case ATA_READ_LOG_EXT:
        assert_int_equal(count, 1);
        assert_int_equal(fis_lba(fis), ATA_LOG_NCQ_ERROR);
        return read_log(port, slot);
    default:
        fail_msg("command %02x", fis->command);
        return false;
    }
}

static bool run_queued(struct port *port, u32 slot)
{
    const struct fis_h2d *fis = &table_of(port, slot)->fis;

    hba.queued_count++;
    assert_int_equal(fis->count_low >> 3, slot);
    return move_sectors(port, slot, fis->feature_low | (u32)fis->feature_high << 8,
                        fis->command == ATA_WRITE_FPDMA_QUEUED);
}

static bool is_queued_command(u8 command)
{
    return command == ATA_READ_FPDMA_QUEUED || command == ATA_WRITE_FPDMA_QUEUED;
}

/* PxCI was written: accept commands. Plain ones run at once, queued ones when the test calls disk_work(). */
static void issue(struct port *port, u32 bits)
{
    assert_true(port->cmd & CMD_ST);
    assert_int_equal(port->tfd & (TFD_BSY | TFD_DRQ | TFD_ERR), 0);
    assert_int_equal(port->ci & bits & ~port->waiting, 0);
    if (port->held) { /* SATA 3.2 13.6: whatever comes now, the disk ends all with an error */
        port->held = 0;
        fail_command(port, (u32)__builtin_ctz(bits));
        return;
    }
    for (u32 slot = 0; slot < 32; slot++) {
        if (!(bits & 1u << slot))
            continue;
        const struct fis_h2d *fis = &table_of(port, slot)->fis;
        assert_int_equal(fis->type, FIS_TYPE_H2D);
        assert_int_equal(fis->flags, FIS_COMMAND);
        assert_int_equal(header_of(port, slot)->flags & 0x1f, 5);
        if (is_queued_command(fis->command)) {
            assert_true(hba.ncq);
            assert_int_equal(port->plain, 0);
            assert_true(port->sact & 1u << slot);              /* 5.5.1: PxSACT first */
            if ((port->refused | port->queued) & 1u << slot) { /* QEMU 7.2.22: not accepted */
                assert_true(hba.keeps_slots || (port->refused & 1u << slot));
                hba.ignored += !(port->waiting & 1u << slot);
                port->ci |= 1u << slot; /* ... until PxCI is written again */
                port->waiting |= 1u << slot;
                continue;
            }
            port->ci &= ~(1u << slot);
            port->waiting &= ~(1u << slot);
            port->queued |= 1u << slot;
            port->seen |= 1u << slot;
        } else {
            if (!hba.keeps_slots)
                assert_int_equal(port->queued, 0); /* 5.3.2.3: never mixed */
            assert_int_equal(port->plain, 0);
            port->plain |= 1u << slot;
            port->ci |= 1u << slot;
        }
    }
}

static void finish_plain(struct port *port)
{
    u32 slot = (u32)__builtin_ctz(port->plain);

    if (run_plain(port, slot)) {
        port->ci &= ~(1u << slot);
        raise_bits(port, INT_DHRS);
        port->plain = 0;
    } else {
        fail_command(port, slot);
        port->plain = 0;
    }
}

static void end_alone(struct port *port)
{
    u32 left = port->queued & ~port->refused;
    u32 slot = left ? (u32)__builtin_ctz(left) : 0;

    if (!hba.ends_alone || !left || (port->tfd & TFD_ERR) || random_one_in(&hba_random, 2))
        return;
    if (now_us < hba.slow_until && !(port->seen & 1u << slot))
        return;
    if ((port->seen & 1u << slot) && !run_queued(port, slot)) {
        fail_command(port, slot);
        return;
    }
    port->queued &= ~(1u << slot);
    port->sact &= ~(1u << slot);
}

/* The disk finishes one command of its choice; false: it has none, or an error stopped it. */
static bool disk_work(struct port *port)
{
    u32 left = port->queued & ~port->refused;

    if (port->tfd & TFD_ERR)
        return false;
    if (port->plain) {
        finish_plain(port);
        return true;
    }
    if (!left)
        return false;
    for (u64 skip = random_below(&hba_random, (u64)__builtin_popcount(left)); skip > 0; skip--)
        left &= left - 1;
    u32 slot = (u32)__builtin_ctz(left);
    if (run_queued(port, slot)) {
        port->queued &= ~(1u << slot);
        port->sact &= ~(1u << slot);
        raise_bits(port, INT_SDBS);
    } else {
        fail_command(port, slot);
    }
    return true;
}

static void write_command(struct port *port, u32 value)
{
    u32 engine = CMD_CR | CMD_FR;

    if (!(value & CMD_FRE))
        assert_false(port->cmd & CMD_CR); /* 3.3.7: FRE stays while the list runs */
    if ((value & CMD_ST) && !(port->cmd & CMD_ST)) {
        assert_int_equal(port->tfd & (TFD_BSY | TFD_DRQ), 0); /* 10.3.1 */
        assert_true(port->cmd & CMD_FR);
        assert_true(pci_command_register & PCI_COMMAND_MASTER);
        port->tfd &= ~TFD_ERR;
    }
    if (port->refused !=
        0) /* no reset will follow, and QEMU would take the flush's end for that of our first command */
        assert_int_equal(hba.lingers, 0);
    if (!(value & CMD_ST) && (port->cmd & CMD_ST) && !hba.keeps_slots) {
        port->held = port->tfd & TFD_ERR ? 0 : port->queued & ~port->refused;
        port->sact = port->ci = port->queued = port->plain = port->waiting = 0; /* 3.3.14 */
    }
    if (!(value & CMD_ST) && hba.keeps_slots)
        port->plain = 0;
    port->cmd = (value & ~engine) | (value & CMD_ST ? CMD_CR : 0) | (value & CMD_FRE ? CMD_FR : 0);
    if (hba.stuck_engine && !(value & CMD_ST))
        port->cmd |= CMD_CR;
}

static void write_port(struct port *port, u32 offset, u32 value)
{
    switch (offset) {
    case PORT_CLB:
        port->clb = value;
        break;
    case PORT_CLBU:
        port->clbu = value;
        break;
    case PORT_FB:
        port->fb = value;
        break;
    case PORT_FBU:
        port->fbu = value;
        break;
    case PORT_IS:
        port->is &= ~value;
        break;
    case PORT_IE:
        port->ie = value;
        break;
    case PORT_CMD:
        write_command(port, value);
        break;
    case PORT_SCTL:
        if ((port->sctl & SCTL_DET_MASK) == SCTL_DET_RESET && !(value & SCTL_DET_MASK)) {
            assert_false(port->cmd & CMD_ST);
            hba.link_resets++;
            reset_device(port);
        }
        port->sctl = value;
        break;
    case PORT_SERR:
        port->serr &= ~value;
        break;
    case PORT_SACT:
        port->sact |= value;
        break;
    case PORT_CI:
        issue(port, value);
        break;
    default:
        fail_msg("write to port register %02x", offset);
    }
}

void mmio_write32(u64 address, u32 value)
{
    u64 offset = address - ABAR;

    if (offset >= HBA_PORT(0)) {
        assert_true(hba.ghc & GHC_AE);
        assert_true(offset < HBA_PORT(ARRAY_SIZE(hba.port)));
        write_port(&hba.port[(offset - 0x100) / 0x80], (u32)(offset - 0x100) % 0x80, value);
    } else if (offset == HBA_GHC) {
        hba.ghc = value;
        assert_true(!(value & GHC_HR) || !(pci_command_register & PCI_COMMAND_MASTER));
        if ((value & GHC_HR) && !hba.stuck_reset)
            reset_hba();
    } else if (offset == HBA_IS) {
        hba.is &= ~value;
    } else if (offset == HBA_BOHC) {
        assert_true(hba.has_handoff);
        hba.bohc = value & ~BOHC_BOS; /* the firmware lets go at once */
    } else {
        fail_msg("write to HBA register %02llx", (unsigned long long)offset);
    }
}

void mmio_write64(u64 address, u64 value)
{
    fail_msg("64-bit write of %llx to %llx", (unsigned long long)value, (unsigned long long)address);
}

static u32 read_port(struct port *port, u32 offset)
{
    switch (offset) {
    case PORT_IS:
        return port->is;
    case PORT_CMD:
        return port->cmd;
    case PORT_TFD:
        return port->tfd;
    case PORT_SIG:
        return port->sig;
    case PORT_SSTS:
        return port->ssts;
    case PORT_SCTL:
        return port->sctl;
    case PORT_SERR:
        return port->serr;
    case PORT_SACT:
        now_us += hba.away_us;
        if (hba.die_at && now_us > hba.die_at)
            longjmp(hba_killed, 1);
        end_alone(port);
        return port->sact;
    case PORT_CI: /* a driver that polls sees its plain command end on the second look */
        if (port->plain && !random_one_in(&hba_random, 2))
            disk_work(port);
        if (hba.lingers != 0 && --hba.lingers == 0)
            port->ci = 0;
        return port->ci;
    default:
        fail_msg("read of port register %02x", offset);
        return 0;
    }
}

u32 mmio_read32(u64 address)
{
    u64 offset = address - ABAR;

    if (offset >= HBA_PORT(0)) {
        assert_true(offset < HBA_PORT(ARRAY_SIZE(hba.port)));
        return read_port(&hba.port[(offset - 0x100) / 0x80], (u32)(offset - 0x100) % 0x80);
    }
    switch (offset) {
    case HBA_CAP:
        return hba.cap;
    case HBA_GHC:
        return hba.ghc;
    case HBA_IS:
        return hba.is;
    case HBA_PI:
        return hba.pi;
    case HBA_CAP2:
        return hba.has_handoff ? CAP2_BOH : 0;
    case HBA_BOHC:
        return hba.bohc;
    default:
        fail_msg("read of HBA register %02llx", (unsigned long long)offset);
        return 0;
    }
}

static bool device_has_news(void)
{
    return true;
}
