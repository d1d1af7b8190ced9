/*
 * A model of an NVMe 1.4 controller with one namespace: registers and queues behave as the specification says, switches
 * let the controller misbehave, and a rule that the driver breaks fails the test. On what disk drivers' tests share
 * (drivervm_disk_guest.h). For drivervm_nvme_test.c alone.
 */
#pragma once

#include "drivervm/drivers/nvme/nvme.h"
#include "tests/unit/drivervm_disk_guest.h"

#define DISK_BYTES sizeof(disk_data)
#define BAR 0xfeb00000ull

/* ---- the controller ---- */

struct model_queue {
    struct nvme_command *commands;
    struct nvme_completion *completions;
    u32 size, tail, head;        /* of the submission queue; tail is the driver's, head ours */
    u32 cq_tail, cq_head, phase; /* of the completion queue; cq_head is the driver's */
    bool has_cq, has_sq, interrupts;
};

static struct {
    u64 cap, asq, acq;
    u32 cc, csts, aqa, stride;
    u32 mdts, block_exp, nsid, oncs;
    u32 lag; /* looks at CSTS until RDY follows EN */
    struct model_queue queue[2];
    struct nvme_command fetched[NVME_DEPTH]; /* commands that we work on */
    u32 fetched_count, most_at_once;
    /* switches */
    bool stuck, deaf, silent_about_active, wrong_admin_id;
    u32 admin_fails; /* opcode that ends with an error */
    u64 bad_block;
    /* what happened */
    u32 reads, writes, flushes, zeroes, discards, deallocating_zeroes, disables, enables, interrupts;
    u32 waiting;
} ctrl;
static struct random ctrl_random;
static struct nvme_identify_namespace space_raw;
static struct nvme_identify_controller controller_raw;

static u64 disk_blocks(void)
{
    return DISK_BYTES >> ctrl.block_exp;
}

static void set_identities(void)
{
    memset(&space_raw, 0, sizeof(space_raw));
    memset(&controller_raw, 0, sizeof(controller_raw));
    space_raw.blocks = disk_blocks();
    space_raw.formats = 1;
    space_raw.format = 1;
    space_raw.lba_format[1] = ctrl.block_exp << 16;
    space_raw.nguid[0] = 0x1234;
    controller_raw.vendor[0] = 0x1b36;
    memset(controller_raw.serial, ' ', sizeof(controller_raw.serial));
    memcpy(controller_raw.serial, "SN-NVME", 7);
    memset(controller_raw.model, ' ', sizeof(controller_raw.model));
    memcpy(controller_raw.model, "MODEL", 5);
    controller_raw.mdts = (u8)ctrl.mdts;
    controller_raw.sqes = 0x66;
    controller_raw.cqes = 0x44;
    controller_raw.oncs = (u16)ctrl.oncs;
}

static void may_do_dma(void)
{
    assert_true(pci_command_register & PCI_COMMAND_MASTER);
    assert_true(ctrl.cc & CC_EN);
}

/* 4.6: the phase is written last. */
static void post(u32 id, u16 command, u16 status)
{
    struct model_queue *queue = &ctrl.queue[id];
    struct nvme_completion *entry = &queue->completions[queue->cq_tail];

    may_do_dma();
    assert_int_not_equal((queue->cq_tail + 1) % queue->size, queue->cq_head); /* never full */
    entry->head = (u16)queue->head;
    entry->queue = (u16)id;
    entry->id = command;
    entry->status = (u16)(status << 1 | queue->phase);
    if (++queue->cq_tail == queue->size) {
        queue->cq_tail = 0;
        queue->phase ^= 1;
    }
    ctrl.interrupts += queue->interrupts;
}

/* 4.3: all rules for PRPs; copies as it goes. */
static void move(const struct nvme_command *command, u8 *data, u64 bytes, bool to_memory)
{
    u64 at = command->prp1, skip = at & PAGE_MASK, list = command->prp2;
    u64 pages = (skip + bytes + PAGE_MASK) / PAGE_SIZE;

    assert_int_equal(at & 3, 0);
    if (ctrl.mdts)
        assert_true(bytes <= PAGE_SIZE << ctrl.mdts);
    if (pages == 1)
        assert_int_equal(command->prp2, 0);
    else if (pages == 2)
        list = (u64)&command->prp2;
    else
        assert_int_equal(list & 7, 0);
    if (pages > 2) /* our lists never go on in another page */
        assert_true((list & PAGE_MASK) + (pages - 1) * sizeof(u64) <= PAGE_SIZE);
    for (u64 i = 0; i < pages; i++) {
        if (i > 0) {
            memcpy(&at, (void *)(list + (i - 1) * sizeof(u64)), sizeof(at));
            assert_int_equal(at & PAGE_MASK, 0);
        }
        u64 n = PAGE_SIZE - (at & PAGE_MASK);
        n = n < bytes ? n : bytes;
        if (to_memory)
            memcpy((void *)at, data, n);
        else
            memcpy(data, (void *)at, n);
        data += n;
        bytes -= n;
    }
    assert_int_equal(bytes, 0);
}

