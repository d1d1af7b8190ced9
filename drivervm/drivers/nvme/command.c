#include "drivervm/drivers/nvme/command.h"
#include "shared/lib/string.h"

#define BLOCK_EXP_MIN 9u
#define BLOCK_EXP_MAX 12u
#define SECTORS_END (1ull << 54) /* so that neither sectors nor bytes overflow anywhere */

static void copy_string(char *out, const char *text, size_t count)
{
    size_t length = 0;

    memcpy(out, text, count);
    for (size_t i = 0; i < count; i++)
        if (out[i] != ' ' && out[i] != 0)
            length = i + 1;
    memset(out + length, 0, count + 1 - length);
}

status_t nvme_parse_controller(const struct nvme_identify_controller *raw, struct nvme_controller *out)
{
    if ((raw->sqes & 0xf) > 6 || raw->sqes >> 4 < 6 || (raw->cqes & 0xf) > 4 || raw->cqes >> 4 < 4)
        return ERR_UNSUPPORTED;
    *out = (struct nvme_controller){.max_bytes = NVME_MAX_BYTES,
                                    .dataset = raw->oncs & ONCS_DATASET,
                                    .write_zeroes = raw->oncs & ONCS_WRITE_ZEROES};
    if (raw->mdts != 0 && raw->mdts < 20 && PAGE_SIZE << raw->mdts < NVME_MAX_BYTES)
        out->max_bytes = (u32)PAGE_SIZE << raw->mdts;
    copy_string(out->serial, raw->serial, sizeof(raw->serial));
    copy_string(out->model, raw->model, sizeof(raw->model));
    return OK;
}

status_t nvme_parse_namespace(const struct nvme_identify_namespace *raw, struct nvme_namespace *out)
{
    u32 index = raw->format & 0xf;
    u32 format = raw->lba_format[index];
    u32 block_exp = format >> 16 & 0xff;

    if (index > raw->formats || (format & 0xffff) != 0 || (raw->protection & 7) != 0 || block_exp < BLOCK_EXP_MIN ||
        block_exp > BLOCK_EXP_MAX)
        return ERR_UNSUPPORTED;
    if (raw->blocks == 0 || raw->blocks > SECTORS_END >> (block_exp - BLOCK_EXP_MIN))
        return ERR_FORMAT;
    *out = (struct nvme_namespace){
        .blocks = raw->blocks, .block_exp = block_exp, .unique = {raw->nguid[0], raw->nguid[1], raw->eui64}};
    return OK;
}

/*
 * 4.3: the data as a list of pages. Only the first may begin inside its page, only the last may end there; pieces that
 * follow each other in memory are one to the controller. PRP2 is the second page, or where the list of the others is.
 */
static bool build_prps(struct nvme_command *command, struct nvme_slot *slot, struct blk_io *io)
{
    struct blk_piece piece;
    u32 pages = 0;
    u64 end = 0;

    while (blk_next_piece(io, &piece)) {
        u64 at = piece.address;
        bool joined = pages == 0 || at == end || ((at | end) & PAGE_MASK) == 0;
        if (!joined || piece.length == 0 || ((at | piece.length) & 3) != 0)
            return false;
        end = at + piece.length;
        if (pages == 0) {
            command->prp1 = dma_address(at);
            pages = 1;
            at = PAGE_DOWN(at) + PAGE_SIZE;
        } else {
            at = PAGE_UP(at); /* a page that the piece before it began is listed */
        }
        for (u64 page = at < end ? dma_address(at) : 0; at < end; at += PAGE_SIZE, page += PAGE_SIZE) {
            if (pages > NVME_LIST)
                return false;
            slot->list[pages++ - 1] = page;
        }
    }
    command->prp2 = pages <= 1 ? 0 : pages == 2 ? slot->list[0] : dma_address((u64)slot->list);
    return pages > 0;
}

static void set_place(struct nvme_command *command, const struct blk_io *io, u32 block_exp)
{
    u64 lba = io->lba >> (block_exp - BLOCK_EXP_MIN);

    command->dword[0] = (u32)lba;
    command->dword[1] = (u32)(lba >> 32);
    command->dword[2] = (io->bytes >> block_exp) - 1;
}

static void build_discard(struct nvme_command *command, struct nvme_slot *slot, const struct blk_io *io, u32 block_exp)
{
    struct nvme_range *range = (struct nvme_range *)slot->list;

    *range = (struct nvme_range){.blocks = io->bytes >> block_exp, .lba = io->lba >> (block_exp - BLOCK_EXP_MIN)};
    command->prp1 = dma_address((u64)range);
    command->dword[1] = DATASET_DEALLOCATE; /* dword 10: ranges less one */
}

bool nvme_build_io(struct nvme_command *command, struct nvme_slot *slot, u32 nsid, u32 block_exp, struct blk_io *io)
{
    static const u8 opcodes[] = {[BLK_READ] = NVM_READ,
                                 [BLK_WRITE] = NVM_WRITE,
                                 [BLK_FLUSH] = NVM_FLUSH,
                                 [BLK_ZERO] = NVM_WRITE_ZEROES,
                                 [BLK_DISCARD] = NVM_DATASET};

    *command = (struct nvme_command){.opcode = opcodes[io->op], .id = (u16)io->index, .nsid = nsid};
    switch (io->op) {
    case BLK_READ:
    case BLK_WRITE:
        set_place(command, io, block_exp);
        return build_prps(command, slot, io);
    case BLK_ZERO:
        set_place(command, io, block_exp);
        command->dword[2] |= io->unmap ? ZEROES_DEALLOCATE : 0;
        return true;
    case BLK_DISCARD:
        build_discard(command, slot, io, block_exp);
        return true;
    case BLK_FLUSH:
        return true;
    }
    return false;
}
