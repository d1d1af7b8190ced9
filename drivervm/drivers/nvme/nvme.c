/*
 * A disk behind an NVMe 1.4 controller. Reads top to bottom as chapter 7.6.1 does: disable the controller, give it its
 * admin queue, enable it, identify it and its first active namespace, create one pair of I/O queues, then submit and
 * poll. After a restart only the namespace that the guest knows will do. Whatever ran before us ends with the
 * disabling: until then bus mastering is off, and afterwards the controller has no pointer of theirs.
 *
 *   any --EN=0--> RDY=0 --queues, bus master, EN=1--> RDY=1 --identify, create--> works --CFS, or an answer that
 *                                                                                        cannot be--> fault
 */
#include "drivervm/drivers/nvme/nvme.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define REGISTERS_BAR 0u /* 2.1.10: MLBAR */
#define READY_UNIT_US 500000u
#define IO_QUEUE 1u

/* What a successor must know: which namespace the guest has been using. */
struct nvme_stash {
    u32 nsid;
    u32 block_exp;
    u64 blocks;
    u64 unique[3];
    char serial[24];
};

static struct {
    u64 registers;
    u64 ready_us; /* CAP.TO */
    u32 doorbell_stride;
    u32 depth; /* commands at a time */
    u32 nsid;
    struct nvme_memory *memory;
    struct nvme_controller controller;
    struct nvme_namespace space;
    struct nvme_queue admin;
    struct nvme_queue work;
    struct blk_io *io[NVME_DEPTH]; /* out, by command identifier */
} nvme;

static u32 reg_read(u32 offset)
{
    return mmio_read32(nvme.registers + offset);
}

static bool wait_ready(u32 wanted)
{
    return mmio_wait(nvme.registers + NVME_CSTS, CSTS_RDY, wanted, nvme.ready_us);
}

/* 3.1.5: EN may change only when RDY has followed its last change. A controller in fatal state never follows. */
static status_t controller_disable(void)
{
    u32 cc = reg_read(NVME_CC);

    if ((cc & CC_EN) && !(reg_read(NVME_CSTS) & CSTS_CFS) && !wait_ready(CSTS_RDY))
        log_line("nvme: a predecessor's start has not ended, CSTS %08x", reg_read(NVME_CSTS));
    if (cc & CC_EN)
        mmio_write32(nvme.registers + NVME_CC, cc & ~CC_EN);
    return wait_ready(0) ? OK : ERR_TIMEOUT;
}

static struct nvme_queue queue_make(u32 id, struct nvme_command *commands, struct nvme_completion *completions,
                                    u32 entries)
{
    u64 doorbell = nvme.registers + NVME_DOORBELLS + 2 * id * (u64)nvme.doorbell_stride;

    return (struct nvme_queue){.commands = commands,
                               .completions = completions,
                               .tail_doorbell = doorbell,
                               .head_doorbell = doorbell + nvme.doorbell_stride,
                               .entries = entries,
                               .phase = STATUS_PHASE};
}

/* 7.6.1: the controller knows no address but those of the admin queue when it may first use them. */
static status_t controller_enable(void)
{
    struct nvme_memory *memory = nvme.memory;
    u32 size = NVME_ADMIN_ENTRIES - 1;

    nvme.admin = queue_make(0, memory->admin_commands, memory->admin_completions, NVME_ADMIN_ENTRIES);
    mmio_write32(nvme.registers + NVME_AQA, size << 16 | size);
    mmio_write64(nvme.registers + NVME_ASQ, dma_address((u64)memory->admin_commands));
    mmio_write64(nvme.registers + NVME_ACQ, dma_address((u64)memory->admin_completions));
    status_t status = pci_command(PCI_COMMAND_MASTER, 0);
    if (status != OK)
        return status;
    mmio_write32(nvme.registers + NVME_CC, CC_EN | CC_IOSQES | CC_IOCQES);
    return wait_ready(CSTS_RDY) ? OK : ERR_TIMEOUT;
}