static u16 identify_answer(const struct nvme_command *command)
{
    static u8 page[PAGE_SIZE];

    memset(page, 0, sizeof(page));
    if (command->dword[0] == IDENTIFY_CONTROLLER)
        memcpy(page, &controller_raw, PAGE_SIZE);
    else if (command->dword[0] == IDENTIFY_ACTIVE)
        memcpy(page, (u32[]){ctrl.nsid, ctrl.nsid ? ctrl.nsid + 2 : 0}, 8);
    else if (command->nsid == ctrl.nsid)
        memcpy(page, &space_raw, PAGE_SIZE);
    if (!(ctrl.silent_about_active && command->dword[0] == IDENTIFY_ACTIVE))
        move(command, page, PAGE_SIZE, true);
    return 0;
}

static void create_queue(const struct nvme_command *command, bool completion)
{
    struct model_queue *queue = &ctrl.queue[1];
    u32 size = (command->dword[0] >> 16) + 1;

    assert_int_equal(command->dword[0] & 0xffff, 1);
    assert_true(size >= 2 && size <= CAP_MQES((u32)ctrl.cap));
    assert_int_equal(command->prp1 & PAGE_MASK, 0);
    assert_true(command->dword[1] & QUEUE_CONTIGUOUS);
    if (completion) {
        assert_int_equal(command->dword[1] >> 16, 0); /* vector: the only one that is routed */
        queue->completions = (void *)command->prp1;
        queue->size = size;
        queue->phase = 1;
        queue->interrupts = command->dword[1] & QUEUE_INTERRUPTS;
        queue->has_cq = true;
        return;
    }
    assert_true(queue->has_cq);
    assert_int_equal(queue->size, size);
    assert_int_equal(command->dword[1] >> 16, 1);
    queue->commands = (void *)command->prp1;
    queue->has_sq = true;
}

static u16 run_admin(const struct nvme_command *command)
{
    if (ctrl.admin_fails == command->opcode)
        return 0x4002; /* do not retry, invalid field */
    switch (command->opcode) {
    case ADMIN_IDENTIFY:
        return identify_answer(command);
    case ADMIN_SET_FEATURES:
        assert_int_equal(command->dword[0], FEATURE_QUEUES);
        assert_false(ctrl.queue[1].has_cq); /* 5.21.1.7: before the first queue */
        return 0;
    case ADMIN_CREATE_CQ:
    case ADMIN_CREATE_SQ:
        create_queue(command, command->opcode == ADMIN_CREATE_CQ);
        return 0;
    default:
        fail_msg("admin command %02x", command->opcode);
        return 0;
    }
}

/* Admin commands end at once. */
static void admin_work(void)
{
    struct model_queue *queue = &ctrl.queue[0];

    while (!ctrl.deaf && queue->head != queue->tail) {
        may_do_dma();
        struct nvme_command command = queue->commands[queue->head];
        queue->head = (queue->head + 1) % queue->size;
        post(0, (u16)(command.id + ctrl.wrong_admin_id), run_admin(&command));
    }
}

static void fetch(void)
{
    struct model_queue *queue = &ctrl.queue[1];

    while (queue->head != queue->tail && ctrl.fetched_count < NVME_DEPTH) {
        ctrl.fetched[ctrl.fetched_count++] = queue->commands[queue->head];
        memset(&queue->commands[queue->head], 0xee, sizeof(struct nvme_command)); /* the place is the driver's again */
        queue->head = (queue->head + 1) % queue->size;
    }
    if (ctrl.fetched_count > ctrl.most_at_once)
        ctrl.most_at_once = ctrl.fetched_count;
}

static u16 run_io(const struct nvme_command *command)
{
    u64 lba = command->dword[0] | (u64)command->dword[1] << 32;
    u64 blocks = (command->dword[2] & 0xffff) + 1;
    struct nvme_range range = {.lba = lba, .blocks = (u32)blocks};

    assert_int_equal(command->flags, 0);
    assert_int_equal(command->nsid, ctrl.nsid);
    if (command->opcode == NVM_FLUSH) {
        ctrl.flushes++;
        return 0;
    }
    if (command->opcode == NVM_DATASET) {
        assert_int_equal(command->dword[0], 0);
        assert_int_equal(command->dword[1], DATASET_DEALLOCATE);
        move(command, (u8 *)&range, sizeof(range), false);
    }
    assert_true(range.blocks > 0 && range.lba + range.blocks <= disk_blocks());
    if (ctrl.bad_block >= range.lba && ctrl.bad_block < range.lba + range.blocks)
        return 0x281; /* media: unrecovered read error */
    u8 *data = disk_data + (range.lba << ctrl.block_exp);
    u64 bytes = (u64)range.blocks << ctrl.block_exp;
    switch (command->opcode) {
    case NVM_READ:
        ctrl.reads++;
        move(command, data, bytes, true);
        return 0;
    case NVM_WRITE:
        ctrl.writes++;
        move(command, data, bytes, false);
        return 0;
    case NVM_WRITE_ZEROES:
        ctrl.zeroes++;
        ctrl.deallocating_zeroes += (command->dword[2] & ZEROES_DEALLOCATE) != 0;
        memset(data, 0, bytes);
        return 0;
    case NVM_DATASET:
        ctrl.discards++;
        memset(data, 0xdd, bytes);
        return 0;
    default:
        fail_msg("command %02x", command->opcode);
        return 0;
    }
}

