/* QEMU's teaching device (docs/specs/edu): DMA to wherever it is told, and interrupts on demand. */
#include "drivervm/drivers/rogue/rogue.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define EDU_ID 0x00u
#define EDU_RAISE 0x60u
#define EDU_DMA_SOURCE 0x80u
#define EDU_DMA_TARGET 0x88u
#define EDU_DMA_COUNT 0x90u
#define EDU_DMA_COMMAND 0x98u
#define EDU_DMA_START 1u
#define EDU_DMA_TO_MEMORY 2u
#define EDU_BUFFER 0x40000u /* 4 KiB inside the device; QEMU aborts when a transfer leaves it */
#define EDU_ID_MASK 0xffffu
#define EDU_ID_VALUE 0x00edu

#define DMA_TIMEOUT_US 2000000u
#define DMA_SLEEP_US 5000u

static u8 page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static u64 registers(void)
{
    return driver_info->bar[0].address;
}

bool edu_is_there(void)
{
    return (mmio_read32(registers() + EDU_ID) & EDU_ID_MASK) == EDU_ID_VALUE;
}

bool edu_is_busy(void)
{
    return mmio_read32(registers() + EDU_DMA_COMMAND) & EDU_DMA_START;
}

bool edu_open(void)
{
    if (pci_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0) == OK && edu_is_there() && edu_finish())
        return true;
    rogue_say("no edu device");
    return false;
}

void edu_start(u64 address, bool to_memory, u32 bytes)
{
    mmio_write64(registers() + EDU_DMA_SOURCE, to_memory ? EDU_BUFFER : address);
    mmio_write64(registers() + EDU_DMA_TARGET, to_memory ? address : EDU_BUFFER);
    mmio_write64(registers() + EDU_DMA_COUNT, bytes);
    mmio_write64(registers() + EDU_DMA_COMMAND, EDU_DMA_START | (to_memory ? EDU_DMA_TO_MEMORY : 0));
}

/* Asleep meanwhile, with a sign of life now and then. */
bool edu_finish(void)
{
    for (u64 deadline = deadline_after(DMA_TIMEOUT_US); edu_is_busy();) {
        if (deadline_passed(deadline))
            return false;
        ring_heartbeat(&driver_rings[0]);
        hypercall(HYPERCALL_WAIT, DMA_SLEEP_US, 0, 0);
    }
    return true;
}

bool edu_finish_awake(void)
{
    for (struct device_wait wait = device_wait_begin(DMA_TIMEOUT_US); edu_is_busy();)
        if (!device_wait_more(&wait))
            return false;
    return true;
}

void edu_write(u64 address, u8 value)
{
    memset(page, value, EDU_TRANSFER);
    edu_start((u64)page, false, EDU_TRANSFER);
    bool filled = edu_finish();
    edu_start(address, true, EDU_TRANSFER);
    rogue_say("the device %s", filled && edu_finish() ? "says that it is done" : "is cut off");
}

void edu_raise_interrupt(u32 count)
{
    for (u32 i = 0; i < count; i++)
        mmio_write32(registers() + EDU_RAISE, 1);
}