/* Take what CAP says. ERR_UNSUPPORTED: other pages, another command set, or doorbells beyond the BAR. */
static status_t read_capabilities(u64 bar_size)
{
    u32 low = reg_read(NVME_CAP), high = reg_read(NVME_CAP + 4);

    nvme.ready_us = (u64)(CAP_TO(low) ? CAP_TO(low) : 1) * READY_UNIT_US;
    nvme.doorbell_stride = 4u << CAP_DSTRD(high);
    nvme.depth = (CAP_MQES(low) < NVME_ENTRIES ? CAP_MQES(low) : NVME_ENTRIES) - 1;
    bool fit = NVME_DOORBELLS + 2 * (IO_QUEUE + 1) * (u64)nvme.doorbell_stride <= bar_size;
    return CAP_MPSMIN(high) == 0 && CAP_CSS_NVM(high) && fit && nvme.depth > 0 ? OK : ERR_UNSUPPORTED;
}

static status_t controller_open(void)
{
    const struct driver_bar *bar = &driver_info->bar[REGISTERS_BAR];

    if (bar->kind != DRIVER_BAR_MEMORY || bar->size < NVME_DOORBELLS)
        return ERR_NOT_FOUND;
    nvme.registers = bar->address;
    status_t status = pci_command(PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, PCI_COMMAND_MASTER);
    if (status == OK)
        status = read_capabilities(bar->size);
    if (status == OK)
        status = controller_disable();
    if (status != OK)
        return status;
    nvme.memory = dma_alloc(sizeof(*nvme.memory), PAGE_SIZE);
    return nvme.memory ? controller_enable() : ERR_NO_MEMORY;
}

/* 4 KiB of what `what` names, copied once: the device could still write where it put them. */
static status_t identify(u32 what, u32 nsid, void *out)
{
    struct nvme_command command = {
        .opcode = ADMIN_IDENTIFY, .nsid = nsid, .prp1 = dma_address((u64)nvme.memory->identify), .dword = {[0] = what}};
    /* A controller that answers without writing must not leave us the answer before. */
    memset(nvme.memory->identify, 0, PAGE_SIZE);
    status_t status = admin_run(&nvme.admin, &command);

    if (status == OK)
        memcpy(out, nvme.memory->identify, PAGE_SIZE);
    return status;
}

static status_t identify_controller(void)
{
    static struct nvme_identify_controller raw;
    status_t status = identify(IDENTIFY_CONTROLLER, 0, &raw);

    return status == OK ? nvme_parse_controller(&raw, &nvme.controller) : status;
}

/* 5.15.2.3: the list is in order and ends with 0. */
static status_t find_namespace(void)
{
    static u32 list[PAGE_SIZE / sizeof(u32)];
    status_t status = identify(IDENTIFY_ACTIVE, 0, list);

    nvme.nsid = list[0];
    return status == OK && nvme.nsid == 0 ? ERR_NOT_FOUND : status;
}

static status_t identify_namespace(const struct nvme_stash *predecessor)
{
    static struct nvme_identify_namespace raw;
    struct nvme_stash now = {0};

    nvme.nsid = predecessor ? predecessor->nsid : 0;
    status_t status = predecessor ? OK : find_namespace();
    if (status == OK)
        status = identify(IDENTIFY_NAMESPACE, nvme.nsid, &raw);
    if (status == OK)
        status = nvme_parse_namespace(&raw, &nvme.space);
    if (status != OK)
        return status;
    now.nsid = nvme.nsid;
    now.block_exp = nvme.space.block_exp;
    now.blocks = nvme.space.blocks;
    memcpy(now.unique, nvme.space.unique, sizeof(now.unique));
    memcpy(now.serial, nvme.controller.serial, sizeof(nvme.controller.serial));
    if (predecessor && memcmp(&now, predecessor, sizeof(now)) != 0)
        return ERR_STATE; /* somebody swapped the disk */
    return stash_save(&now, sizeof(now));
}

/* 7.6.1 steps 8 and 9: their number, then the completion queue, then the submission queue that names it. */
static status_t create_queues(void)
{
    struct nvme_memory *memory = nvme.memory;
    u32 size = nvme.depth << 16 | IO_QUEUE;                                                       /* entries less one */
    struct nvme_command number = {.opcode = ADMIN_SET_FEATURES, .dword = {[0] = FEATURE_QUEUES}}; /* one of each */
    struct nvme_command completion = {
        .opcode = ADMIN_CREATE_CQ, .prp1 = dma_address((u64)memory->completions), .dword = {size, QUEUE_CONTIGUOUS}};
    struct nvme_command submission = {.opcode = ADMIN_CREATE_SQ,
                                      .prp1 = dma_address((u64)memory->commands),
                                      .dword = {size, QUEUE_CONTIGUOUS | IO_QUEUE << 16}};

    if (driver_info->interrupts)
        completion.dword[1] |= QUEUE_INTERRUPTS;
    nvme.work = queue_make(IO_QUEUE, memory->commands, memory->completions, nvme.depth + 1);
    status_t status = admin_run(&nvme.admin, &number);
    if (status == OK)
        status = admin_run(&nvme.admin, &completion);
    return status == OK ? admin_run(&nvme.admin, &submission) : status;
}