/* What the loop asks before it polls: here it may always look. */
static bool device_has_news(void)
{
    return true;
}

/* The controller ends one command of its choice; false: it has none. */
static bool disk_work(void)
{
    fetch();
    if (ctrl.fetched_count == 0)
        return false;
    may_do_dma();
    u64 n = random_below(&ctrl_random, ctrl.fetched_count);
    struct nvme_command command = ctrl.fetched[n];
    ctrl.fetched[n] = ctrl.fetched[--ctrl.fetched_count];
    u16 status = run_io(&command);
    post(1, command.id, status);
    return true;
}

/* ---- registers ---- */

static void write_cc(u32 value)
{
    bool enable = value & CC_EN, was = ctrl.cc & CC_EN;

    if (enable && !was) {
        assert_int_equal(ctrl.csts & CSTS_RDY, 0); /* 3.1.5 */
        assert_int_equal((ctrl.asq | ctrl.acq) & PAGE_MASK, 0);
        assert_true(pci_command_register & PCI_COMMAND_MASTER);
        assert_int_equal(value, CC_EN | 6u << 16 | 4u << 20);
        ctrl.queue[0] = (struct model_queue){
            .commands = (void *)ctrl.asq, .completions = (void *)ctrl.acq, .size = (ctrl.aqa & 0xfff) + 1, .phase = 1};
        assert_int_equal(ctrl.aqa >> 16, ctrl.aqa & 0xfff);
        ctrl.enables++;
    } else if (!enable && was) {
        assert_true(ctrl.csts & (CSTS_RDY | CSTS_CFS)); /* 3.1.5 */
        assert_false(pci_command_register & PCI_COMMAND_MASTER);
        memset(ctrl.queue, 0, sizeof(ctrl.queue));
        ctrl.fetched_count = 0;
        ctrl.disables++;
    } else {
        fail_msg("CC %08x written, was %08x", value, ctrl.cc);
    }
    ctrl.cc = value;
    ctrl.waiting = ctrl.lag;
}

static void write_doorbell(u64 offset, u32 value)
{
    u32 n = (u32)(offset / ctrl.stride);

    assert_int_equal(offset % ctrl.stride, 0);
    assert_true(n < 4);
    struct model_queue *queue = &ctrl.queue[n / 2];
    assert_true(value < queue->size);
    if (n % 2 == 0) {
        assert_true(n == 0 || queue->has_sq);
        assert_int_equal(value, (queue->tail + 1) % queue->size);
        assert_int_not_equal(value, queue->head); /* full */
        queue->tail = value;
        admin_work();
    } else {
        u32 seen = (value + queue->size - queue->cq_head) % queue->size;
        assert_true(seen > 0 && seen <= (queue->cq_tail + queue->size - queue->cq_head) % queue->size);
        queue->cq_head = value;
    }
}

void mmio_write32(u64 address, u32 value)
{
    u64 offset = address - BAR;

    if (offset == NVME_CC) {
        write_cc(value);
    } else if (offset == NVME_AQA) {
        assert_false(ctrl.cc & CC_EN);
        ctrl.aqa = value;
    } else {
        assert_true(offset >= NVME_DOORBELLS && offset < info.bar[0].size);
        assert_true(ctrl.csts & CSTS_RDY);
        write_doorbell(offset - NVME_DOORBELLS, value);
    }
}

void mmio_write64(u64 address, u64 value)
{
    assert_false(ctrl.cc & CC_EN);
    assert_true(address == BAR + NVME_ASQ || address == BAR + NVME_ACQ);
    *(address == BAR + NVME_ASQ ? &ctrl.asq : &ctrl.acq) = value;
}

static u32 read_csts(void)
{
    if (ctrl.waiting > 0)
        ctrl.waiting--;
    else if (!ctrl.stuck)
        ctrl.csts = (ctrl.csts & ~CSTS_RDY) | (ctrl.cc & CC_EN ? CSTS_RDY : 0);
    return ctrl.csts;
}

u32 mmio_read32(u64 address)
{
    switch (address - BAR) {
    case NVME_CAP:
        return (u32)ctrl.cap;
    case NVME_CAP + 4:
        return (u32)(ctrl.cap >> 32);
    case NVME_CC:
        return ctrl.cc;
    case NVME_CSTS:
        return read_csts();
    default:
        fail_msg("read of register %02llx", (unsigned long long)(address - BAR));
        return 0;
    }
}