static u32 smaller(u32 a, u32 b)
{
    return a < b ? a : b;
}

static void describe(struct blk_disk *disk)
{
    u32 exp = nvme.space.block_exp - 9;
    u32 most = nvme.controller.max_bytes;
    /* MDTS is about data that is moved, and yet some controllers want it obeyed by WRITE ZEROES too (Linux does so). */
    u32 zero = smaller(most, NVM_MAX_BLOCKS << nvme.space.block_exp);

    disk->sectors = nvme.space.blocks << exp;
    disk->logical_block_exp = (u8)exp;
    memcpy(disk->id, nvme.controller.serial, sizeof(disk->id));
    disk->limits = (struct blk_limits){.depth = nvme.depth,
                                       .max_pieces = RING_MAX_SEGMENTS,
                                       .max_piece = most,
                                       .max_bytes = most,
                                       .max_zero = nvme.controller.write_zeroes ? zero : 0,
                                       .max_discard = nvme.controller.dataset ? BLK_MAX_RANGE * VIRTIO_BLK_SECTOR : 0,
                                       .alignment = 4,      /* 4.3: PBAO */
                                       .joint = PAGE_SIZE}; /* 4.3: the offset of each PRP but the first is 0 */
}

static status_t start(struct blk_disk *disk)
{
    u64 began = tsc_read();
    struct nvme_stash stash;
    struct nvme_stash *predecessor = stash_load(&stash, sizeof(stash)) ? &stash : NULL;
    status_t status = controller_open();

    if (status == OK)
        status = identify_controller();
    if (status == OK)
        status = identify_namespace(predecessor);
    if (status == OK)
        status = create_queues();
    if (status != OK)
        return status;
    describe(disk);
    log_line("nvme: %s, namespace %u", nvme.controller.model, nvme.nsid);
    log_line("nvme: %llu blocks of %u bytes, %u at a time, ready after %llu us", (unsigned long long)nvme.space.blocks,
             1u << nvme.space.block_exp, nvme.depth, (unsigned long long)microseconds_since(began));
    return OK;
}

static void submit(struct blk_io *io)
{
    struct nvme_command command;

    DRIVER_CHECK(io->index < nvme.depth && !nvme.io[io->index]);
    DRIVER_CHECK(nvme_build_io(&command, &nvme.memory->slot[io->index], nvme.nsid, nvme.space.block_exp, io));
    nvme.io[io->index] = io;
    queue_submit(&nvme.work, &command);
}

/* Which command is it? The controller may name only what is out, each once: that bounds what one poll can see. */
static struct blk_io *take_io(const struct nvme_completion *completion)
{
    struct blk_io *io = completion->id < nvme.depth ? nvme.io[completion->id] : NULL;

    if (!io) {
        log_line("nvme: completion of command %u, which is not out", completion->id);
        driver_fault(DRIVER_FAULT_DEVICE, completion->id);
    }
    nvme.io[completion->id] = NULL;
    return io;
}

static void finish(const struct nvme_completion *completion)
{
    struct blk_io *io = take_io(completion);
    u32 code = STATUS_CODE(completion->status);

    if (code)
        log_line("nvme: I/O error %03x at sector %llu, %u bytes", code, (unsigned long long)io->lba, io->bytes);
    blk_io_done(io, code == 0);
}

/* Nothing came: is it alive? All ones is what reads give when it is gone. */
static void check_controller(void)
{
    u32 status = reg_read(NVME_CSTS);

    if (!(status & CSTS_CFS) && (status & CSTS_RDY))
        return;
    log_line("nvme: the controller has failed, CSTS %08x", status);
    driver_fault(DRIVER_FAULT_DEVICE, status);
}

static bool poll(void)
{
    struct nvme_completion completion;
    bool any = false;

    while (queue_next(&nvme.work, &completion)) {
        finish(&completion);
        any = true;
    }
    if (any)
        queue_release(&nvme.work);
    else
        check_controller();
    return any;
}

const struct blk_driver blk_driver = {.name = "nvme", .start = start, .submit = submit, .poll = poll};
